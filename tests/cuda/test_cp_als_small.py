"""The kernel of many small fits, built as host C++, beside the library's engine in float64.

What a barrier is for no result on a host can tell: test_barriers.py.
"""

import ctypes
import itertools

import pytest
import torch

import tensorfast
from tensorfast.cp.stopping import DivergenceWatch
from tensorfast.cuda import cp_plan
from tensorfast.cuda.cp_als import STATUSES, cp_als_small
from tensorfast.cuda.launcher import STATIC
from tensorfast.kernels.devices import CHIPS, chip_like
from tensorfast.precision import explicit_residual_below, precision_floor

FLOAT, DOUBLE = torch.float32, torch.float64

# Measured on all shapes and ranks below, two starts each, against float64: errors after up to six
# sweeps are within 6 eps in float32 and 26 in float64, models within 6 and 45.
DIGITS = {dtype: 60 * torch.finfo(dtype).eps for dtype in (FLOAT, DOUBLE)}
SHAPES = [(6, 5), (5, 4, 6), (7, 1, 3), (3, 2, 4, 3), (2, 3, 2, 1, 3), (67, 2, 3)]


def problem(shape, rank, dtype=DOUBLE, batch=2, noise=1.0, seed=0):
    """Return tensors of this rank with noise, and starts."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*sizes):
        return torch.randn(sizes, dtype=DOUBLE, generator=rng)

    truth = [normal(batch, size, rank) for size in shape]
    letters = "ijklm"[: len(shape)]
    formula = ",".join(f"b{n}r" for n in letters) + f"->b{letters}"
    x = torch.einsum(formula, *truth)
    x += noise * normal(*x.shape)
    starts = [normal(batch, size, rank) for size in shape]
    return x.to(dtype), [f.to(dtype) for f in starts]


def expected(x, start, **options):
    """Return the library's own fit of one tensor, in float64."""
    rank = start[0].shape[1]
    model = torch.ones(rank, dtype=DOUBLE), [f.double() for f in start]
    return tensorfast.cp_als(x.double(), rank, init=model, normalize=False, **options)


def model_of(factors):
    """Return the tensor that factors stand for, in float64."""
    letters = "ijklm"[: len(factors)]
    formula = ",".join(f"{n}r" for n in letters) + f"->{letters}"
    return torch.einsum(formula, *(f.double() for f in factors))


def compare(fits, x, start, digits, **options):
    """Compare each fit: as many sweeps, errors and models."""
    for at in range(len(x)):
        own = expected(x[at], [f[at] for f in start], **options)
        sweeps = int(fits.sweeps[at])
        assert sweeps == own.info.n_iter
        errors = torch.tensor(own.info.rel_errors, dtype=DOUBLE)
        torch.testing.assert_close(fits.errors[at, :sweeps], errors, rtol=0, atol=digits)
        assert fits.errors[at, sweeps:].isnan().all()
        gap = model_of([f[at] for f in fits.factors]) - model_of(own.factors)
        assert gap.norm() <= 3 * digits * x[at].double().norm()


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_iterates_are_those_of_the_library(launch, shape, dtype):
    x, start = problem(shape, 3, dtype)
    fits = cp_als_small(x, start, n_iter_max=6, tol=0, launch=launch)
    compare(fits, x, start, DIGITS[dtype], n_iter_max=6, tol=0)
    assert {STATUSES[code] for code in fits.status.tolist()} == {"max_iter"}


@pytest.mark.parametrize(("rank", "dtype"), [(1, FLOAT), (9, FLOAT), (17, DOUBLE), (32, FLOAT)])
def test_ranks_of_every_width(launch, rank, dtype):
    x, start = problem((8, 7, 9), rank, dtype, batch=1)
    fits = cp_als_small(x, start, n_iter_max=3, tol=0, launch=launch)
    compare(fits, x, start, DIGITS[dtype], n_iter_max=3, tol=0)


