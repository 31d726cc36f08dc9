r"""Exact schedules of an ALS sweep: which contraction of the data serves which updates.

ALS updates modes in a fixed cyclic order. A *run* is a stretch of that cyclic order whose MTTKRPs
all come from one contraction of ``x``: that with the factors of every mode outside the run, none of
which changes while the run lasts. Inside the run the partial result is halved recursively. So every
schedule computes plain ALS's iterates, and a schedule is nothing but a way to cut the cyclic order
into runs:

- mode by mode: runs of length 1, N reads of ``x`` a sweep;
- binary dimension tree: each sweep cut in two, 2 reads;
- multi-sweep dimension tree: runs of length m < N that cross the ends of sweeps, N / m reads a
  sweep, N / (N - 1) at best.

References: Phan, Tichavsky, Cichocki, IEEE Trans. Signal Process. 61 (2013); Ma and Solomonik,
arXiv:2010.12056 (multi-sweep dimension tree).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["CPU", "Machine", "Schedule", "all_schedules", "cost", "plan", "split"]

Run = tuple[int, ...]


@dataclass(frozen=True)
class Machine:
    """Rates that the cost model weighs against each other.

    Only their ratios matter. Measured on two cores of a server CPU, float32: matrix products at 110
    to 160 GFLOP/s, 40 GB/s from memory, a product-and-sum over a partial result at 30 GB/s, and 20
    microseconds for the handful of calls that one contraction takes.
    """

    flops: float = 1.5e11
    bandwidth: float = 4e10
    partial_bandwidth: float = 3e10
    call: float = 2e-5


CPU = Machine()


@dataclass(frozen=True)
class Schedule:
    """A cut of the cyclic update order into runs, over one or more sweeps.

    Attributes
    ----------
    name : str
        ``"mode_by_mode"``, ``"tree"`` or ``"multi_sweep"``.
    runs : tuple of tuple of int
        The modes of each run in update order; the whole repeats after the last.
    sweeps : int
        Sweeps in one cycle of ``runs``.
    """

    name: str
    runs: tuple[Run, ...]
    sweeps: int

    @property
    def reads(self) -> float:
        """Contractions of the whole tensor in one sweep."""
        return len(self.runs) / self.sweeps


def all_schedules(free: Sequence[int]) -> Iterator[Schedule]:
    """Yield every schedule of a sweep over the modes ``free`` (in update order)."""
    n = len(free)
    yield Schedule("mode_by_mode", tuple((mode,) for mode in free), 1)
    for cut in range(1, n):
        if n > 2:
            yield Schedule("tree", (tuple(free[:cut]), tuple(free[cut:])), 1)
    for length in range(2, n):
        cycle = math.lcm(n, length)
        order = list(free) * (cycle // n)
        runs = tuple(tuple(order[i : i + length]) for i in range(0, cycle, length))
        if cycle > n:
            yield Schedule("multi_sweep", runs, cycle // n)


def split(run: Run, sizes: Sequence[int]) -> tuple[Run, Run]:
    """Halve a run so that the two partial results below it are smallest together."""
    cuts = range(1, len(run))
    best = min(
        cuts,
        key=lambda c: math.prod(sizes[m] for m in run[:c]) + math.prod(sizes[m] for m in run[c:]),
    )
    return run[:best], run[best:]


def _run_cost(
    run: Run, sizes: Sequence[int], rank: int, itemsize: int, machine: Machine
) -> tuple[float, int]:
    """Predict seconds for the updates of a run, and elements of the largest partial result kept."""
    numel = math.prod(sizes)
    kept = math.prod(sizes[m] for m in run) * rank
    seconds = (
        machine.call + 2.0 * numel * rank / machine.flops + numel * itemsize / machine.bandwidth
    )
    inside = set(run)
    both_sides = min(inside) > 0 and max(inside) < len(sizes) - 1
    if both_sides and len(inside) == max(inside) - min(inside) + 1:
        # The first side's result passes through the cache once more.
        before = math.prod(sizes[: min(inside)])
        after = math.prod(sizes[max(inside) + 1 :])
        through = numel // max(before, after) * rank
        seconds += machine.call + through * itemsize / machine.partial_bandwidth
    below, _ = _tree_cost(run, sizes, rank, itemsize, machine)
    return seconds + below, kept if len(run) > 1 else 0


def _tree_cost(
    run: Run, sizes: Sequence[int], rank: int, itemsize: int, machine: Machine
) -> tuple[float, int]:
    if len(run) == 1:
        return 0.0, 0
    size = math.prod(sizes[m] for m in run) * rank
    # Written once by whoever made it, read by each half.
    seconds = size * itemsize * (1 / machine.bandwidth + 2 / machine.partial_bandwidth)
    seconds += 2 * machine.call
    for half in split(run, sizes):
        seconds += _tree_cost(half, sizes, rank, itemsize, machine)[0]
    return seconds, size


def cost(
    schedule: Schedule, sizes: Sequence[int], rank: int, itemsize: int, machine: Machine = CPU
) -> tuple[float, int]:
    """Predict seconds a sweep, and elements of the largest partial result that is kept."""
    costs = [_run_cost(run, sizes, rank, itemsize, machine) for run in schedule.runs]
    return sum(c for c, _ in costs) / schedule.sweeps, max(kept for _, kept in costs)


def plan(
    sizes: Sequence[int],
    rank: int,
    free: Sequence[int] | None = None,
    itemsize: int = 4,
    machine: Machine = CPU,
) -> Schedule:
    """Return the schedule with the lowest predicted time whose workspace is acceptable.

    A kept partial result may take half as much as the tensor, or a few MiB; mode by mode keeps
    none. The tensor is taken to lie in C order.
    """
    allowed = max(math.prod(sizes) // 2, 1 << 20)
    candidates = []
    for schedule in all_schedules(range(len(sizes)) if free is None else free):
        seconds, kept = cost(schedule, sizes, rank, itemsize, machine)
        if kept <= allowed or schedule.name == "mode_by_mode":
            candidates.append((seconds, schedule))
    return min(candidates, key=lambda pair: pair[0])[1]
