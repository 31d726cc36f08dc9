"""What every Tucker algorithm needs once: checked input, the true error, the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .. import _check, arrays, baseline
from ..convergence import fast_relative_error
from ..ops import direct
from ..precision import compute_dtype, precision_floor, solve_dtype
from ..reconstruct import tucker_residual_norm
from ..results import ConvergenceInfo, TuckerTensor

__all__ = ["Outcome", "bring", "exact_error", "rescaled", "result", "scalars", "true_error"]


class Outcome(NamedTuple):
    """How an iteration ended."""

    core: Tensor
    factors: list[Tensor]
    errors: list[float]
    status: str
    remark: str = ""


def bring(op: str, x: Any, batch_dims: Any = 0, least: int = 1) -> tuple[Tensor, int]:
    """Bring in a dense tensor, detached, and tell how many of its axes are those of a batch.

    Its modes are ``least`` or more, and none is empty.
    """
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    batch = _check.batch_dims(op, batch_dims, tensor, least)
    _check.nonempty(op, tensor, batch=batch)
    return tensor, batch


def rescaled(core: Tensor, scale: float) -> Tensor:
    """Undo the division by `svd.scaled`."""
    return core if scale == 1.0 else core * scale


def true_error(
    x: Tensor, core: Tensor, factors: Sequence[Tensor], squared_norm: float
) -> tuple[float, bool]:
    """Return ``||x - model|| / ||x||``, and whether it comes from the residual itself.

    ``core`` is ``x`` projected on the factors.
    """
    inner, squared = map(float, scalars(core, factors))
    error = fast_relative_error(squared_norm, inner, squared, x.dtype)
    if error is None:
        return exact_error(x, core, factors, squared_norm), True
    return error, False


def scalars(core: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``<x, model> = ||core||^2`` and ``||model||^2``, for the projection of ``x`` on the factors.

    Factors are orthonormal up to rounding only: the second is the first plus ``<U_n^H U_n - 1,
    gram(core, n)>`` over the modes, to first order.
    """
    inner = squared = baseline.sum_of_squares(core)
    for n, factor in enumerate(factors):
        skew = baseline.gram_of_columns(factor)
        skew.diagonal().sub_(1)
        gram = direct.gram(core, n, skew.dtype)
        squared = squared + (skew * baseline.conjugate(gram)).sum().real
    return inner, squared


def exact_error(x: Tensor, core: Tensor, factors: Sequence[Tensor], squared_norm: float) -> float:
    """``||x - model|| / ||x||`` from the residual, in double precision where less is too coarse."""
    scale = math.sqrt(squared_norm) if squared_norm > 0 else 1.0
    error = tucker_residual_norm(x, core, factors) / scale
    if error < 100 * precision_floor(x.dtype) and compute_dtype(x.dtype) != solve_dtype(core.dtype):
        error = tucker_residual_norm(x, core, factors, double=True) / scale
    return error


def result(
    core: Tensor, factors: Sequence[Tensor], info: ConvergenceInfo, like: Any
) -> TuckerTensor:
    """Pack core and factors as arrays of the kind of ``like``."""
    return TuckerTensor(
        arrays.in_kind(core.contiguous(), like),
        [arrays.in_kind(f.contiguous(), like) for f in factors],
        info,
    )
