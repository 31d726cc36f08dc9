"""What `cp_als` would do with a tensor, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from ..blocks import by_stride
from ..ops.fused import fused_for
from ..precision import compute_dtype
from ..results import FitPlan
from .operand import schedule_of
from .plan import cost
from .workspace import workspace

__all__ = ["planned"]


def planned(
    x: Any,
    rank: int,
    *,
    fixed_modes: Sequence[int] = (),
    precision: str | None = "ieee",
    line_search: bool = False,
    **_: Any,
) -> FitPlan:
    """Tell how `cp_als` would run with these arguments; the others change nothing in it."""
    tensor = arrays.as_tensor("cp_als", "x", x)
    _check.modes_at_least("cp_als", tensor, 2)
    rank = _check.cp_rank("cp_als", rank)
    fixed = _check.modes("cp_als", fixed_modes, tensor.ndim, "fixed_modes")
    free = tuple(n for n in range(tensor.ndim) if n not in fixed)
    fused = fused_for(tensor, rank, precision)
    schedule = schedule_of(tensor, rank, free, fused)
    if fused is not None:
        seconds, taken = schedule.seconds, workspace(tensor, fused, rank, schedule)
    else:
        sizes, itemsize = tuple(tensor.shape), compute_dtype(tensor.dtype).itemsize
        seconds, largest = cost(schedule, sizes, rank, itemsize, axes=by_stride(tensor))
        taken = largest * itemsize + _state(tensor, rank, itemsize)
    runs = " ".join("".join(map(str, run)) for run in schedule.runs)
    return FitPlan(
        method="cp_als",
        engine="kernels" if fused is not None and not line_search else "torch",
        schedule=f"{schedule.name} ({runs})",
        reads=schedule.reads,
        seconds=seconds,
        workspace=taken,
    )


def _state(x: Tensor, rank: int, itemsize: int) -> int:
    """Bytes of factors, an MTTKRP, and matrices R x R in double precision."""
    rows = sum(x.shape) + max(x.shape)
    return rows * rank * itemsize + (x.ndim + 3) * rank * rank * torch.float64.itemsize
