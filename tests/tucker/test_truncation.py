"""HOSVD and ST-HOSVD: the bound is kept, ranks are not wasted, factors are what they should be."""

import functools
import math

import numpy as np
import pytest
import tensorly as tl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.datasets import load_indian_pines

import tensorfast as tf
from tensorfast.testing import planted
from tensorfast.tucker import subspace

METHODS = {"hosvd": tf.hosvd, "sthosvd": tf.sthosvd}
both = pytest.mark.parametrize("method", METHODS)


@functools.cache
def spectral(seed: int) -> np.ndarray:
    """Random tensor of order 2 to 5 with spectra from flat to steep, and some exact zeros."""
    rng = np.random.default_rng(seed)
    ndim = 2 + seed % 4
    shape = rng.integers(1, {2: 31, 3: 13, 4: 8, 5: 6}[ndim], ndim)
    x = rng.standard_normal(shape)
    for n, size in enumerate(shape):
        decay = 10.0 ** (-rng.uniform(0, 12) * np.linspace(0, 1, size))
        if seed % 5 == 0:
            decay[size // 2 + 1 :] = 0
        basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
        x = np.moveaxis(np.tensordot(basis * decay, x, (1, n)), 0, n)
    return x * 10.0 ** rng.uniform(-8, 8)


def dense(model) -> np.ndarray:
    """Multiply out in double precision, one einsum a mode."""
    core, factors = model
    out = np.asarray(core)
    out = out.astype(np.result_type(out, np.float64))
    for n, f in enumerate(factors):
        out = np.moveaxis(np.tensordot(np.asarray(f), out, (1, n)), 0, n)
    return out


def exact_error(x: np.ndarray, model) -> float:
    wide = x.astype(np.result_type(x, np.float64))
    return float(np.linalg.norm(wide - dense(model)) / np.linalg.norm(wide))


def assert_orthonormal(model, dtype) -> None:
    for f in model.factors:
        f = np.asarray(f)
        assert f.dtype == dtype
        gap = np.abs(f.conj().T @ f - np.eye(f.shape[1])).max()
        assert gap <= 8 * f.shape[0] * np.finfo(dtype).eps


def assert_projection(x: np.ndarray, model) -> None:
    """Hold the core to what the factors make of the tensor: nothing else is as near."""
    core = x.astype(np.result_type(x, np.float64))
    for n, f in enumerate(model.factors):
        core = np.moveaxis(np.tensordot(np.asarray(f).conj().T, core, (1, n)), 0, n)
    scale = np.linalg.norm(core)
    gap = np.abs(np.asarray(model.core) - core).max()
    assert gap <= 100 * np.finfo(np.asarray(model.core).dtype).eps * scale


def unfold(x: np.ndarray, n: int) -> np.ndarray:
    return np.moveaxis(x, n, 0).reshape(x.shape[n], -1)


@both
@pytest.mark.parametrize("tol", [0.5, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_the_bound_is_kept_on_200_tensors(method, tol):
    for seed in range(200):
        x = spectral(seed)
        model = METHODS[method](x, tol=tol)
        error = exact_error(x, model)
        assert error <= tol, seed
        assert model.info.rel_errors[-1] == pytest.approx(error, rel=0.02, abs=2e-15)


@both
@pytest.mark.parametrize("tol", [0.5, 1e-1, 1e-2, 1e-3])
def test_the_bound_is_kept_in_float32(method, tol):
    for seed in range(200):
        x = spectral(seed).astype(np.float32)
        model = METHODS[method](x, tol=tol)
        error = exact_error(x, model)
        assert error <= tol, seed
        assert model.info.rel_errors[-1] == pytest.approx(error, rel=0.02, abs=1e-6)
        assert model.core.dtype == np.float32


@pytest.mark.parametrize("tol", [1e-7, 1e-9, 1e-11, 1e-13])
def test_bounds_finer_than_a_gram_matrix_resolves(tol):
    for seed in range(0, 200, 5):
        x = spectral(seed)
        for method in METHODS.values():
            assert exact_error(x, method(x, tol=tol)) <= tol, seed


@pytest.mark.parametrize("tol", [0.5, 1e-1, 1e-2, 1e-3])
def test_ranks_are_not_wasted(tol):
    """One rank less in any mode would leave out more than that mode's share."""
    for seed in range(0, 200, 7):
        x = spectral(seed)
        for n, r in enumerate(tf.hosvd(x, tol=tol).rank):
            s = np.linalg.svd(unfold(x, n), compute_uv=False)
            share = (0.99 * tol) ** 2 * (s**2).sum() / x.ndim
            assert r == 1 or (s[r - 1 :] ** 2).sum() > share, (seed, n)
        # What a mode leaves of its share, the modes after it may use.
        assert math.prod(tf.sthosvd(x, tol=tol).rank) <= math.prod(tf.hosvd(x, tol=tol).rank)


@functools.cache
def pines(dtype: str) -> np.ndarray:
    cube = np.asarray(load_indian_pines().tensor, dtype=dtype)
    return np.ascontiguousarray(cube[::3, ::3, ::2])


@both
@pytest.mark.parametrize(
    ("dtype", "tol"),
    [*(("float64", 10.0**-k) for k in range(1, 6)), *(("float32", 10.0**-k) for k in range(1, 4))],
)
def test_the_bound_is_kept_on_a_hyperspectral_cube(method, dtype, tol):
    x = pines(dtype)
    model = METHODS[method](x, tol=tol)
    error = exact_error(x, model)
    assert error <= tol
    assert model.info.rel_errors[-1] == pytest.approx(error, rel=0.02)
    assert_orthonormal(model, dtype)
    if tol == 1e-1:
        assert math.prod(model.rank) < x.size / 100


@pytest.mark.parametrize("rank", [(3, 4, 2), (5, 1, 6), (7, 6, 8)])
def test_hosvd_is_the_svd_of_every_unfolding(rank):
    x = planted((7, 6, 8), 9, noise=0.5)[0].numpy()
    model = tf.hosvd(x, rank)
    assert model.rank == rank
    for n, (f, r) in enumerate(zip(model.factors, rank, strict=True)):
        u = np.linalg.svd(unfold(x, n))[0][:, :r]
        np.testing.assert_allclose(f @ f.T, u @ u.T, atol=1e-10)
    assert_orthonormal(model, np.float64)
    assert_projection(x, model)
    assert model.info.rel_errors[-1] == pytest.approx(exact_error(x, model), rel=1e-6, abs=1e-14)


@pytest.mark.parametrize("order", [None, (0, 1, 2), (2, 0, 1), (-1, 1, 0)], ids=str)
def test_sthosvd_projects_mode_after_mode(order):
    """And its squared error is the sum of all discarded squares."""
    x = planted((7, 6, 8), 9, noise=0.5)[0].numpy()
    rank = (3, 5, 2)
    model = tf.sthosvd(x, rank, mode_order=order)
    # By default the mode that shrinks most goes first.
    core, lost = x, 0.0
    for n in (2, 0, 1) if order is None else order:
        u, s, _ = np.linalg.svd(unfold(core, n), full_matrices=False)
        u = u[:, : rank[n]]
        np.testing.assert_allclose(model.factors[n] @ model.factors[n].T, u @ u.T, atol=1e-10)
        lost += (s[rank[n] :] ** 2).sum()
        core = np.moveaxis(np.tensordot(u.T, core, (1, n)), 0, n % 3)
    assert exact_error(x, model) == pytest.approx((lost**0.5) / np.linalg.norm(x), rel=1e-9)
    assert_orthonormal(model, np.float64)
    assert_projection(x, model)


@both
def test_errors_are_near_those_of_tensorly(method):
    """TensorLy starts at HOSVD and iterates; ours are at most sqrt(N) times as far."""
    tl.set_backend("numpy")
    for seed in range(5):
        x = planted((12, 11, 10), 9, noise=0.4, seed=seed)[0].numpy()
        core, factors = tl.decomposition.tucker(x, rank=[4, 3, 5], n_iter_max=50, tol=1e-12)
        theirs = exact_error(x, (core, factors))
        ours = METHODS[method](x, (4, 3, 5)).info.rel_errors[-1]
        assert theirs * (1 - 1e-9) <= ours <= min(3**0.5, 1.1) * theirs


@both
@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (3, (3, 3, 3)),
        ((2, 4, 8), (2, 4, 8)),
        ([2, 4, 9], (2, 4, 9)),
        (100, (6, 5, 9)),
        ((7, 4, 4), (6, 4, 4)),
        (0.5, (3, 3, 5)),
        (1.0, (6, 5, 9)),
        (1e-9, (1, 1, 1)),
        (np.int64(2), (2, 2, 2)),
        (np.float32(0.5), (3, 3, 5)),
    ],
    ids=str,
)
def test_forms_of_rank(method, rank, expected):
    x = planted((6, 5, 9), 9, noise=0.5)[0]
    model = METHODS[method](x, rank)
    assert model.rank == expected
    assert model.shape == (6, 5, 9)
    assert tuple(model.core.shape) == model.rank


@both
@pytest.mark.parametrize("rank", [(6, 1, 1), (10, 2, 2), (5, 2, 1)], ids=str)
def test_ranks_that_no_core_can_fill(method, rank):
    """A mode's rank is at most the product of the others'; what is asked beyond adds nothing."""
    x = planted((10, 2, 2), 3, noise=0.1)[0].numpy()
    model = METHODS[method](x, rank)
    assert all(r <= asked for r, asked in zip(model.rank, rank, strict=True))
    feasible = (min(rank[0], rank[1] * rank[2]), *rank[1:])
    assert_orthonormal(model, np.float64)
    assert_projection(x, model)
    best = METHODS[method](x, feasible).info.rel_errors[-1]
    # ST-HOSVD orders modes by how much they shrink, which the unusable rank changes: the same up to
    # the difference between two orders.
    assert model.info.rel_errors[-1] <= best * (1 + 1e-3) + 1e-14


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_full_rank_is_exact(method, dtype):
    x = planted((6, 5, 9), 4, noise=0.5, dtype=getattr(torch, np.dtype(dtype).name))[0].numpy()
    model = METHODS[method](x, x.shape)
    assert exact_error(x, model) < 100 * np.finfo(dtype).eps


@both
def test_complex(method):
    x = planted((6, 5, 9), 4, noise=0.5, dtype=torch.complex128)[0].numpy()
    model = METHODS[method](x, (3, 4, 5))
    assert_orthonormal(model, np.complex128)
    assert_projection(x, model)
    assert model.info.rel_errors[-1] == pytest.approx(exact_error(x, model), rel=1e-6)
    assert exact_error(x, METHODS[method](x, tol=0.2)) <= 0.2


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("arguments", [{"rank": 2}, {"tol": 0.1}, {"tol": 0.0}], ids=str)
def test_zero_constant_and_size_1(method, dtype, arguments):
    for x in (torch.zeros(4, 3, 5), torch.full((4, 3, 5), 2.5), torch.ones(1, 3, 1), torch.ones(1)):
        x = x.to(dtype)
        model = METHODS[method](x, **arguments)
        assert all(torch.isfinite(t).all() for t in (model.core, *model.factors))
        gap = np.abs(dense(model) - x.numpy()).max()
        assert gap <= 50 * torch.finfo(dtype).eps
        assert model.info.rel_errors[-1] <= max(
            arguments.get("tol", 0), 50 * torch.finfo(dtype).eps
        )


@both
@pytest.mark.parametrize("noise", [0.01, 0.5])
@pytest.mark.parametrize("shape", [(200, 8, 9), (700, 8, 9), (150, 140, 12)], ids=str)
def test_long_modes_may_take_a_sketch(method, shape, noise):
    """Where a Gram matrix would be dear: nearly as good as without, and the same again."""
    x = planted(shape, 9, noise=noise)[0].numpy()
    rank = (5, 4, 4)
    model, again = (METHODS[method](x, rank) for _ in range(2))
    assert_orthonormal(model, np.float64)
    assert_projection(x, model)
    assert np.array_equal(model.core, again.core)
    core = x
    for n in sorted(range(3), key=lambda n: (rank[n] / shape[n], shape[n])):
        source = core if method == "sthosvd" else x
        u = np.linalg.svd(unfold(source, n), full_matrices=False)[0][:, : rank[n]]
        core = np.moveaxis(np.tensordot(u.T, core, (1, n)), 0, n)
    best = (1 - (np.linalg.norm(core) / np.linalg.norm(x)) ** 2) ** 0.5
    assert model.info.rel_errors[-1] <= best * 1.01


@pytest.mark.parametrize("tol", [0.9, 0.5, 0.3, 0.1, 0.06, 0.005])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_by_sketches_that_grow(monkeypatch, tol, dtype):
    """As on a GPU, where the eigenvectors of a long mode are dear."""
    x = planted((230, 200, 10), 40, noise=0.05, dtype=dtype)[0].numpy()
    expected, made = tf.sthosvd(x, tol=tol).rank, []
    made_by = subspace.sketch
    monkeypatch.setattr(subspace, "by_kernels", lambda a: True)
    monkeypatch.setattr(subspace, "sketch", lambda *a: made.append(a[2]) or made_by(*a))
    model = tf.sthosvd(x, tol=tol)
    assert exact_error(x, model) <= tol
    # Within the noise, at 0.06, a few per cent more.
    assert all(n <= 1.07 * least for n, least in zip(model.rank, expected, strict=True))
    # At the least of these no sketch that is allowed holds enough, at a looser one the first may.
    assert made[:1] == [24]
    assert len(made) <= 8
    made.clear()
    tf.hosvd(x, tol=tol)
    assert not made


@settings(max_examples=30)
@given(st.permutations(range(4)), st.lists(st.integers(2, 4), min_size=4, max_size=4))
def test_permuting_modes_permutes_hosvd(order, rank):
    x = planted((5, 6, 4, 7), 5, noise=0.5)[0].numpy()
    plain = tf.hosvd(x, rank)
    moved = tf.hosvd(x.transpose(order), [rank[n] for n in order])
    assert moved.info.rel_errors[-1] == pytest.approx(plain.info.rel_errors[-1], rel=1e-9)
    for f, n in zip(moved.factors, order, strict=True):
        g = plain.factors[n]
        np.testing.assert_allclose(f @ f.T, g @ g.T, atol=1e-9)


def test_hosvd_takes_singular_vectors_however_long_the_mode():
    """`sthosvd` may sketch; HOSVD is defined by the singular vectors themselves."""
    x = torch.randn(200, 140, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factors = tf.hosvd(x, 5).factors
    for n in range(3):
        u = torch.linalg.svd(tf.unfold(x, n), full_matrices=False).U[:, :5]
        cosines = torch.linalg.svdvals(u.T @ factors[n])
        assert cosines.min() > 1 - 1e-10


@pytest.mark.parametrize("size", [20, 200])
@both
def test_a_vector_is_its_own_basis(method, size):
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = METHODS[method](x, 1)
    assert model.info.rel_errors[-1] < 1e-14


@pytest.mark.parametrize("tol", [0.0, 1e-8, 5e-7])
@both
def test_a_bound_below_the_rounding_of_float32_is_met_or_not_claimed(method, tol):
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        model = METHODS[method](torch.randn(20, 21, 22, generator=g), tol=tol)
        error = model.info.rel_errors[-1]
        assert model.info.status == ("converged" if error <= tol else "precision_limit")
        if error > tol:
            assert "above tol by rounding" in model.info.message
    # At full rank nothing is left out and nothing is rounded.
    assert tf.sthosvd(torch.randn(6, 7, 8, generator=g), tol=0).info.rel_errors[-1] == 0
