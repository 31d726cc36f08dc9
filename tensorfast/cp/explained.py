"""What `cp_als` would do with a tensor, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from ..batch import Stack
from ..blocks import SLAB, by_stride, grain
from ..ops.fused import fused_for
from ..precision import compute_dtype
from ..results import FitPlan
from .batch import thread_blocks
from .batch.operand import BATCHED
from .batch.operand import schedule_of as batched_schedule
from .operand import schedule_of
from .plan import cost
from .schedule import Schedule
from .starts import groups_of
from .workspace import workspace

__all__ = ["planned"]


def planned(
    x: Any,
    rank: int,
    *,
    fixed_modes: Sequence[int] = (),
    precision: str | None = "ieee",
    line_search: bool = False,
    batch_dims: int = 0,
    n_init: int = 1,
    callback: Any = None,
    progress: bool = False,
    **_: Any,
) -> FitPlan:
    """Tell how `cp_als` would run with these arguments; the others change nothing in it."""
    tensor = arrays.as_tensor("cp_als", "x", x)
    batch = _check.batch_dims("cp_als", batch_dims, tensor, 2)
    rank = _check.cp_rank("cp_als", rank)
    order = tensor.ndim - batch
    fixed = _check.modes("cp_als", fixed_modes, order, "fixed_modes")
    free = tuple(n for n in range(order) if n not in fixed)
    if batch:
        watched = callback is not None or progress
        return _planned_batch(tensor, batch, rank, free, watched)
    n_init = _check.whole_number("cp_als", "n_init", n_init, 1)
    if n_init > 1:
        return _planned_starts(tensor, n_init, rank, free, precision)
    fused = fused_for(tensor, rank, precision)
    schedule = schedule_of(tensor, rank, free, fused)
    if fused is not None:
        seconds, taken = schedule.seconds, workspace(tensor, fused, rank, schedule)
    else:
        sizes, itemsize = tuple(tensor.shape), compute_dtype(tensor.dtype).itemsize
        seconds, largest = cost(schedule, sizes, rank, itemsize, axes=by_stride(tensor))
        taken = largest * itemsize + _state(tensor, rank, itemsize)
    return FitPlan(
        method="cp_als",
        engine="kernels" if fused is not None and not line_search else "torch",
        schedule=_in_words(schedule),
        reads=schedule.reads,
        seconds=seconds,
        workspace=taken,
    )


def _planned_starts(
    x: Tensor, n_init: int, rank: int, free: tuple[int, ...], precision: str | None
) -> FitPlan:
    """Tell of several starts: seconds of a sweep of all of them, workspace of a group."""
    groups = [len(group) for group in groups_of(x.shape, [rank] * n_init)]
    itemsize, seconds = compute_dtype(x.dtype).itemsize, 0.0
    for count in groups[::-1]:
        # Ends with the first group, the largest.
        columns = count * rank
        fused = fused_for(x, columns, precision)
        schedule = schedule_of(x, columns, free, fused)
        if fused is not None:
            taken = workspace(x, fused, columns, schedule)
            seconds += schedule.seconds
        else:
            each, largest = cost(
                schedule, tuple(x.shape), columns, itemsize, axes=tuple(by_stride(x))
            )
            seconds += each
            taken = largest * itemsize + count * _state(x, rank, itemsize)
    together = f"{groups[0]} of {n_init} starts at a time, {columns} columns"
    return FitPlan(
        method="cp_als",
        engine="torch",
        schedule=f"{_in_words(schedule)}, {together}",
        reads=schedule.reads * len(groups),
        seconds=seconds,
        workspace=taken,
        reasons=("kernels contract, the rest of a sweep of several starts is torch's",)
        if fused is not None
        else (),
    )


def _planned_batch(
    x: Tensor, dims: int, rank: int, free: tuple[int, ...], watched: bool
) -> FitPlan:
    """Tell of a batch: seconds of a sweep of all tensors, workspace of a chunk."""
    stack, dtype = Stack(x, dims), compute_dtype(x.dtype)
    if not len(stack):
        raise ValueError(
            f"cp_als: x has shape {tuple(x.shape)}, a batch of no tensor; expected one to explain"
        )
    reasons = thread_blocks.reasons(x, stack.shape, rank, watched, scaled=False)
    if not reasons:
        return _planned_blocks(x, stack, rank)
    sizes, axes = stack.shape, tuple(by_stride(x[(0,) * dims]))
    schedule = batched_schedule(sizes, rank, free, dtype.itemsize, axes)
    seconds, largest = cost(schedule, sizes, rank, dtype.itemsize, BATCHED, axes)
    together = next(stack.parts(grain(SLAB, x), rank))
    each = largest * dtype.itemsize + _state(stack[:1][0], rank, dtype.itemsize)
    return FitPlan(
        method="cp_als",
        engine="torch",
        schedule=f"{_in_words(schedule)}, {together.stop} of {len(stack)} tensors at a time",
        reads=schedule.reads,
        seconds=seconds * len(stack),
        workspace=together.stop * each,
        reasons=tuple(reasons),
    )


def _planned_blocks(x: Tensor, stack: Stack, rank: int) -> FitPlan:
    """Tell of a batch whose tensors get a thread block each."""
    from ..cuda import cp_plan
    from ..kernels.devices import chip_of

    dtype, chip = compute_dtype(x.dtype), chip_of(x.device)
    problem = stack.shape, rank, str(dtype).removeprefix("torch.")
    chosen = cp_plan.plan(*problem, cp_plan.blocks_of(*problem, chip))
    together = next(stack.parts(grain(SLAB, x), rank)).stop
    # Factors twice, and what is kept of the components.
    each = 2 * sum(stack.shape) * rank * dtype.itemsize + 4 * rank * rank * torch.float64.itemsize
    return FitPlan(
        method="cp_als",
        engine="blocks",
        schedule=f"tree of two branches, {len(stack)} x {chosen.blocks} blocks of "
        f"{chosen.threads} threads",
        reads=0.0,
        seconds=cp_plan.seconds(chosen, len(stack), 1, chip),
        workspace=together * each,
    )


def _in_words(schedule: Schedule) -> str:
    runs = " ".join("".join(map(str, run)) for run in schedule.runs)
    return f"{schedule.name} ({runs})"


def _state(x: Tensor, rank: int, itemsize: int) -> int:
    """Bytes of factors, an MTTKRP, and matrices R x R in double precision."""
    rows = sum(x.shape) + max(x.shape)
    return rows * rank * itemsize + (x.ndim + 3) * rank * rank * torch.float64.itemsize
