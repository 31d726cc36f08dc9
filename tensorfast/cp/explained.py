"""What `cp_als` would do with a tensor, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from ..blocks import by_stride
from ..ops.fused import fused_for
from ..precision import compute_dtype
from .operand import schedule_of
from .plan import cost
from .workspace import workspace

__all__ = ["FitPlan", "planned"]


@dataclass(frozen=True)
class FitPlan:
    """How a fit would run.

    Attributes
    ----------
    engine : str
        ``"kernels"``, those of the GPU, in sweeps launched ahead of their errors; or ``"torch"``,
        sweep by sweep.
    schedule : str
        Name of the schedule, and the modes that each contraction of ``x`` serves.
    reads : float
        Contractions of ``x`` in a sweep.
    seconds : float
        What a sweep is expected to take, by data sheets.
    workspace : int
        Bytes that the fit takes besides ``x``: partial results and the state of the fit; of the
        kernels' engine all that its sweeps, and what is between them, ask of torch's allocator.
    """

    engine: str
    schedule: str
    reads: float
    seconds: float
    workspace: int

    def __str__(self) -> str:
        return (
            f"cp_als by {self.engine}: {self.schedule}, {self.reads:.2f} reads of x a sweep, "
            f"predicted {self.seconds:.2e} s a sweep, workspace {self.workspace / 1e6:.3g} MB"
        )


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
        seconds, taken = schedule.seconds, workspace(fused, tensor, rank, schedule)
    else:
        sizes, itemsize = tuple(tensor.shape), compute_dtype(tensor.dtype).itemsize
        seconds, largest = cost(schedule, sizes, rank, itemsize, axes=by_stride(tensor))
        taken = largest * itemsize + _state(tensor, rank, itemsize)
    runs = " ".join("".join(map(str, run)) for run in schedule.runs)
    return FitPlan(
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
