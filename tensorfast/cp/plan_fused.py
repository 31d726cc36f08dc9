"""The choice of a schedule on a GPU: the time that the kernels predict for its contractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..ops._shared import by_layout
from ..ops.fused import Fused
from .schedule import Schedule, all_schedules
from .tree import Node, contraction_tree

__all__ = ["below", "plan_fused"]


@by_layout
def plan_fused(
    x: Tensor, fused: Fused, axes: tuple[int, ...], rank: int, free: tuple[int, ...]
) -> Schedule:
    """Return the schedule whose contractions are the quickest.

    ``x`` has its modes in the order ``axes`` of memory. A partial result may take half as much as
    the tensor, or a few MiB; if every schedule needs more, the one that needs least is taken.
    """
    sizes = {mode: x.shape[at] for at, mode in enumerate(axes)}
    allowed = max(x.numel() // 2, 1 << 20)
    costs = []
    for schedule in all_schedules(free, fixed=len(free) < x.ndim):
        seconds, largest = 0.0, 0
        for run in schedule.runs:
            root = contraction_tree(axes, run, [sizes[n] for n in range(x.ndim)])
            kept = [at for at, mode in enumerate(axes) if mode in run]
            partial = [sizes[axes[at]] for at in kept]
            seconds += fused.expected(x, kept, rank)[0] + below(fused, x, root, partial, rank)
            largest = max(largest, math.prod(partial) * rank if len(run) > 1 else 0)
        costs.append((seconds / schedule.sweeps, largest, schedule))
    fitting = [c for c in costs if c[1] <= allowed] or [min(costs, key=lambda c: c[1])]
    seconds, _, schedule = min(fitting, key=lambda c: c[0])
    return replace(schedule, seconds=seconds)


def below(fused: Fused, x: Tensor, node: Node, sizes: Sequence[int], rank: int) -> float:
    """Seconds of all contractions below a partial result of these sizes."""
    total = 0.0
    for half in node.halves:
        left = list(sizes)
        for step in half.contractions:
            total += fused.expected_partial(x, left, step.lo, step.hi, rank)[0]
            del left[step.lo : step.hi]
        total += below(fused, x, half, left, rank)
    return total
