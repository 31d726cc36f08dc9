"""What a sweep of orthogonal iteration costs: a walk through its contractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..ops import direct
from ..ops._shared import by_layout
from ..precision import compute_dtype
from .sweep import runs, sweeps_of_cycle, trial_space

__all__ = ["Cost", "cost"]

#: Bytes of numbers, and of what an array takes more than it has: torch's allocator gives pieces of
#: 512.
SCRAPS = 64 * 512


@dataclass(frozen=True)
class Cost:
    """Reads of ``x`` and seconds of all contractions, a sweep, and bytes that a fit has at once."""

    reads: float
    seconds: float
    workspace: int


@by_layout
def cost(x: Tensor, ranks: tuple[int, ...]) -> Cost:
    """Return what `sweep` and a fit of it cost; of what there is at once, a bound.

    Axes of ``x`` before those that have ranks are a batch, which is worked on together.
    """
    walk, most = _Walk(x, ranks), 0
    order = len(ranks)
    shape, cycle = tuple(x.shape[-order:]), runs(order)
    for run in cycle:
        outside = [n for n in range(order) if n not in run]
        made, left = walk.project(shape, outside)
        most = max(most, made, walk.bytes_of(left) + walk.descend(left, run))
    sweeps = sweeps_of_cycle(order)
    factors = sum(size * rank for size, rank in zip(shape, ranks, strict=True))
    # Those that a fit starts from, and its own.
    state = 2 * walk.bytes_of((factors,)) + 3 * walk.bytes_of(ranks) + SCRAPS
    return Cost(len(cycle) / sweeps, walk.seconds / sweeps, most + state)


class _Walk:
    """Goes where `projections` goes, and counts."""

    def __init__(self, x: Tensor, ranks: Sequence[int]) -> None:
        self.seconds = 0.0
        self._x, self._ranks = x, ranks
        self._batch = tuple(x.shape[: x.ndim - len(ranks)])
        self._tensors = math.prod(self._batch)
        self._itemsize = compute_dtype(x.dtype).itemsize

    def bytes_of(self, sizes: Sequence[int]) -> int:
        return self._tensors * self._itemsize * math.prod(sizes)

    def project(self, sizes: Sequence[int], modes: Sequence[int]) -> tuple[int, list[int]]:
        """Return bytes that there are at once, and the sizes in the end."""
        left, before, most = list(sizes), 0, 0
        for n in sorted(modes, key=lambda n: self._ranks[n] / sizes[n]):
            whole, mode = [*self._batch, *left], n + len(self._batch)
            self.seconds += direct.ttm_seconds(self._x, whole, mode, self._ranks[n])
            left[n] = self._ranks[n]
            most, before = max(most, before + self.bytes_of(left)), self.bytes_of(left)
        return most, left

    def descend(self, sizes: Sequence[int], run: tuple[int, ...]) -> int:
        if len(run) == 1:
            return self.improve(sizes, run[0])
        cut, most = len(run) // 2, 0
        for half, other in ((run[:cut], run[cut:]), (run[cut:], run[:cut])):
            made, left = self.project(sizes, other)
            most = max(most, made, self.bytes_of(left) + self.descend(left, half))
        return most

    def improve(self, sizes: Sequence[int], mode: int) -> int:
        size, others = sizes[mode], math.prod(sizes) // sizes[mode]
        side = trial_space(size, self._ranks[mode])
        # The unfolding and a basis times it, and bases and squares in double precision.
        wide = 8 * self._tensors * (6 * size + 8 * side) * side
        return self.bytes_of((size + 2 * side, others)) + wide
