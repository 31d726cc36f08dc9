"""What every Tucker algorithm needs once: checked input, the true error, the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import _check, arrays, baseline
from ..precision import (
    compute_dtype,
    explicit_residual_below,
    precision_floor,
    safe_scale,
    solve_dtype,
)
from ..reconstruct import tucker_residual_norm
from ..results import ConvergenceInfo, TuckerTensor

__all__ = ["bring", "result", "scaled", "true_error"]


def bring(op: str, x: Any) -> Tensor:
    """Bring in a non-empty dense tensor, detached."""
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    _check.modes_at_least(op, tensor, 1)
    _check.nonempty(op, tensor)
    return tensor


def scaled(op: str, x: Tensor) -> tuple[Tensor, float, float]:
    """Return ``x / scale``, its squared norm and the scale; refuse non-finite values."""
    squared = float(baseline.sum_of_squares(x))
    if not math.isfinite(squared):
        _check.finite(op, x)
    scale = safe_scale(x, squared)
    if scale != 1.0:
        x = x.to(compute_dtype(x.dtype)) / scale
        squared = float(baseline.sum_of_squares(x))
    return x, squared, scale


def true_error(x: Tensor, core: Tensor, factors: Sequence[Tensor], squared_norm: float) -> float:
    """``||x - model|| / ||x||``; from the norms of ``x`` and core where that keeps its digits."""
    scale = squared_norm if squared_norm > 0 else 1.0
    squared = (squared_norm - float(baseline.sum_of_squares(core))) / scale
    if squared >= explicit_residual_below(x.dtype) ** 2:
        return math.sqrt(squared)
    error = tucker_residual_norm(x, core, factors) / math.sqrt(scale)
    if error < 100 * precision_floor(x.dtype) and compute_dtype(x.dtype) != solve_dtype(x.dtype):
        error = tucker_residual_norm(x, core, factors, double=True) / math.sqrt(scale)
    return error


def result(
    core: Tensor,
    factors: Sequence[Tensor],
    errors: Sequence[float],
    status: str,
    message: str,
    like: Any,
) -> TuckerTensor:
    """Pack core and factors as arrays of the kind of ``like``."""
    info = ConvergenceInfo(
        n_iter=len(errors),
        rel_errors=tuple(errors),
        fit=1.0 - errors[-1],
        converged=status in ("converged", "precision_limit"),
        status=status,
        message=message,
    )
    return TuckerTensor(
        arrays.in_kind(core.contiguous(), like),
        [arrays.in_kind(f.contiguous(), like) for f in factors],
        info,
    )
