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

Where the factors of some modes are fixed, one run can hold all the others: 1 read a sweep.

References: Phan, Tichavsky, Cichocki, IEEE Trans. Signal Process. 61 (2013); Ma and Solomonik,
arXiv:2010.12056 (multi-sweep dimension tree).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["Run", "Schedule", "all_schedules", "split"]

Run = tuple[int, ...]


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
    seconds : float
        What the contractions of a sweep are expected to take on a GPU; 0 where nothing is.
    """

    name: str
    runs: tuple[Run, ...]
    sweeps: int
    seconds: float = field(default=0.0, compare=False)

    @property
    def reads(self) -> float:
        """Contractions of the whole tensor in one sweep."""
        return len(self.runs) / self.sweeps


def all_schedules(free: Sequence[int], fixed: bool = False) -> Iterator[Schedule]:
    """Yield every schedule of a sweep over the modes ``free`` (in update order).

    With ``fixed``, there are modes besides, whose factors never change: then one contraction, with
    those alone, can serve a whole sweep.
    """
    n = len(free)
    yield Schedule("mode_by_mode", tuple((mode,) for mode in free), 1)
    if fixed and n > 1:
        yield Schedule("tree", (tuple(free),), 1)
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