def test_any_split_and_number_of_threads_gives_the_same(launch, monkeypatch):
    x, start = problem((3, 4, 2, 3), 3, batch=1)
    sound = cp_plan.plan
    monkeypatch.setattr("tensorfast.cuda.cp_als.plan", lambda *a: split_at(sound(*a)))
    for split, threads in itertools.product((1, 2, 3), (32, 96, 256)):

        def split_at(chosen, split=split):
            return cp_plan.Plan(**{**chosen.__dict__, "split": split, "shared": 20000})

        launch.threads = threads
        fits = cp_als_small(x, start, n_iter_max=3, tol=0, launch=launch)
        compare(fits, x, start, DIGITS[DOUBLE], n_iter_max=3, tol=0)


@pytest.mark.parametrize("blocks", [2, 3, 8])
@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 4, 6), (3, 2, 4, 3), (67, 2, 3)], ids=str)
def test_the_blocks_of_a_cluster_give_the_same_together(launch, shape, dtype, blocks):
    """Of any number, with rows that do not divide, and with fewer rows than blocks."""
    x, start = problem(shape, 3, dtype)
    launch.backwards = blocks == 3
    fits = cp_als_small(x, start, n_iter_max=6, tol=0, blocks=blocks, launch=launch)
    compare(fits, x, start, DIGITS[dtype], n_iter_max=6, tol=0)
    launch.backwards = not launch.backwards
    again = cp_als_small(x, start, n_iter_max=6, tol=0, blocks=blocks, launch=launch)
    assert torch.equal(fits.errors, again.errors)


def test_a_cluster_takes_the_residual_itself_and_stops_as_one(launch):
    level = explicit_residual_below(FLOAT) / 100
    x, start = problem((6, 5, 4), 2, FLOAT, noise=level)
    x[1] = problem((6, 5, 4), 1, FLOAT, noise=0)[0][1]
    one, several = (
        cp_als_small(x, start, n_iter_max=60, tol=1e-7, blocks=n, launch=launch) for n in (1, 3)
    )
    assert one.errors[0, int(one.sweeps[0]) - 1] < explicit_residual_below(FLOAT)
    assert torch.equal(one.status, several.status)
    ends = [fits.errors[0, int(fits.sweeps[0]) - 1] for fits in (one, several)]
    torch.testing.assert_close(*ends, rtol=1e-3, atol=0)


def test_what_is_not_finite_ends_every_block_of_a_cluster(launch):
    x, start = problem((4, 3, 5), 2, batch=2)
    x[0, 2, 1, 1] = float("nan")
    fits = cp_als_small(x, start, n_iter_max=5, tol=0, blocks=2, launch=launch)
    assert [STATUSES[c] for c in fits.status.tolist()] == ["not_finite", "max_iter"]


def test_results_do_not_depend_on_who_goes_first(launch):
    x, start = problem((6, 5, 4), 4, FLOAT, batch=1)
    one = cp_als_small(x, start, n_iter_max=4, tol=0, launch=launch)
    launch.backwards = True
    other = cp_als_small(x, start, n_iter_max=4, tol=0, launch=launch)
    assert torch.equal(one.errors, other.errors)
    assert all(map(torch.equal, one.factors, other.factors))


@pytest.mark.parametrize("free", [(0, 1), (1,), (0, 2), (2, 3)])
def test_modes_that_are_fixed(launch, free):
    x, start = problem((3, 4, 2, 3), 2)
    fixed = [n for n in range(4) if n not in free]
    fits = cp_als_small(x, start, n_iter_max=4, tol=0, free=free, launch=launch)
    compare(fits, x, start, DIGITS[DOUBLE], n_iter_max=4, tol=0, fixed_modes=fixed)
    assert all(torch.equal(fits.factors[n], start[n]) for n in fixed)


