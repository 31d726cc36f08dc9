"""The choice of a schedule: predicted time and workspace of each, by the contractions it makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from .schedule import Schedule, all_schedules
from .tree import Node, contraction_tree

__all__ = ["CPU", "Machine", "cost", "plan"]


@dataclass(frozen=True)
class Machine:
    """Rates that the cost model weighs against each other.

    Only their ratios matter. Measured on two cores of a server CPU, float32: matrix products at 150
    to 350 GFLOP/s, batches of them for modes in the middle at 110 to 160, 40 GB/s from memory, a
    product-and-sum over a partial result at 30 GB/s, and 20 microseconds for the handful of calls
    that one contraction takes.
    """

    flops: float = 2.4e11
    batched_flops: float = 1.25e11
    bandwidth: float = 4e10
    partial_bandwidth: float = 3e10
    call: float = 2e-5


CPU = Machine()


@dataclass
class _Tally:
    """Adds up what the contractions of a run cost."""

    sizes: Sequence[int]
    rank: int
    itemsize: int
    machine: Machine
    seconds: float = 0.0
    largest: int = 0

    def run(self, root: Node) -> None:
        """Count the contractions of the tensor, then those of its partial results."""
        numel, machine = math.prod(self.sizes), self.machine
        first = root.contractions[0]
        at_an_end = root.sides is not None or first.lo == 0 or first.hi == len(self.sizes)
        rate = machine.flops if at_an_end else machine.batched_flops
        self.seconds += machine.call + 2.0 * numel * self.rank / rate
        self.seconds += numel * self.itemsize / machine.bandwidth
        if root.sides is not None:
            # The first side's result passes through the cache once more, and is never whole.
            longer = max(self._length(side.modes) for side in root.sides)
            through = numel // longer * self.rank * self.itemsize
            self.seconds += machine.call + through / machine.partial_bandwidth
            size = math.prod(self.sizes[m] for m in root.run) * self.rank
            self._keep(size, root)
        else:
            size = numel // self._length(first.modes) * self.rank
            self._keep(size, root)
            if first.lo == 0:
                # It comes out by columns and is transposed.
                self.seconds += size * self.itemsize / machine.partial_bandwidth
            for step in root.contractions[1:]:
                size = self._contract(size, step.modes, root)
        self._below(root, size)

    def _below(self, node: Node, size: int) -> None:
        for half in node.halves:
            kept = size
            for step in half.contractions:
                kept = self._contract(kept, step.modes, half)
            self._below(half, kept)

    def _contract(self, size: int, modes: Sequence[int], node: Node) -> int:
        """Read a partial result and write the smaller one that comes of it."""
        self.seconds += self.machine.call
        self.seconds += size * self.itemsize / self.machine.partial_bandwidth
        size //= self._length(modes)
        self._keep(size, node)
        return size

    def _keep(self, size: int, node: Node) -> None:
        """Count a result that is written, unless it is an MTTKRP."""
        if node.halves or size > self.rank * self.sizes[node.run[0]]:
            self.seconds += size * self.itemsize / self.machine.bandwidth
            self.largest = max(self.largest, size)

    def _length(self, modes: Sequence[int]) -> int:
        return math.prod(self.sizes[m] for m in modes)


def cost(
    schedule: Schedule,
    sizes: Sequence[int],
    rank: int,
    itemsize: int,
    machine: Machine = CPU,
    axes: Sequence[int] | None = None,
) -> tuple[float, int]:
    """Predict seconds a sweep, and elements of the largest partial result.

    ``axes`` are the modes in the order of memory; C order if not given.
    """
    tally = _Tally(sizes, rank, itemsize, machine)
    for run in schedule.runs:
        tally.run(contraction_tree(range(len(sizes)) if axes is None else axes, run, sizes))
    return tally.seconds / schedule.sweeps, tally.largest


@lru_cache(maxsize=1024)
def plan(
    sizes: tuple[int, ...],
    rank: int,
    free: tuple[int, ...] | None = None,
    itemsize: int = 4,
    machine: Machine = CPU,
    axes: tuple[int, ...] | None = None,
    check: float = 0.0,
) -> Schedule:
    """Return the schedule with the lowest predicted time whose workspace is acceptable.

    A partial result may take half as much as the tensor, or a few MiB; if every schedule needs
    more, the one that needs least is taken. ``check`` are the seconds that every mode of a run of
    several takes besides.
    """
    modes = tuple(range(len(sizes))) if free is None else free
    allowed = max(math.prod(sizes) // 2, 1 << 20)
    costs = [
        (*cost(schedule, sizes, rank, itemsize, machine, axes), schedule)
        for schedule in all_schedules(modes, fixed=len(modes) < len(sizes))
    ]
    fitting = [c for c in costs if c[1] <= allowed]
    if fitting:
        return min(fitting, key=lambda c: c[0] + check * _in_long_runs(c[2]))[2]
    return min(costs, key=lambda c: c[1])[2]


def _in_long_runs(schedule: Schedule) -> float:
    """Count the modes of a sweep that share a run."""
    return sum(len(run) for run in schedule.runs if len(run) > 1) / schedule.sweeps
