"""The CP fit of one tensor: scale, start, engine, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from ..ahead import graphs
from ..ops.fused import Fused, fused_for
from ..progress import progress_bar
from ..results import ConvergenceInfo
from .ahead import als_ahead
from .algebra import FusedAlgebra
from .als import als
from .init import initial_factors
from .operand import DenseOperand
from .scaling import restored, scaled_l2, unit_columns, unit_of
from .update import LeastSquares, not_finite
from .workspace import workspace

__all__ = ["at_scale", "fit_single", "outward", "weighted"]


def fit_single(
    op: str,
    x: Tensor,
    rank: int,
    *,
    init: Any,
    seed: int | torch.Generator | None,
    n_iter_max: int,
    tol: float,
    l2_reg: float,
    normalize: bool,
    free: Sequence[int],
    callback: Callable[[int, float, list[Any]], bool] | None,
    progress: bool,
    check_finite: bool,
    like: Any,
    precision: str | None,
    line_search: bool,
) -> tuple[Tensor, list[Tensor], ConvergenceInfo]:
    """Return weights, factors and the account of the fit; arguments as `cp_als` has checked."""
    fused = fused_for(x, rank, precision)
    x, operand, unit = at_scale(op, x, fused, check_finite)
    start = initial_factors(op, x, rank, init, seed, free)
    kept = {n: factor for n, factor in enumerate(start) if n not in free}
    if unit != 1.0 and not isinstance(init, str):
        start = [factor / unit for factor in start]
    shown = outward(callback, like, kept, unit)
    with progress_bar(progress, n_iter_max, shown) as report:
        factors, info = _fit(
            x,
            operand,
            start,
            scaled_l2(l2_reg, unit, x.ndim),
            fused,
            line_search,
            n_iter_max=n_iter_max,
            tol=tol,
            free=free,
            callback=report,
        )
    return *weighted(restored(factors, kept, unit), free if normalize else ()), info


def at_scale(
    op: str, x: Tensor, fused: Fused | None, check_finite: bool
) -> tuple[Tensor, DenseOperand, float]:
    """Return ``x`` at the scale at which it is fitted, its operand, and the unit of the factors.

    Refuses what is not finite.
    """
    operand = DenseOperand(x, fused)
    # The norm is finite exactly if every entry is, overflow in float64 apart.
    if check_finite and not math.isfinite(operand.squared_norm):
        remedy = "fill or drop them, or pass check_finite=False to skip this check"
        _check.finite(op, x, remedy=remedy)
    unit = unit_of(x, operand.squared_norm)
    if unit != 1.0:
        x = x.to(operand.dtype)
        for _ in range(x.ndim):
            x = x / unit
        operand = DenseOperand(x, fused)
    if not math.isfinite(operand.squared_norm):
        raise not_finite()
    return x, operand, unit


def weighted(factors: list[Tensor], modes: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Put the lengths of the columns of these modes into weights."""
    weights = torch.ones(factors[0].shape[1], dtype=factors[0].real.dtype, device=factors[0].device)
    for n in modes:
        factors[n], lengths = unit_columns(factors[n])
        weights *= lengths
    return weights, factors


def _fit(
    x: Tensor,
    operand: DenseOperand,
    start: Sequence[Tensor],
    l2_reg: float,
    fused: Fused | None,
    line_search: bool,
    **options: Any,
) -> tuple[list[Tensor], ConvergenceInfo]:
    """Run sweeps as the device likes them: each judged when it ends, or launched ahead."""
    if fused is None or line_search:
        return als(operand, start, LeastSquares(l2_reg), line_search=line_search, **options)
    # Streams and events are those of the current device.
    rank = start[0].shape[1]
    with torch.cuda.device(operand.device):
        algebra, capture = FusedAlgebra(fused, l2_reg), graphs(operand.device)
        schedule = operand.schedule(rank, options["free"])
        keep = (operand.place, l2_reg), workspace(x, fused, rank, schedule)
        options |= {"monotone": not l2_reg, "schedule": schedule, "keep": keep}
        return als_ahead(operand, start, algebra, capture=capture, **options)


def outward(
    callback: Callable[[int, float, list[Any]], bool] | None,
    like: Any,
    kept: dict[int, Tensor],
    unit: float,
) -> Callable[[int, float, list[Tensor]], bool] | None:
    """Show a callback copies of the factors, of the kind and in the scale of ``x``."""
    if callback is None:
        return None

    def report(sweep: int, error: float, factors: list[Tensor]) -> bool:
        with torch.inference_mode(False), torch.enable_grad():
            copies = [f.clone() for f in restored(factors, kept, unit)]
            return bool(callback(sweep, error, [arrays.in_kind(f, like) for f in copies]))

    return report