def test_l2_reg(launch):
    x, start = problem((5, 4, 6), 3)
    fits = cp_als_small(x, start, n_iter_max=200, tol=1e-4, l2_reg=0.1, launch=launch)
    compare(fits, x, start, 1e-11, n_iter_max=200, tol=1e-4, l2_reg=0.1)


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_each_stops_when_it_has_converged(launch, dtype, tol):
    x, start = problem((5, 4, 6), 3, dtype, batch=4)
    fits = cp_als_small(x, start, n_iter_max=300, tol=tol, launch=launch)
    assert len(set(fits.sweeps.tolist())) > 1
    assert {STATUSES[code] for code in fits.status.tolist()} == {"converged"}
    if dtype is DOUBLE:
        compare(fits, x, start, 1e-10, n_iter_max=300, tol=tol)


@pytest.mark.parametrize("n_iter_max", [1, 2])
def test_few_sweeps(launch, n_iter_max):
    x, start = problem((5, 4, 6), 3)
    fits = cp_als_small(x, start, n_iter_max=n_iter_max, tol=1e-8, launch=launch)
    compare(fits, x, start, DIGITS[DOUBLE], n_iter_max=n_iter_max, tol=1e-8)
    assert fits.status.tolist() == [STATUSES.index("max_iter")] * 2


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_an_exact_model_ends_at_the_limit_of_the_precision(launch, dtype):
    x, start = problem((6, 5, 4), 1, dtype, noise=0)
    fits = cp_als_small(x, start, n_iter_max=50, tol=1e-9, launch=launch)
    assert fits.status.tolist() == [STATUSES.index("precision_limit")] * 2
    for at, sweeps in enumerate(fits.sweeps.tolist()):
        assert sweeps <= 2
        assert 0 < fits.errors[at, sweeps - 1] < precision_floor(dtype)


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_the_residual_itself_where_three_scalars_are_lost(launch, dtype):
    level = explicit_residual_below(dtype) / 100
    x, start = problem((6, 5, 4), 2, dtype, noise=level)
    fits = cp_als_small(x, start, n_iter_max=40, tol=0, launch=launch)
    for at in range(2):
        true = (x[at].double() - model_of([f[at] for f in fits.factors])).norm() / x[
            at
        ].double().norm()
        reported = fits.errors[at, -1]
        assert reported < explicit_residual_below(dtype)
        torch.testing.assert_close(reported, true, rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_a_rank_above_the_data_takes_a_ridge(launch, dtype):
    x, start = problem((6, 5, 4), 1, dtype, noise=0, batch=1)
    start = [torch.cat([f, f.flip(1) * 2, f + 1], 2) for f in start]
    fits = cp_als_small(x, start, n_iter_max=10, tol=0, launch=launch)
    own = expected(x[0], [f[0] for f in start], n_iter_max=10, tol=0)
    assert fits.ridge[0] > 0
    if dtype is DOUBLE:
        assert "ridge" in own.info.message
    assert fits.errors[0, -1] < 1e-3
    assert all(f.isfinite().all() for f in fits.factors)


def test_a_rank_above_a_size(launch):
    x, start = problem((2, 3, 7), 5)
    fits = cp_als_small(x, start, n_iter_max=5, tol=0, launch=launch)
    compare(fits, x, start, 1e-8, n_iter_max=5, tol=0)


def test_a_column_that_has_vanished_stays_where_it_is(launch):
    x, start = problem((4, 3, 5), 2, batch=1)
    start[0][..., 1] = 0
    start[1][..., 1] = 0
    fits = cp_als_small(x, start, n_iter_max=3, tol=0, launch=launch)
    compare(fits, x, start, 1e-10, n_iter_max=3, tol=0)
    torch.testing.assert_close(fits.factors[2][0, :, 1], start[2][0, :, 1])


def test_a_tensor_of_zeros(launch):
    x, start = problem((4, 3, 5), 2)
    x[0] = 0
    fits = cp_als_small(x, start, n_iter_max=5, tol=1e-6, launch=launch)
    compare(fits, x, start, 1e-11, n_iter_max=5, tol=1e-6)
    assert fits.errors[0, 0] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_its_own_fit_only(launch, value):
    x, start = problem((4, 3, 5), 2, batch=3)
    x[1, 2, 1, 1] = value
    fits = cp_als_small(x, start, n_iter_max=5, tol=0, launch=launch)
    assert [STATUSES[c] for c in fits.status.tolist()] == ["max_iter", "not_finite", "max_iter"]
    assert fits.errors[1].isnan().all()
    keep = [0, 2]
    others = cp_als_small(x[keep], [f[keep] for f in start], n_iter_max=5, tol=0, launch=launch)
    assert torch.equal(fits.errors[keep], others.errors)


def test_components_are_those_that_a_watch_records(launch):
    x, start = problem((3, 4, 2), 3, batch=1)
    fits = cp_als_small(x, start, n_iter_max=33, tol=0, launch=launch)
    watch, seen = DivergenceWatch(), {}

    def note(sweep, error, factors):
        grams = [f.T @ f for f in factors]
        watch.record(sweep, grams)
        seen[sweep] = torch.stack(grams).prod(0)

    expected(x[0], [f[0] for f in start], n_iter_max=33, tol=0, callback=note)
    noted = fits.components[0]
    for place, sweep in ((16, 4 % 3), (32, 5 % 3), (33, 3)):
        torch.testing.assert_close(noted[sweep], seen[place], rtol=1e-8, atol=1e-8)
    assert noted[0].isnan().all()


def test_data_that_do_not_lie_in_order(launch):
    x, start = problem((5, 4, 6), 3)
    turned = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    one = cp_als_small(turned, start, n_iter_max=2, tol=0, launch=launch)
    assert torch.equal(
        one.errors, cp_als_small(x, start, n_iter_max=2, tol=0, launch=launch).errors
    )
    assert not cp_als_small(x[:0], [f[:0] for f in start], launch=launch).status.numel()


def test_the_plan_counts_shared_memory_as_the_kernel_does(libraries):
    problems = itertools.product(SHAPES, (1, 3, 8, 32), cp_plan.DTYPES, (1, 3))
    for shape, rank, dtype, blocks in problems:
        chosen = cp_plan.plan(shape, rank, dtype, blocks)
        size = (ctypes.c_int * 5)(*shape)
        if rank == 3 and shape != SHAPES[0]:
            continue
        taken = libraries(chosen.unit).bytes_taken(len(shape), size, rank, chosen.split, blocks)
        assert chosen.shared == taken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, s: (x, s[:2]), "expected"),
        (lambda x, s: (x, [f.float() for f in s]), "types"),
        (lambda x, s: (x[:1], s), "expected"),
    ],
)
def test_a_start_that_does_not_fit(launch, change, message):
    x, start = change(*problem((4, 3, 5), 2))
    with pytest.raises(ValueError, match=message):
        cp_als_small(x, start, launch=launch)


