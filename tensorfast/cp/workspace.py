"""The memory that a fit by the GPU's kernels takes besides the tensor: a bound that is close.

A walk through the contractions of a schedule, as `tree` makes them, with what each launcher says
that it allocates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..blocks import by_stride
from ..ops._shared import by_layout
from ..ops.fused import Fused
from ..precision import compute_dtype
from .schedule import Schedule
from .tree import Node, contraction_tree

__all__ = ["workspace"]

#: Bytes of the numbers of an `iterate.Iterate` and of chunks under way, and of what every array
#: takes more than it has: torch's allocator gives pieces of 512.
SCRAPS = 64 * 512


@by_layout
def workspace(x: Tensor, fused: Fused, rank: int, schedule: Schedule) -> int:
    """Return the bytes of a whole fit.

    The factors twice, those that it starts from and its own, with Gram matrices; what the graphs
    take, and beside it what the first cycle took or what happens between sweeps: torch's allocator
    gives nothing of the one to the other.
    """
    factors = sum(x.shape) * rank * compute_dtype(x.dtype).itemsize
    square = rank * rank * torch.float64.itemsize
    # `stopping.DivergenceWatch` has three products of all Gram matrices, and gets a fourth, which
    # is made of copies.
    state = 2 * factors + (x.ndim + 4) * square + SCRAPS
    copies = (x.ndim + 2) * square
    cycle, left = _cycle(fused, x, rank, schedule)
    between = max(copies, left + fused.workspace_of_residual(x, rank))
    return state + cycle + max(cycle, between)


def _cycle(fused: Fused, x: Tensor, rank: int, schedule: Schedule) -> tuple[int, int]:
    """Bytes that a cycle of sweeps takes, and what of it there may be between two."""
    axes = by_stride(x)
    data = x.permute(axes)
    # The last MTTKRP is there until the next one is made.
    rows = max(x.shape[mode] for run in schedule.runs for mode in run)
    last = rows * rank * compute_dtype(x.dtype).itemsize
    most, left = 0, 0
    for run in schedule.runs:
        kept = [at for at, mode in enumerate(axes) if mode in run]
        _, taken = fused.expected(data, kept, rank)
        root = contraction_tree(axes, run, x.shape)
        below, chain = _below(fused, x, root, [data.shape[at] for at in kept], rank, last)
        most, left = max(most, last + taken, below), max(left, chain)
    return most, left


def _below(
    fused: Fused, x: Tensor, node: Node, sizes: Sequence[int], rank: int, last: int
) -> tuple[int, int]:
    """Bytes of a partial result of these sizes and all below it, with and without the solves."""
    itemsize = compute_dtype(x.dtype).itemsize
    own = math.prod(sizes) * rank * itemsize
    if not node.halves:
        return own + fused.workspace_of_solve(x, sizes[0], rank), own
    most, chain = 0, 0
    for half in node.halves:
        kept, above = list(sizes), 0
        for step in half.contractions:
            _, taken = fused.expected_partial(x, kept, step.lo, step.hi, rank)
            most = max(most, last + above + taken)
            del kept[step.lo : step.hi]
            above = math.prod(kept) * rank * itemsize
        below, longest = _below(fused, x, half, kept, rank, last)
        most, chain = max(most, below), max(chain, longest)
    return own + most, own + chain
