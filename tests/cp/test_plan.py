"""The choice of a schedule: pure functions of shapes, and reads that are counted."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tensorfast import baseline
from tensorfast.cp.als import als
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.plan import CPU, Machine, cost, plan
from tensorfast.cp.schedule import all_schedules, split
from tensorfast.cp.update import LeastSquares
from tensorfast.testing import planted

MODES = [(0, 1), (0, 1, 2), (1, 2), (0, 2, 3), (0, 1, 2, 3), (0, 1, 3, 4), (0, 1, 2, 3, 4)]
FREE = Machine(math.inf, math.inf, math.inf, math.inf, call=0.0)
CALLS_ONLY = dataclasses.replace(FREE, call=1.0)
READS_ONLY = dataclasses.replace(FREE, bandwidth=1.0)

sizes = st.lists(st.integers(1, 300), min_size=2, max_size=5).map(tuple)


def ids(modes):
    return "".join(map(str, modes))


@pytest.mark.parametrize("free", MODES, ids=ids)
def test_a_schedule_cuts_the_cyclic_order_into_runs(free):
    for schedule in all_schedules(free):
        flat = list(itertools.chain.from_iterable(schedule.runs))
        assert flat == list(free) * schedule.sweeps
        # No mode twice in a run: its factor would be stale inside the partial result.
        assert all(len(set(run)) == len(run) for run in schedule.runs)
        # Nor all of them: then nothing would have been contracted.
        assert all(0 < len(run) < max(len(free), 2) for run in schedule.runs)


@pytest.mark.parametrize("free", MODES, ids=ids)
def test_reads_per_sweep_are_as_stated(free):
    n = len(free)
    reads = {}
    for schedule in all_schedules(free):
        reads.setdefault(schedule.name, set()).add(schedule.reads)
    assert reads.pop("mode_by_mode") == {n}
    assert reads.pop("tree", {2.0}) == {2.0}
    several = reads.pop("multi_sweep", set())
    assert several == {n / m for m in range(2, n) if n % m}
    assert not several or min(several) == pytest.approx(n / (n - 1))
    assert not reads


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 4, 2, 5), (2, 3, 2, 3, 2)], ids=str)
def test_the_tensor_is_read_as_often_as_the_schedule_says(shape):
    class Counting(DenseOperand):
        reads = 0

        def mttkrps(self, run, factors):
            self.reads += 1
            return super().mttkrps(run, factors)

    x, (_, factors) = planted(shape, 2, noise=0.1)
    for schedule in all_schedules(range(len(shape))):
        operand = Counting(x)
        als(
            operand,
            factors,
            LeastSquares(),
            n_iter_max=2 * schedule.sweeps,
            tol=0,
            free=range(len(shape)),
            schedule=schedule,
        )
        assert operand.reads == 2 * len(schedule.runs)


def largest_partial(schedule, shape, rank, axes):
    """Elements of the largest result of a contraction, all done for real on a tensor of ones."""
    seen = [0]

    def note(out, modes):
        is_mttkrp = out.ndim == 2 and len(modes) == 1
        seen.append(0 if is_mttkrp else out.numel())

    x = torch.ones([shape[m] for m in axes]).permute([axes.index(m) for m in range(len(shape))])
    factors = [torch.ones(n, rank) for n in shape]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("contract_data", "contract_partial", "contract_sides"):
            plain = getattr(baseline, name)

            def noting(*args, plain=plain, **kwargs):
                out = plain(*args, **kwargs)
                note(out, out.shape[:-1])
                return out

            patch.setattr(baseline, name, noting)
        operand = DenseOperand(x)
        for run in schedule.runs:
            list(operand.mttkrps(run, factors))
    return max(seen)


@pytest.mark.parametrize("shape", [(5, 7, 6), (5, 3, 6, 4), (2, 3, 4, 3, 2)], ids=str)
def test_workspace_is_what_the_contractions_make(shape):
    """Whatever the order of the modes in memory."""
    for axes in itertools.islice(itertools.permutations(range(len(shape))), 0, None, 5):
        for schedule in all_schedules(range(len(shape))):
            predicted = cost(schedule, shape, 2, 4, axes=axes)[1]
            assert predicted == largest_partial(schedule, shape, 2, axes), (axes, schedule)


@given(sizes, st.integers(1, 200), st.sampled_from([4, 8]), st.randoms())
def test_a_plan_keeps_to_its_workspace(shape, rank, itemsize, random):
    axes = tuple(random.sample(range(len(shape)), len(shape)))
    chosen = plan(shape, rank, itemsize=itemsize, axes=axes)
    needs = [cost(s, shape, rank, itemsize, axes=axes)[1] for s in all_schedules(range(len(shape)))]
    allowed = max(math.prod(shape) // 2, 2**20)
    assert cost(chosen, shape, rank, itemsize, axes=axes)[1] <= max(allowed, min(needs))


@given(sizes, st.integers(1, 64))
def test_a_plan_is_the_cheapest_that_fits(shape, rank):
    chosen = plan(shape, rank)
    allowed = max(math.prod(shape) // 2, 2**20)
    costs = [cost(s, shape, rank, 4) for s in all_schedules(range(len(shape)))]
    cheapest = min(seconds for seconds, kept in costs if kept <= allowed)
    assert cost(chosen, shape, rank, 4)[0] == cheapest


@pytest.mark.parametrize("free", [(0, 1), (1, 2), (0, 2), (0, 1, 3), (0, 2, 3)], ids=ids)
def test_fixed_modes_let_one_read_serve_a_sweep(free):
    schedules = list(all_schedules(free, fixed=True))
    assert min(s.reads for s in schedules) == 1
    assert {s for s in schedules if s.reads != 1} <= set(all_schedules(free))
    assert plan((200, 150, 100, 50)[: max(3, max(free) + 1)], 8, free).reads == 1


def test_a_rank_too_large_for_any_workspace_goes_mode_by_mode():
    assert plan((400, 400, 400), 10**6).name == "mode_by_mode"


@pytest.mark.parametrize(
    ("shape", "rank"), [((10, 10, 10), 3), ((16, 16, 16), 8), ((4, 5, 6), 2), ((3, 3, 3, 3), 2)]
)
def test_tiny_tensors_take_the_fewest_calls(shape, rank):
    chosen = plan(shape, rank)
    calls = {s: cost(s, shape, rank, 4, CALLS_ONLY)[0] for s in all_schedules(range(len(shape)))}
    assert calls[chosen] == min(calls.values())


@pytest.mark.parametrize("shape", [(400, 400, 400), (64, 64, 64, 64), (40, 40, 40, 40, 40)])
def test_large_tensors_at_low_rank_are_read_least_often(shape):
    n = len(shape)
    assert plan(shape, 8).reads <= 2
    assert plan(shape, 8, machine=READS_ONLY).reads == pytest.approx(n / (n - 1))


@pytest.mark.parametrize("free", MODES, ids=ids)
def test_cost_counts_calls_and_reads(free):
    shape = (6, 5, 7, 4, 3)[: max(free) + 1]
    for schedule in all_schedules(free):
        # Bytes of the tensor, each time it is read.
        assert cost(schedule, shape, 2, 4, READS_ONLY)[0] >= 4 * math.prod(shape) * schedule.reads
        assert cost(schedule, shape, 2, 4, CALLS_ONLY)[0] >= schedule.reads
        half = {"flops": CPU.flops / 2, "batched_flops": CPU.batched_flops / 2}
        slower = dataclasses.replace(CPU, **half)
        assert cost(schedule, shape, 2, 4, slower) > cost(schedule, shape, 2, 4)


@given(st.permutations(range(5)), st.lists(st.integers(1, 50), min_size=5, max_size=5))
def test_split_halves_at_the_smallest_results(order, lengths):
    for n in range(2, 6):
        run = tuple(order[:n])
        left, right = split(run, lengths)
        assert (*left, *right) == run

        def total(cut, run=run):
            halves = run[:cut], run[cut:]
            return sum(math.prod(lengths[m] for m in half) for half in halves)

        assert total(len(left)) == min(map(total, range(1, n)))


def test_the_plan_knows_free_modes_only():
    for free in MODES:
        modes = set(itertools.chain.from_iterable(plan((30, 20, 40, 10, 20), 4, free).runs))
        assert modes == set(free)


def test_the_engine_plans_for_itself():
    x, (_, factors) = planted((12, 10, 8), 2, noise=0.1)
    planned, _ = als(DenseOperand(x), factors, LeastSquares(), n_iter_max=3, tol=0, free=[0, 1, 2])
    first, *_ = all_schedules(range(3))
    given_one, _ = als(
        DenseOperand(x),
        factors,
        LeastSquares(),
        n_iter_max=3,
        tol=0,
        free=[2, 0, 1],
        schedule=first,
    )
    for a, b in zip(planned, given_one, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
