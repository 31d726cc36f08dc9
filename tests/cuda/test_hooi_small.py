"""The kernel of many small orthogonal iterations, built as host C++, beside the library's.

What a barrier is for no result on a host can tell: test_barriers.py.
"""

import ctypes
import itertools
import math

import pytest
import torch

import tensorfast
from tensorfast.cuda import tucker_plan
from tensorfast.cuda.launcher import STATIC
from tensorfast.cuda.tucker import STATUSES, hooi_small
from tensorfast.kernels.devices import CHIPS, chip_like
from tensorfast.precision import explicit_residual_below, precision_floor

from .test_sthosvd_small import CASES, DIGITS, DOUBLE, FLOAT, data, model_of

#: Of those that have something to iterate, and subspaces that are not anyone's.
CASES = [
    (shape, rank)
    for shape, rank in CASES
    if shape != rank and all(r * r <= math.prod(rank) for r in rank)
]


def starts(x, rank, seed=1):
    """Return random orthonormal factors, and the identity at full rank."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for size, r in zip(x.shape[1:], rank, strict=True):
        noise = torch.randn(len(x), size, r, dtype=DOUBLE, generator=rng)
        eye = torch.eye(size, dtype=DOUBLE).expand(len(x), size, size)
        found.append((eye if size == r else torch.linalg.qr(noise).Q).to(x.dtype).contiguous())
    return found


def expected(x, rank, start=None, **options):
    """Return the library's own iteration of one tensor, in float64."""
    if start is None:
        return tensorfast.hooi(x.double(), rank, **options)
    factors = [f.double() for f in start]
    core = tensorfast.multi_ttm(x.double(), [f.T.contiguous() for f in factors])
    return tensorfast.hooi(x.double(), rank, init=(core, factors), **options)


def compare(done, x, rank, digits, start=None, **options):
    """Compare each: as many sweeps, errors, subspaces and models."""
    for at in range(len(x)):
        own = expected(x[at], rank, start and [f[at] for f in start], **options)
        sweeps = int(done.sweeps[at])
        assert sweeps == own.info.n_iter
        errors = torch.tensor(own.info.rel_errors, dtype=DOUBLE)
        torch.testing.assert_close(done.errors[at, :sweeps], errors, rtol=0, atol=digits)
        assert done.errors[at, sweeps:].isnan().all()
        factors = [f[at].double() for f in done.factors]
        for factor in factors:
            eye = torch.eye(factor.shape[1], dtype=DOUBLE)
            assert (factor.T @ factor - eye).norm() <= digits
        gap = model_of(done.core[at], factors) - model_of(own.core, own.factors)
        assert gap.norm() <= 30 * digits * x[at].double().norm()


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize(("shape", "rank"), CASES, ids=str)
def test_iterates_are_those_of_the_library(launch, shape, rank, dtype):
    x = data(shape, rank, dtype)
    done = hooi_small(x, rank, n_iter_max=5, tol=0, launch=launch)
    compare(done, x, rank, DIGITS[dtype], n_iter_max=5, tol=0)
    assert {STATUSES[code] for code in done.status.tolist()} == {"max_iter"}


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "rank"), [((5, 4, 6), (2, 4, 2)), ((3, 2, 4, 3), (2, 1, 3, 2))], ids=str
)
def test_from_a_given_start(launch, shape, rank, dtype):
    x = data(shape, rank, dtype)
    start = starts(x, rank)
    given = [f.clone() for f in start]
    done = hooi_small(x, rank, start=start, n_iter_max=4, tol=0, launch=launch)
    compare(done, x, rank, 10 * DIGITS[dtype], start, n_iter_max=4, tol=0)
    assert all(map(torch.equal, start, given))


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_each_stops_when_it_has_converged(launch, dtype, tol):
    shape, rank = (6, 5, 7), (2, 2, 3)
    x = data(shape, rank, dtype, batch=4, noise=2.0)
    start = starts(x, rank)
    done = hooi_small(x, rank, start=start, n_iter_max=100, tol=tol, launch=launch)
    assert len(set(done.sweeps.tolist())) > 1
    assert {STATUSES[code] for code in done.status.tolist()} == {"converged"}
    if dtype is DOUBLE:
        compare(done, x, rank, 1e-10, start, n_iter_max=100, tol=tol)


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_modes_far_longer_than_their_ranks(launch, dtype):
    # The library's update is a few steps of subspace iteration then.
    shape, rank = (37, 4, 23), (2, 2, 3)
    x = data(shape, rank, dtype)
    done = hooi_small(x, rank, n_iter_max=5, tol=0, launch=launch)
    compare(done, x, rank, 1e-6, n_iter_max=5, tol=0)


