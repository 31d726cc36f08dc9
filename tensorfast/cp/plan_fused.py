"""The choice of a schedule on a GPU: the time that the kernels predict for its contractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..ops.fused import Fused
from ..precision import compute_dtype
from .schedule import Schedule, all_schedules
from .tree import Node, contraction_tree

__all__ = ["plan_fused"]


def plan_fused(
    fused: Fused, x: Tensor, axes: Sequence[int], rank: int, free: tuple[int, ...]
) -> Schedule:
    """Return the schedule whose contractions are the quickest.

    ``x`` has its modes in the order ``axes`` of memory. A partial result may take half as much as
    the tensor, or a few MiB; if every schedule needs more, the one that needs least is taken.
    """
    sizes = {mode: x.shape[at] for at, mode in enumerate(axes)}
    allowed = max(x.numel() // 2, 1 << 20)
    costs = []
    for schedule in all_schedules(free, fixed=len(free) < x.ndim):
        seconds, largest, room = 0.0, 0, 0
        for run in schedule.runs:
            root = contraction_tree(axes, run, [sizes[n] for n in range(x.ndim)])
            kept = [at for at, mode in enumerate(axes) if mode in run]
            partial = [sizes[axes[at]] for at in kept]
            first, elements = fused.expected(x, kept, rank)
            below, more = _below(fused, x, root, partial, rank)
            seconds += first + below
            room = max(room, elements, math.prod(partial) * rank + more)
            largest = max(largest, math.prod(partial) * rank if len(run) > 1 else 0)
        costs.append((seconds / schedule.sweeps, largest, room, schedule))
    fitting = [c for c in costs if c[1] <= allowed] or [min(costs, key=lambda c: c[1])]
    seconds, _, room, schedule = min(fitting, key=lambda c: c[0])
    return replace(schedule, seconds=seconds, workspace=room * compute_dtype(x.dtype).itemsize)


def _below(
    fused: Fused, x: Tensor, node: Node, sizes: Sequence[int], rank: int
) -> tuple[float, int]:
    """Seconds of all contractions below a partial result of these sizes, and elements at once."""
    total, room = 0.0, 0
    for half in node.halves:
        left = list(sizes)
        for step in half.contractions:
            seconds, elements = fused.expected_partial(x, left, step.lo, step.hi, rank)
            before = math.prod(left) * rank if len(left) < len(sizes) else 0
            total, room = total + seconds, max(room, before + elements)
            del left[step.lo : step.hi]
        seconds, elements = _below(fused, x, half, left, rank)
        total, room = total + seconds, max(room, math.prod(left) * rank + elements)
    return total, room
