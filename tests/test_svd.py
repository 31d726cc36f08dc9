"""Truncated SVD, every method against LAPACK; sketches of unfoldings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast import svd
from tensorfast.svd import (
    generator,
    leading_subspace,
    orthonormal,
    scaled,
    sketch,
    tail_cut,
)
from tensorfast.testing import planted

METHODS = ["auto", "full", "gram", "randomized"]
SHAPES = [
    (12, 9),
    (9, 12),
    (40, 7),
    (7, 40),
    (1, 6),
    (6, 1),
    (1, 1),
    (150, 66),
    (66, 150),
]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
every_method = pytest.mark.parametrize("method", METHODS)


def decaying(shape, dtype: torch.dtype = torch.float64, base: float = 3.0) -> torch.Tensor:
    """Matrix with singular values 1, 1/base, 1/base^2, ..., none below 1e-6."""
    g = torch.Generator().manual_seed(sum(shape))
    wide = torch.complex128 if dtype.is_complex else torch.float64
    u, v = (torch.linalg.qr(torch.randn(n, min(shape), dtype=wide, generator=g)).Q for n in shape)
    s = (base ** -torch.arange(min(shape), dtype=torch.float64)).clamp(min=1e-6)
    return ((u * s) @ v.mH).to(dtype)


def hold(a: torch.Tensor, triplet, rank: int, best: torch.Tensor) -> None:
    """Hold a triplet to what defines it, and its error to the best there is."""
    u, s, vh = triplet
    eps = torch.finfo(a.dtype).eps
    assert (u.shape, s.shape, vh.shape) == ((a.shape[0], rank), (rank,), (rank, a.shape[1]))
    assert u.dtype == vh.dtype == a.dtype
    assert s.dtype == a.real.dtype
    eye = torch.eye(rank, dtype=a.dtype)
    size = max(a.shape)
    assert float((u.mH @ u - eye).abs().max()) <= 8 * size * eps
    assert float((vh @ vh.mH - eye).abs().max()) <= 8 * size * eps
    assert bool((s[:-1] >= s[1:]).all())
    assert float((s.double() - best[:rank]).abs().max()) <= 8 * size * eps * float(best[0])
    wide = torch.complex128 if a.is_complex() else torch.float64
    gap = torch.linalg.vector_norm(a.to(wide) - (u.to(wide) * s) @ vh.to(wide))
    least = torch.linalg.vector_norm(best[rank:])
    assert float(gap) <= float(least) * 1.001 + 8 * size * eps * float(best[0])


@every_method
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_lapack(method, shape, dtype):
    a = decaying(shape, dtype)
    best = torch.linalg.svdvals(a.to(torch.complex128 if dtype.is_complex else torch.float64))
    for rank in {1, 2, 5, min(shape)}:
        k = min(rank, *shape)
        hold(a, tf.truncated_svd(a, rank, method=method, seed=0), k, best)


@every_method
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_signs_are_a_convention(method, dtype):
    """The entry of largest modulus of each column of U is real and positive, so -a gives -Vh."""
    a = decaying((30, 20), dtype)
    one, other = (tf.truncated_svd(b, 4, method=method, seed=0) for b in (a, -a))
    for u, _, _ in (one, other):
        largest = u.gather(0, u.abs().argmax(0, keepdim=True))
        assert bool((largest.real > 0).all())
        if dtype.is_complex:
            assert float(largest.imag.abs().max()) < 1e-6
    tolerance = 1e-3 if torch.finfo(dtype).eps > 1e-10 else 1e-9
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(one[2], -other[2], rtol=0, atol=tolerance)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rank_deficient(method, dtype):
    """What lies beyond the rank is still orthonormal, and its singular values are rounding."""
    a = decaying((30, 20), dtype, base=1.5)
    a = (a[:, :3] @ a[:3, :]).contiguous()
    u, s, vh = tf.truncated_svd(a, 6, method=method, seed=0)
    best = torch.linalg.svdvals(a.double())
    best[3:] = 0
    hold(a, (u, s, vh), 6, best)


@every_method
def test_zero(method):
    u, s, vh = tf.truncated_svd(torch.zeros(8, 5), 3, method=method, seed=0)
    assert not s.any()
    torch.testing.assert_close(u.T @ u, torch.eye(3))
    assert torch.isfinite(vh).all()


@every_method
def test_rank_is_cut_to_what_there_is(method):
    u, s, vh = tf.truncated_svd(decaying((6, 4)), 9, method=method, seed=0)
    assert (u.shape, s.shape, vh.shape) == ((6, 4), (4,), (4, 4))


@every_method
@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (1e160, torch.float64),
        (1e-170, torch.float64),
        (1e160, torch.complex128),
        (1e30, torch.float32),
        (1e-30, torch.float32),
    ],
)
def test_any_scale(method, scale, dtype):
    """Squares of the entries over- or underflow, singular values do not."""
    power = 2.0 ** round(np.log2(scale))
    a = decaying((30, 20), dtype)
    expected = tf.truncated_svd(a, 4, method="full")
    u, s, vh = tf.truncated_svd(a * power, 4, method=method, seed=0)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-8
    np.testing.assert_allclose(s / power, expected[1], rtol=tolerance)
    torch.testing.assert_close(u, expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(vh, expected[2], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.complex128], ids=str)
def test_what_is_tame_is_not_scaled(dtype):
    x = torch.ones(3, 4, 5, dtype=dtype)
    same, squared, scale = scaled("op", x)
    assert same is x
    assert (squared, scale) == (60, 1)


@pytest.mark.parametrize(
    ("size", "dtype"), [(1e30, torch.float32), (1e-30, torch.bfloat16), (1e200, torch.float64)]
)
def test_scaling_is_by_a_power_of_two_and_refers_to_what_is_returned(size, dtype):
    x = torch.full((3, 4, 5), size, dtype=dtype)
    tame, squared, scale = scaled("op", x)
    assert np.log2(scale) == round(np.log2(scale))
    assert torch.equal(tame * scale, x.to(tame.dtype))
    assert squared == pytest.approx(float(tame.double().square().sum()))
    assert 60 <= squared < 240


def test_auto_chooses_as_documented():
    """Told by the bits of the result."""

    def chosen(shape, rank, dtype):
        a = decaying(shape, dtype, base=1.05)
        auto = tf.truncated_svd(a, rank, seed=0)
        return [
            m for m in METHODS[1:]
            if torch.equal(auto[0], tf.truncated_svd(a, rank, method=m, seed=0)[0])
        ]  # fmt: skip

    assert chosen((300, 64), 3, torch.float32) == ["full"]
    assert chosen((300, 200), 101, torch.float32) == ["full"]
    assert chosen((300, 200), 20, torch.float32) == ["gram"]
    assert chosen((300, 200), 42, torch.float64) == ["randomized"]
    assert chosen((300, 200), 60, torch.float64) == ["full"]
    assert chosen((600, 520), 20, torch.float32) == ["randomized"]


def test_a_seed_gives_the_same_bits():
    a = decaying((200, 150), base=1.1)
    one, two, other = (
        tf.truncated_svd(a, 5, method="randomized", seed=seed)[0] for seed in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_kinds_and_layouts():
    a = decaying((12, 9))
    u, s, vh = tf.truncated_svd(a.numpy(), 3)
    assert all(type(t) is np.ndarray for t in (u, s, vh))
    expected = np.linalg.svd(a.numpy())[1][:3]
    np.testing.assert_allclose(s, expected)
    assert all(isinstance(t, jax.Array) for t in tf.truncated_svd(jnp.ones((3, 4)), 1))
    for view in (a.T.contiguous().T, a.repeat_interleave(2, 0)[::2], a.numpy()[::-1, ::-1]):
        np.testing.assert_allclose(tf.truncated_svd(view, 3)[1], expected)
    half = a.half()
    for method in METHODS:
        u, s, _ = tf.truncated_svd(half, 3, method=method, seed=0)
        assert u.dtype == s.dtype == torch.float32
        np.testing.assert_allclose(s, np.linalg.svd(half.double().numpy())[1][:3], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("abc", 1), TypeError, "a is str; expected an array"),
        ((torch.ones(3), 1), ValueError, r"a has shape \(3,\); expected a matrix"),
        ((torch.ones(3, 2, 2), 1), ValueError, r"a has shape \(3, 2, 2\); expected a matrix"),
        ((torch.ones(0, 2), 1), ValueError, r"a.shape\[0\] is 0"),
        ((torch.ones(3, 2), 0), ValueError, "rank is 0; expected at least 1"),
        ((torch.ones(3, 2), 1.0), TypeError, r"rank is 1.0 \(float\); expected an integer"),
        ((torch.tensor([[1.0, float("nan")]]), 1), ValueError, r"a has 1 non-finite.* at \(0, 1\)"),
    ],
    ids=["string", "vector", "tensor", "empty", "rank 0", "float rank", "NaN"],
)
def test_errors(arguments, error, text):
    with pytest.raises(error, match=f"^truncated_svd: {text}") as caught:
        tf.truncated_svd(*arguments)
    # What is advised has to exist.
    assert "check_finite" not in str(caught.value)


@every_method
@pytest.mark.parametrize(
    ("seed", "error", "text"),
    [
        ("abc", TypeError, r"seed is 'abc' \(str\); expected an integer"),
        (-1, ValueError, "seed is -1; expected at least 0"),
        (2**64, ValueError, r"seed is 18446744073709551616; expected at most 2\*\*64 - 1"),
    ],
)
def test_a_seed_that_is_none_whatever_the_method(method, seed, error, text):
    with pytest.raises(error, match=f"^truncated_svd: {text}"):
        tf.truncated_svd(torch.ones(3, 2), 1, method=method, seed=seed)


def test_the_largest_seed():
    assert generator("op", 2**64 - 1, torch.device("cpu")).initial_seed() == 2**64 - 1


def test_unknown_method():
    text = r"truncated_svd: method is 'lanczos'; expected one of \('auto', 'full', 'gram'"
    with pytest.raises(ValueError, match=text):
        tf.truncated_svd(torch.ones(3, 2), 1, method="lanczos")


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128, torch.float16], ids=str)
@pytest.mark.parametrize("rank", [3, 30])
def test_leading_subspaces_of_unfoldings(dtype, rank):
    """By a sketch, or the Gram matrix where that is as small: they hold what the best holds."""
    made = torch.float64 if dtype == torch.float16 else dtype
    x = planted((40, 36, 33), rank, noise=0.05, dtype=made)[0].to(dtype)
    rng = torch.Generator().manual_seed(0)
    for mode in range(3):
        u = leading_subspace(x, mode, rank, rng)
        eye = torch.eye(rank, dtype=u.dtype)
        assert float((u.mH @ u - eye).abs().max()) < 200 * torch.finfo(u.dtype).eps
        wide = torch.complex128 if dtype.is_complex else torch.float64
        rows = x.movedim(mode, 0).reshape(x.shape[mode], -1).to(wide)
        best = torch.linalg.vector_norm(torch.linalg.svdvals(rows)[:rank])
        held = torch.linalg.vector_norm(u.to(wide).mH @ rows)
        assert float(held) >= float(best) * (1 - 1e-3)


@pytest.mark.parametrize("mode", range(3))
def test_a_sketch_holds_the_tensor_in_its_space(mode):
    x = torch.randn(30, 29, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sketch(x, mode, 4, torch.Generator().manual_seed(1))
    exact = torch.tensordot(x, found.basis, dims=([mode], [0])).movedim(-1, mode)
    turned = torch.tensordot(found.projected, found.turn, dims=([mode], [0])).movedim(-1, mode)
    torch.testing.assert_close(turned, exact, rtol=1e-12, atol=1e-12)
    rows = exact.movedim(mode, 0).flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.diag(found.squares), rtol=1e-10, atol=1e-8)
    true = torch.linalg.svdvals(tf.unfold(x, mode))[:4] ** 2
    assert bool((found.squares <= true * (1 + 1e-12)).all())


@pytest.mark.parametrize("size", [5, 150])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.complex64], ids=str)
def test_the_leading_subspace_of_a_vector(size, dtype):
    """Its unfolding is one column, which is the leading direction."""
    x = torch.randn(size, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    x = (x if dtype.is_complex else x.real).to(dtype)
    for rank in (1, 3):
        basis = leading_subspace(x, 0, rank, torch.Generator().manual_seed(1))
        assert basis.shape == (size, rank)
        wide = x.to(basis.dtype)
        held = (basis.mH @ wide).abs()
        eps = torch.finfo(basis.dtype).eps
        assert float(held[0]) == pytest.approx(float(wide.norm()), rel=size * eps)
        assert bool((held[1:] <= size * eps * wide.norm()).all())
        gap = basis.mH @ basis - torch.eye(rank, dtype=basis.dtype)
        assert float(gap.abs().max()) <= size * eps


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((100, 9, 9), 4, (False, False)),
        ((128, 9, 9), 30, (True, True)),
        ((192, 9, 9), 100, (False, False)),
        ((193, 9, 9), 100, (False, True)),
        ((500, 9, 9), 184, (False, True)),
        ((500, 9, 9), 185, (False, False)),
    ],
)
def test_when_a_sketch_pays(monkeypatch, shape, rank, expected):
    """Where kernels find eigenvectors, wherever those of the whole mode are not for them."""
    x = torch.empty(shape)
    found = [svd.sketch_pays(x, 0, rank)]
    monkeypatch.setattr(svd, "by_kernels", lambda a: True)
    assert (*found, svd.sketch_pays(x, 0, rank)) == expected


def test_orthonormal_completes_what_vanishes():
    a = torch.zeros(6, 3, dtype=torch.float64)
    a[:, 1] = 2.0
    q = orthonormal(a)
    torch.testing.assert_close(q.T @ q, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(q @ (q.T @ a), a)


@pytest.mark.parametrize(
    ("budget", "kept"), [(0, 4), (0.9, 4), (1, 3), (2.9, 3), (3, 2), (14, 1), (99, 1)]
)
def test_tail_cut(budget, kept):
    assert tail_cut(torch.tensor([8.0, 4.0, 2.0, 1.0]), budget) == kept


def test_tail_cut_takes_rounding_below_zero_for_zero():
    assert tail_cut(torch.tensor([8.0, 0.0, -1e-18]), 0.0) == 1


@pytest.mark.parametrize("seed", range(4))
def test_randomized_vectors_of_a_slowly_falling_spectrum(seed):
    """Singular values k^-0.5: 0.3 % above the best at most; one power step: 0.8 %."""
    g = torch.Generator().manual_seed(seed)
    u, v = (
        torch.linalg.qr(torch.randn(n, 200, generator=g, dtype=torch.float64)).Q for n in (300, 400)
    )
    values = torch.arange(1, 201, dtype=torch.float64) ** -0.5
    a = (u * values) @ v.T
    u, s, vh = tf.truncated_svd(a, 10, method="randomized", seed=0)
    assert (a - (u * s) @ vh).norm() < 1.003 * values[10:].norm()


@pytest.mark.parametrize("shape", [(300, 400), (500, 260)], ids=str)
def test_randomized_error_at_a_larger_rank(shape):
    """Singular values 1 / k, as a photograph's: within 0.3 %; with only 8 extra columns 1.1 %."""
    g = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, 250, generator=g, dtype=torch.float64)).Q for n in shape)
    values = 1 / torch.arange(1, 251, dtype=torch.float64)
    a = (u * values) @ v.T
    u, s, vh = tf.truncated_svd(a, 60, method="randomized", seed=0)
    assert (a - (u * s) @ vh).norm() < 1.003 * values[60:].norm()
