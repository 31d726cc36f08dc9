"""Singular normal equations end in a finite model, and in a message that says so."""

import pytest
import torch

import tensorfast as tf
from tensorfast import reference
from tensorfast.testing import planted, random_cp

pytestmark = pytest.mark.usefixtures("ends_soon")

SHAPES = [(7, 6), (6, 5, 7), (4, 5, 3, 6), (3, 4, 2, 3, 4)]
RIDGE = "singular"

every_kind = pytest.mark.parametrize(
    ("shape", "dtype", "init"),
    [
        pytest.param(shape, dtype, init, id=f"{len(shape)}d-{str(dtype)[6:]}-{init}")
        for shape in SHAPES
        for dtype in (torch.float32, torch.float64)
        for init in ("svd", "random")
    ],
)


def fit(x: torch.Tensor, rank: int, **options) -> tf.CPTensor:
    """Decompose, and hold the result to what always holds."""
    model = tf.cp_als(x, rank, **{"seed": 0, "n_iter_max": 60, **options})
    weights, factors = model
    assert weights.shape == (rank,)
    assert [tuple(f.shape) for f in factors] == [(size, rank) for size in x.shape]
    assert all(torch.isfinite(t).all() for t in (weights, *factors))
    wide = [f.double() for f in factors]
    residual = x.double() - reference.cp_to_tensor(weights.double(), wide)
    scale = float(torch.linalg.vector_norm(x.double())) or 1.0
    exact = float(torch.linalg.vector_norm(residual)) / scale
    # Normalising rounds again: by the size of the components, which may be above that of the sum.
    size = float(weights.double().abs().sum()) / scale
    assert model.info.rel_errors[-1] == pytest.approx(exact, rel=0.02, abs=8 * size * eps(x))
    return model


def eps(x: torch.Tensor) -> float:
    return torch.finfo(x.dtype).eps


@every_kind
@pytest.mark.parametrize("rank", [3, 5])
def test_exact_rank_1_at_a_higher_rank(shape, dtype, init, rank):
    x, _ = planted(shape, 1, dtype=dtype)
    model = fit(x, rank, init=init)
    # Well below ``tol``, where ALS may stop; single precision ends at its rounding.
    assert model.info.rel_errors[-1] < max(20 * eps(x), 1e-8)
    # Singular vectors as a start are orthogonal: one sweep, and nothing is singular.
    assert init == "svd" or RIDGE in model.info.message


@every_kind
def test_zero_tensor(shape, dtype, init):
    x = torch.zeros(shape, dtype=dtype)
    model = fit(x, 3, init=init)
    assert model.info.rel_errors[-1] == 0
    assert model.info.fit == 1
    assert model.info.converged
    assert torch.equal(tf.cp_to_tensor(model), x)


@every_kind
def test_constant_tensor(shape, dtype, init):
    x = torch.full(shape, 3.5, dtype=dtype)
    model = fit(x, 2, init=init)
    assert model.info.rel_errors[-1] < 20 * eps(x)
    assert RIDGE in model.info.message


@every_kind
def test_rank_above_every_dimension(shape, dtype, init):
    x, _ = planted(shape, 2, noise=0.3, dtype=dtype)
    rank = max(shape) + 3
    errors = [fit(x, r, init=init, n_iter_max=40, tol=0).info.rel_errors[-1] for r in (2, rank)]
    assert errors[1] < errors[0]


@every_kind
def test_two_equal_columns_at_the_start(shape, dtype, init):
    """They may be told apart or not; the best fit of one component less is there in any case."""
    x, _ = planted(shape, 3, noise=0.1, dtype=dtype)
    _, start = random_cp(shape, 3, seed=5, dtype=dtype)
    for f in start:
        f[:, 1] = f[:, 0]
    model = fit(x, 3, init=(None, start), n_iter_max=100, tol=0)
    two = fit(x, 2, init=init, n_iter_max=100, tol=0)
    assert model.info.rel_errors[-1] <= 1.05 * two.info.rel_errors[-1]
    assert RIDGE in model.info.message


@every_kind
def test_one_zero_column_at_the_start(shape, dtype, init):
    x, _ = planted(shape, 2, noise=0.1, dtype=dtype)
    _, start = random_cp(shape, 2, seed=5, dtype=dtype)
    start[-1][:, 0] = 0
    model = fit(x, 2, init=(None, start))
    assert model.info.rel_errors[-1] < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 6), (6, 1), (1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1, 4), (1, 1, 1), (2, 1, 3, 1)],
    ids=str,
)
def test_modes_of_size_1(shape, init, dtype):
    """Modes of length 1 are no more than scale: as good as the matrix or vector without them."""
    x, _ = planted(shape, 3, noise=0.1, dtype=dtype)
    rank = 2
    model = fit(x, rank, init=init, n_iter_max=200, tol=0)
    rest = x.double().squeeze()
    if rest.ndim == 2:
        s = torch.linalg.svdvals(rest)
        best = float(s[rank:].norm() / s.norm())
    else:
        best = 0.0
    assert model.info.rel_errors[-1] == pytest.approx(best, rel=1e-3, abs=1000 * eps(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("kind", ["zero", "constant", "rank1"])
def test_other_types(kind, dtype):
    real = {"zero": torch.zeros(4, 5, 3), "constant": torch.full((4, 5, 3), 2.0)}
    x = real[kind].to(dtype) if kind in real else torch.ones(4, 5, 3, dtype=dtype) * 1.5
    model = tf.cp_als(x, 3, seed=0)
    assert all(torch.isfinite(f).all() for f in model.factors)
    assert model.info.rel_errors[-1] < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e-10, 1e10, 1e25, 1e30])
@pytest.mark.parametrize("init", ["svd", "random"])
def test_the_scale_of_float32_data_does_not_matter(scale, init):
    """Scaling ``x`` scales the weights, up to where the data themselves leave the type's range."""
    x, _ = planted((6, 5, 7), 2, noise=0.1, dtype=torch.float32)
    plain, scaled = (fit(y, 2, init=init, tol=0, n_iter_max=15) for y in (x, x * scale))
    for a, b in zip(plain.factors, scaled.factors, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(plain.weights * scale, scaled.weights, rtol=1e-3, atol=0)
    assert scaled.info.rel_errors[-1] == pytest.approx(plain.info.rel_errors[-1], rel=1e-4)


@pytest.mark.parametrize("scale", [1e-100, 1e-30, 1e30, 1e100])
def test_the_scale_of_float64_data_does_not_matter(scale):
    x, _ = planted((6, 5, 7), 2, noise=0.1)
    plain, scaled = (fit(y, 2, init="random", tol=0, n_iter_max=15) for y in (x, x * scale))
    torch.testing.assert_close(plain.weights * scale, scaled.weights, rtol=1e-8, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("init", ["svd", "random"])
def test_unchecked_non_finite_data_end_in_words(value, init):
    x, _ = planted((6, 5, 7), 2, noise=0.1)
    x[1, 2, 3] = value
    with pytest.raises(FloatingPointError, match=r"cp_als: .* no longer finite.* clean or rescale"):
        tf.cp_als(x, 2, init=init, seed=0, check_finite=False)