def test_no_sweep_or_no_mode(launch):
    x, start = problem((4, 3, 5), 2)
    with pytest.raises(ValueError, match="at least one sweep"):
        cp_als_small(x, start, n_iter_max=0, launch=launch)
    with pytest.raises(ValueError, match="and one mode"):
        cp_als_small(x, start, free=(), launch=launch)


def test_on_a_cpu_it_says_why_not():
    with pytest.raises(ValueError, match="x is on cpu; the kernel runs on CUDA"):
        cp_als_small(*problem((4, 3, 5), 2))


@pytest.mark.parametrize(
    ("shape", "rank", "dtype", "capability", "reason"),
    [
        ((16,), 4, "float32", 90, "tensors have 1 modes"),
        ((2,) * 6, 4, "float32", 90, "tensors have 6 modes"),
        ((16, 16, 16), 33, "float32", 90, "rank 33; the kernel takes up to 32"),
        ((16, 16, 16), 8, "bfloat16", 90, "x is bfloat16"),
        ((16, 0, 16), 8, "float32", 90, "nothing to compute"),
        ((64, 64, 64), 8, "float32", 80, "bytes of shared memory; a block may use 166912"),
        ((80, 80, 80), 8, "float32", 90, "in each of 8 blocks; a block may use 232448"),
        ((64, 64, 64), 8, "float32", 120, "bytes of shared memory; a block may use 101376"),
        ((16, 16, 16), 8, "float32", 75, "compute capability 7.5"),
    ],
)
def test_reasons(monkeypatch, shape, rank, dtype, capability, reason):
    monkeypatch.setattr(cp_plan, "missing", lambda: ())
    chip = chip_like(max(80, capability))
    chip = type(chip)(**{**chip.__dict__, "capability": capability})
    (found,) = cp_plan.reasons(shape, rank, dtype, "cuda", chip)
    assert reason in found