def test_any_number_of_threads_gives_the_same(launch):
    x = data((9, 4, 6), (3, 2, 4), batch=1)
    for launch.threads in (32, 96, 256, 512):
        done = hooi_small(x, (3, 2, 4), n_iter_max=3, tol=0, launch=launch)
        compare(done, x, (3, 2, 4), DIGITS[DOUBLE], n_iter_max=3, tol=0)


@pytest.mark.parametrize(("shape", "rank"), [((21, 5, 4), (4, 3, 2)), ((3, 2, 4, 3), (2, 1, 3, 2))])
def test_results_do_not_depend_on_which_thread_goes_first(launch, shape, rank):
    x = data(shape, rank, FLOAT)
    one = hooi_small(x, rank, n_iter_max=3, tol=0, launch=launch)
    launch.backwards = True
    other = hooi_small(x, rank, n_iter_max=3, tol=0, launch=launch)
    assert torch.equal(one.errors, other.errors)
    assert torch.equal(one.core, other.core)
    assert all(map(torch.equal, one.factors, other.factors))


@pytest.mark.parametrize("n_iter_max", [1, 2])
def test_few_sweeps(launch, n_iter_max):
    x = data((5, 4, 6), (2, 3, 2))
    done = hooi_small(x, (2, 3, 2), n_iter_max=n_iter_max, tol=1e-12, launch=launch)
    compare(done, x, (2, 3, 2), DIGITS[DOUBLE], n_iter_max=n_iter_max, tol=1e-12)
    assert done.status.tolist() == [STATUSES.index("max_iter")] * 2


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_an_exact_model_ends_at_the_limit_of_the_precision(launch, dtype):
    x = data((6, 5, 4), (2, 3, 2), dtype, noise=0)
    done = hooi_small(x, (2, 3, 2), launch=launch)
    assert done.status.tolist() == [STATUSES.index("precision_limit")] * 2
    assert done.sweeps.tolist() == [1, 1]
    assert (done.errors[:, 0] < precision_floor(dtype)).all()


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("level", [0.0, 1e-2])
@pytest.mark.parametrize(
    ("shape", "rank"),
    [((6, 5, 4), (2, 5, 3)), ((3, 4, 2, 3), (2, 2, 1, 2)), ((5, 4), (2, 4))],
    ids=str,
)
def test_the_residual_itself_where_norms_are_lost(launch, shape, rank, level, dtype):
    x = data(shape, rank, dtype, noise=level * explicit_residual_below(dtype))
    done = hooi_small(x, rank, n_iter_max=3, tol=0, launch=launch)
    for at in range(2):
        exact = x[at].double()
        gap = model_of(done.core[at], [f[at] for f in done.factors]) - exact
        error = gap.norm() / exact.norm()
        assert error < explicit_residual_below(dtype)
        # Of float64 the residual itself is rounding.
        digits = 1e-3 if level or dtype is FLOAT else 2.0
        torch.testing.assert_close(done.errors[at, -1], error, rtol=digits, atol=0)


def test_errors_that_a_small_tol_asks_for_again(launch):
    # Above where norms are lost, below where they tell changes of tol.
    x = data((6, 5, 4), (2, 3, 2), FLOAT, noise=0.02)
    done = hooi_small(x, (2, 3, 2), n_iter_max=50, tol=1e-8, launch=launch)
    for at in range(2):
        assert 0 < done.status[at] < STATUSES.index("max_iter")
        gap = model_of(done.core[at], [f[at] for f in done.factors]) - x[at].double()
        error = gap.norm() / x[at].double().norm()
        last = done.errors[at, done.sweeps[at] - 1]
        torch.testing.assert_close(last, error, rtol=1e-5, atol=0)


def test_a_tensor_of_zeros(launch):
    x = data((5, 4, 6), (2, 4, 3))
    x[0] = 0
    done = hooi_small(x, (2, 4, 3), n_iter_max=3, tol=1e-6, launch=launch)
    assert done.errors[0, 0] == 0
    assert not done.core[0].any()
    for factor in done.factors:
        eye = torch.eye(factor.shape[2], dtype=DOUBLE)
        assert torch.equal(factor[0].T @ factor[0], eye)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_its_own_only(launch, value):
    x = data((5, 4, 6), (2, 4, 3), batch=4)
    start = starts(x, (2, 4, 3))
    x[1, 2, 1, 1] = value
    start[2][3, 2, 1] = value
    done = hooi_small(x, (2, 4, 3), start=start, n_iter_max=3, tol=0, launch=launch)
    bad = [False, True, False, True]
    assert [STATUSES[c] == "not_finite" for c in done.status.tolist()] == bad
    assert done.errors.isnan().all(1).tolist() == bad
    keep, few = [0, 2], [f[[0, 2]] for f in start]
    others = hooi_small(x[keep], (2, 4, 3), start=few, n_iter_max=3, tol=0, launch=launch)
    assert torch.equal(done.errors[keep], others.errors)


