"""Every schedule computes plain ALS: against TensorLy, pyttb, and ALS written out."""

import functools
import itertools
import string

import numpy as np
import pytest
import pyttb
import tensorly as tl
import torch
from tensorly.decomposition import parafac

from tensorfast.cp.als import als
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.schedule import Schedule, all_schedules
from tensorfast.cp.update import LeastSquares

SWEEPS = 10
# Shape and rank; the last rank is above two of the modes.
CASES = [
    ((8, 8, 8), 3),
    ((9, 4, 7), 4),
    ((1, 6, 5), 2),
    ((5, 5, 5, 5), 3),
    ((3, 7, 2, 5), 2),
    ((3, 3, 3, 3, 3), 2),
    ((2, 5, 3, 4, 2), 3),
]


def schedules(free: tuple[int, ...]) -> list[Schedule]:
    return list(all_schedules(free))


def label(value: object) -> str:
    if isinstance(value, Schedule):
        return "_".join([value.name, *("".join(map(str, run)) for run in value.runs)])
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


EVERY = [
    pytest.param(shape, rank, s, id="-".join(map(label, (shape, rank, s))))
    for shape, rank in CASES
    for s in schedules(tuple(range(len(shape))))
]


def problem(shape: tuple[int, ...], rank: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Uniform data, far from any model, and a start: nothing here is nearly singular."""
    rng = np.random.default_rng(sum(shape) * 100 + rank)
    x = torch.from_numpy(rng.random(shape))
    return x, [torch.from_numpy(rng.random((size, rank))) for size in shape]


def run(x: torch.Tensor, factors: list[torch.Tensor], schedule: Schedule, **options):
    free = options.pop("free", range(x.ndim))
    options = {"n_iter_max": SWEEPS, "tol": 0, "schedule": schedule, **options}
    return als(DenseOperand(x), factors, LeastSquares(), free=free, **options)


def literal_als(x, factors, free, sweeps, l2_reg=0.0):
    """ALS as in the textbook: einsum and solve, mode after mode."""
    modes = string.ascii_lowercase[: x.ndim]
    factors, errors = list(factors), []
    for _ in range(sweeps):
        for n in free:
            others = [m for m in range(x.ndim) if m != n]
            terms = ",".join(modes[m] + "z" for m in others)
            conjugate = [factors[m].conj() for m in others]
            product = np.einsum(f"{modes},{terms}->{modes[n]}z", x, *conjugate)
            gram = functools.reduce(np.multiply, [f.T @ f.conj() for f in conjugate])
            factors[n] = np.linalg.solve(gram + l2_reg * np.eye(len(gram)), product.T).T
        model = np.einsum(f"{','.join(m + 'z' for m in modes)}->{modes}", *factors)
        errors.append(float(np.linalg.norm(x - model) / np.linalg.norm(x)))
    return factors, errors


@functools.cache
def tensorly_factors(shape: tuple[int, ...], rank: int) -> list[np.ndarray]:
    x, factors = problem(shape, rank)
    tl.set_backend("numpy")
    start = tl.cp_tensor.CPTensor((None, [f.numpy().copy() for f in factors]))
    model = parafac(x.numpy(), rank, init=start, n_iter_max=SWEEPS, tol=0, normalize_factors=False)
    assert np.allclose(model.weights, 1.0)
    return model.factors


def assert_same_factors(actual, expected, relative: float = 1e-8) -> None:
    for n, (got, want) in enumerate(zip(actual, expected, strict=True)):
        gap = np.linalg.norm(np.asarray(got) - want) / np.linalg.norm(want)
        assert gap <= relative, f"factor {n} is off by {gap:.1e}"


@pytest.mark.parametrize(("shape", "rank", "schedule"), EVERY)
def test_factors_after_ten_sweeps_equal_tensorly(shape, rank, schedule):
    x, start = problem(shape, rank)
    kept = [f.clone() for f in start]
    factors, info = run(x, start, schedule)
    assert_same_factors(factors, tensorly_factors(shape, rank))
    assert info.n_iter == SWEEPS
    assert all(torch.equal(a, b) for a, b in zip(start, kept, strict=True))


@pytest.mark.parametrize(("shape", "rank"), CASES, ids=label)
def test_fit_after_ten_sweeps_equals_pyttb(shape, rank):
    x, start = problem(shape, rank)
    kernel = pyttb.ktensor([np.asfortranarray(f.numpy()) for f in start], np.ones(rank))
    _, _, output = pyttb.cp_als(
        pyttb.tensor(x.numpy().copy()), rank, init=kernel, maxiters=SWEEPS, stoptol=-1, printitn=0
    )
    assert output["iters"] == SWEEPS - 1
    for schedule in schedules(tuple(range(len(shape)))):
        assert abs(run(x, start, schedule)[1].fit - output["fit"]) <= 1e-10


@pytest.mark.parametrize("shape", [(9, 4, 7), (3, 7, 2, 5), (2, 5, 3, 4, 2)], ids=label)
@pytest.mark.parametrize("layout", ["fortran", "permuted", "sliced", "expanded"])
def test_the_layout_of_x_changes_nothing(shape, layout):
    x, start = problem(shape, 3)
    ndim = x.ndim
    if layout == "fortran":
        other = x.permute(*reversed(range(ndim))).contiguous().permute(*reversed(range(ndim)))
    elif layout == "permuted":
        there = (1, 2, *range(3, ndim), 0)
        back = tuple(int(i) for i in np.argsort(there))
        other = x.permute(there).contiguous().permute(back)
    elif layout == "sliced":
        other = torch.full([2 * size + 1 for size in shape], torch.nan, dtype=x.dtype)
        other = other[(slice(1, None, 2),) * ndim].copy_(x)
    else:
        x = x[:1].repeat(shape[0], *[1] * (ndim - 1))
        other = x[:1].expand(shape)
    assert not other.is_contiguous()
    torch.testing.assert_close(other, x, rtol=0, atol=0)
    expected, errors = literal_als(x.numpy(), [f.numpy() for f in start], range(ndim), 3)
    for schedule in schedules(tuple(range(ndim))):
        factors, info = run(other, start, schedule, n_iter_max=3)
        # An expanded tensor has rank 1 in its first mode: only the model is determined.
        if layout != "expanded":
            assert_same_factors(factors, expected)
        np.testing.assert_allclose(info.rel_errors, errors, rtol=1e-7)


FIXED = [
    pytest.param(shape, fixed, id=f"{label(shape)}-keep{''.join(map(str, fixed))}")
    for shape in [(6, 4, 5), (3, 5, 4, 3), (2, 4, 3, 3, 2)]
    for k in (1, 2)
    for fixed in itertools.combinations(range(len(shape)), k)
    if k == 1 or fixed[1] - fixed[0] > 1 or fixed[0] == 1
]


@pytest.mark.parametrize(("shape", "fixed"), FIXED)
def test_fixed_modes_in_every_schedule(shape, fixed):
    x, start = problem(shape, 3)
    free = tuple(n for n in range(len(shape)) if n not in fixed)
    expected, errors = literal_als(x.numpy(), [f.numpy() for f in start], free, 5)
    for schedule in schedules(free):
        factors, info = run(x, start, schedule, free=free, n_iter_max=5)
        assert_same_factors(factors, expected)
        assert all(torch.equal(factors[n], start[n]) for n in fixed)
        np.testing.assert_allclose(info.rel_errors, errors, rtol=1e-10)


@pytest.mark.parametrize("schedule", schedules((0, 1, 2)), ids=label)
def test_l2_reg_in_every_schedule(schedule):
    x, start = problem((6, 4, 5), 3)
    expected, _ = literal_als(x.numpy(), [f.numpy() for f in start], range(3), SWEEPS, l2_reg=0.3)
    factors, _ = als(
        DenseOperand(x), start, LeastSquares(0.3), n_iter_max=SWEEPS, tol=0, free=range(3),
        schedule=schedule,
    )  # fmt: skip
    assert_same_factors(factors, expected)


@pytest.mark.parametrize("schedule", schedules((0, 1, 2, 3)), ids=label)
def test_line_search_takes_the_same_steps_in_every_schedule(schedule):
    """An accepted extrapolation makes every partial result stale."""
    x, start = problem((3, 7, 2, 5), 2)
    plain, *_ = schedules((0, 1, 2, 3))
    expected, reference_info = run(x, start, plain, n_iter_max=13, line_search=True)
    factors, info = run(x, start, schedule, n_iter_max=13, line_search=True)
    assert_same_factors(factors, [f.numpy() for f in expected], 1e-7)
    np.testing.assert_allclose(info.rel_errors, reference_info.rel_errors, rtol=1e-9)
    without = run(x, start, plain, n_iter_max=13)[1]
    assert any(a != b for a, b in zip(info.rel_errors, without.rel_errors, strict=True))


@pytest.mark.parametrize("schedule", schedules((0, 1, 2, 3)), ids=label)
def test_complex_in_every_schedule(schedule):
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    x, start = draw(4, 5, 3, 6), [draw(n, 2) for n in (4, 5, 3, 6)]
    expected, errors = literal_als(x, start, range(4), SWEEPS)
    factors, info = run(torch.from_numpy(x), [torch.from_numpy(f) for f in start], schedule)
    assert_same_factors(factors, expected)
    np.testing.assert_allclose(info.rel_errors, errors, rtol=1e-10)
