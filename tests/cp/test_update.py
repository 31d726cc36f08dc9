"""The least-squares update of one mode: normal equations, ridge, types."""

import pytest
import torch

from tensorfast.cp.update import LeastSquares
from tensorfast.precision import solve_dtype, unit_roundoff

pytestmark = pytest.mark.usefixtures("ends_soon")


def problem(columns: torch.Tensor, rows: int, dtype: torch.dtype):
    """Return H, M and A with ``M = A H^T``, H the Gram matrix of ``columns``."""
    g = torch.Generator().manual_seed(3)
    solution = torch.randn(rows, columns.shape[1], generator=g, dtype=solve_dtype(dtype))
    gram = columns.mH @ columns
    return gram, (solution @ gram.T).to(dtype), solution


def draw(rows: int, rank: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=g, dtype=solve_dtype(dtype))


DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 7])
def test_solves_the_normal_equations(dtype, rank):
    columns = draw(30, rank, dtype)
    gram, product, solution = problem(columns, 5, dtype)
    update = LeastSquares()
    factor = update(gram, product, torch.zeros_like(product))
    assert factor.dtype == dtype
    assert factor.is_contiguous()
    assert update.ridge == 0
    bound = 10 * rank * float(torch.linalg.cond(gram)) * unit_roundoff(dtype)
    gap = (factor - solution).abs().max() / solution.abs().max()
    assert float(gap) < bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_does_not_touch_its_arguments(dtype):
    gram, product, _ = problem(draw(2, 3, dtype), 5, dtype)
    current = draw(5, 3, dtype, seed=1).to(dtype)
    before = [t.clone() for t in (gram, product, current)]
    LeastSquares(0.1)(gram, product, current)
    assert all(torch.equal(a, b) for a, b in zip(before, (gram, product, current), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_singular_system_is_solved_near_the_current_factor(dtype):
    """Two equal columns: their sum is determined, their difference stays as it was."""
    columns = draw(30, 3, dtype)
    columns[:, 1] = columns[:, 0]
    gram, product, solution = problem(columns, 5, dtype)
    current = draw(5, 3, dtype, seed=1).to(dtype)
    update = LeastSquares()
    factor = update(gram, product, current)
    assert 0 < update.ridge < 1e-3
    scale = float(solution.abs().max())
    tolerance = 100 * scale * max(update.ridge, unit_roundoff(dtype))
    together = (factor[:, 0] + factor[:, 1]) - (solution[:, 0] + solution[:, 1])
    assert float(together.abs().max()) < tolerance
    assert float((factor[:, 2] - solution[:, 2]).abs().max()) < tolerance
    apart = (factor[:, 0] - factor[:, 1]) - (current[:, 0] - current[:, 1])
    # Rounding of the product, divided by the ridge, is what moves it.
    assert float(apart.abs().max()) < scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_solution_stays_where_it_is_under_any_ridge(dtype):
    columns = draw(2, 4, dtype)
    gram, product, solution = problem(columns, 5, dtype)
    current = solution.to(dtype)
    factor = LeastSquares()(gram, product, current)
    model = [f.to(gram.dtype) @ gram.T for f in (factor, current)]
    gap = float((model[0] - model[1]).abs().max())
    assert gap < 1e3 * unit_roundoff(dtype) * float(model[1].abs().max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_to_solve_leaves_the_factor(dtype):
    gram = torch.zeros(3, 3, dtype=solve_dtype(dtype))
    current = draw(5, 3, dtype).to(dtype)
    factor = LeastSquares()(gram, torch.zeros(5, 3, dtype=dtype), current)
    torch.testing.assert_close(factor, current)


@pytest.mark.parametrize("power", [-900, -60, 60, 900])
def test_the_ridge_is_relative(power):
    """Powers of two scale without rounding, so that no bit of the answer may change."""
    size = 2.0**power
    columns = draw(2, 4, torch.float64)
    gram, product, _ = problem(columns, 5, torch.float64)
    current = draw(5, 4, torch.float64, seed=1)
    plain, scaled = LeastSquares(), LeastSquares()
    expected = plain(gram, product, current)
    got = scaled(size * gram, size * product, current)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    assert scaled.ridge == plain.ridge > 0


def test_the_largest_ridge_is_remembered():
    update = LeastSquares()
    singular = torch.ones(2, 2, dtype=torch.float64)
    product = torch.ones(3, 2, dtype=torch.float64)
    update(singular, product, product)
    largest = update.ridge
    assert largest > 0
    # In single precision, a pivot is rounding sooner.
    update(singular, product.float(), product.float())
    assert update.ridge > largest
    largest = update.ridge
    update(singular, product, product)
    update(torch.eye(2, dtype=torch.float64), product, product)
    assert update.ridge == largest


@pytest.mark.parametrize("l2_reg", [1e-8, 1e-2, 5.0])
def test_l2_reg_adds_to_the_diagonal(l2_reg):
    gram, product, _ = problem(draw(2, 4, torch.float64), 5, torch.float64)
    update = LeastSquares(l2_reg)
    factor = update(gram, product, torch.zeros_like(product))
    regular = gram + l2_reg * torch.eye(4, dtype=torch.float64)
    expected = torch.linalg.solve(regular, product.T).T
    torch.testing.assert_close(factor, expected, rtol=1e-5, atol=1e-5)
    assert update.ridge == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_equations_end(value):
    gram, product, _ = problem(draw(30, 3, torch.float64), 5, torch.float64)
    gram[0, 0] = value
    with pytest.raises(FloatingPointError, match="no longer finite"):
        LeastSquares()(gram, product, torch.zeros_like(product))