def test_a_mode_at_full_rank_has_the_identity_whatever_its_start(launch):
    x = data((5, 4, 6), (2, 4, 3))
    start = starts(x, (2, 4, 3))
    turned = [start[0], torch.linalg.qr(start[1] + 0.5).Q, start[2]]
    one = hooi_small(x, (2, 4, 3), start=start, n_iter_max=2, tol=0, launch=launch)
    other = hooi_small(x, (2, 4, 3), start=turned, n_iter_max=2, tol=0, launch=launch)
    assert torch.equal(one.errors, other.errors)
    assert torch.equal(other.factors[1][0], torch.eye(4, dtype=DOUBLE))


def test_data_that_do_not_lie_in_order(launch):
    x = data((5, 4, 6), (2, 3, 2))
    turned = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    one = hooi_small(turned, (2, 3, 2), n_iter_max=2, launch=launch)
    assert torch.equal(one.core, hooi_small(x, (2, 3, 2), n_iter_max=2, launch=launch).core)
    assert not hooi_small(x[:0], (2, 3, 2), launch=launch).status.numel()


def test_the_plan_counts_shared_memory_as_the_kernel_does(libraries):
    more = [((6, 5, 4, 3, 7), (2, 3, 3, 1, 4)), ((8, 8, 8, 8), (7, 3, 6, 2))]
    for (shape, rank), dtype in itertools.product(CASES + more, tucker_plan.DTYPES):
        chosen = tucker_plan.plan(shape, rank, dtype, kernel="hooi_small")
        size, kept = ((ctypes.c_int * 5)(*sizes) for sizes in (shape, rank))
        call = libraries(chosen.unit).bytes_taken
        taken = call(len(shape), size, kept, ctypes.c_uint(chosen.packed), len(chosen.order))
        assert chosen.shared == taken


def test_what_does_not_fit(launch):
    x = data((5, 4, 6), (2, 3, 2))
    start = starts(x, (2, 3, 2))
    for given in (start[:2], [f.float() for f in start], [f[:1] for f in start]):
        with pytest.raises(ValueError, match="start has shapes"):
            hooi_small(x, (2, 3, 2), start=given, launch=launch)
    with pytest.raises(ValueError, match="at least one sweep"):
        hooi_small(x, (2, 3, 2), n_iter_max=0, launch=launch)
    with pytest.raises(ValueError, match="nothing to iterate"):
        hooi_small(x, (5, 4, 6), launch=launch)
    with pytest.raises(ValueError, match="x is on cpu; the kernel runs on CUDA"):
        hooi_small(x, (2, 3, 2))


def test_each_update_projects_on_all_others():
    assert tucker_plan.chains((2, 0, 3)) == {
        0: [(3,), (3, 2)],
        2: [(3,), (3, 0)],
        3: [(2,), (2, 0), (2, 0, 3)],
    }
    assert tucker_plan.chains((1,)) == {1: [(1,)]}


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: f"sm_{chip.capability}")
def test_small_tensors_fit_and_cost_what_they_should(monkeypatch, chip):
    monkeypatch.setattr(tucker_plan, "missing", lambda: ())
    for shape in [(16, 16, 16), (20, 20, 20), (8, 8, 8, 8), (5, 5, 5, 5, 5), (50, 50)]:
        rank = tuple(n // 2 for n in shape)
        found = tucker_plan.reasons(shape, rank, "float32", "cuda", chip, kernel="hooi_small")
        assert found == []
        chosen = tucker_plan.plan(shape, rank, "float32", kernel="hooi_small")
        assert chosen.shared + STATIC <= chip.shared_memory
        one, many = (tucker_plan.seconds(chosen, b, chip, 10) for b in (1, 10_000))
        assert 1e-5 < one < many < 2
        assert tucker_plan.seconds(chosen, 10_000, chip, 20) < 2 * many


def test_no_column_is_too_long_for_a_warp(monkeypatch):
    monkeypatch.setattr(tucker_plan, "missing", lambda: ())
    chip = chip_like(90)
    kernel = "hooi_small"
    (found,) = tucker_plan.reasons((129, 2), (1, 1), "float32", "cuda", chip, kernel=kernel)
    assert "bytes of shared memory" in found