def test_what_is_missing_is_among_the_reasons(monkeypatch):
    monkeypatch.setattr(cp_plan, "missing", lambda: ("no compiler",))
    reasons = cp_plan.reasons((16, 16, 16), 8, "float32", "cpu", chip_like(90))
    assert reasons == ["no compiler", "x is on cpu; the kernel runs on CUDA"]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: f"sm_{chip.capability}")
def test_small_tensors_fit_and_cost_what_they_should(monkeypatch, chip):
    monkeypatch.setattr(cp_plan, "missing", lambda: ())
    for shape in [(16, 16, 16), (24, 24, 24), (8, 8, 8, 8), (5, 5, 5, 5, 5), (100, 100)]:
        assert cp_plan.reasons(shape, 8, "float32", "cuda", chip) == []
        chosen = cp_plan.plan(shape, 8, "float32")
        assert chosen.shared + STATIC <= chip.shared_memory
        one, many = (cp_plan.seconds(chosen, b, 50, chip) for b in (1, 10_000))
        assert 1e-5 < one < many < 1
        assert cp_plan.seconds(chosen, 10_000, 100, chip) < 2 * many


def test_a_cluster_holds_what_a_block_does_not(monkeypatch):
    monkeypatch.setattr(cp_plan, "missing", lambda: ())
    hopper, ampere, consumer = (chip_like(capability) for capability in (90, 80, 120))
    for shape, blocks in [((35,) * 3, 1), ((40,) * 3, 2), ((58,) * 3, 8), ((24,) * 4, 8)]:
        assert cp_plan.blocks_of(shape, 8, "float32", hopper) == blocks
        assert cp_plan.reasons(shape, 8, "float32", "cuda", hopper) == []
        chosen = cp_plan.plan(shape, 8, "float32", blocks)
        assert chosen.sides[0] >= blocks
        assert chosen.shared + STATIC <= hopper.shared_memory
        for chip in (ampere, consumer):
            assert cp_plan.blocks_of(shape, 8, "float32", chip) == 1
    one, several = (cp_plan.plan((35,) * 3, 8, "float32", blocks) for blocks in (1, 8))
    # For one tensor more blocks are faster, for many they are not.
    for batch, faster in ((1, True), (10_000, False)):
        times = [cp_plan.seconds(chosen, batch, 50, hopper) for chosen in (one, several)]
        assert (times[1] < times[0]) == faster


def test_splits_balance_and_threads_grow():
    splits = {s: cp_plan.plan(s, 8, "float32").split for s in ((64, 2, 2), (2, 2, 64), (4,) * 4)}
    assert list(splits.values()) == [1, 2, 2]
    threads = [cp_plan.plan((n, n, n), 8, "float32").threads for n in (2, 16, 24, 32)]
    assert threads == [64, 128, 512, 512]


def test_a_start_that_is_never_used_may_be_no_number(launch):
    x, start = problem((5, 4, 6), 3)
    given = [torch.full_like(start[0], torch.nan), *start[1:]]
    one = cp_als_small(x, start, n_iter_max=2, tol=0, launch=launch)
    other = cp_als_small(x, given, n_iter_max=2, tol=0, launch=launch)
    assert torch.equal(one.errors, other.errors)
