"""Alternating least squares over any operand, any exact schedule and any update rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from .. import baseline
from ..convergence import StoppingRule, at_precision_limit, fast_relative_error
from ..results import ConvergenceInfo
from .linesearch import LineSearch
from .operand import Contracts, Operand
from .schedule import Schedule
from .stopping import DivergenceWatch, describe, hadamard
from .update import UpdateRule

__all__ = ["als", "conclude", "concluded", "exact_error", "products", "scalars"]


def als(
    operand: Operand,
    factors: Sequence[Tensor],
    update: UpdateRule,
    *,
    n_iter_max: int,
    tol: float,
    free: Sequence[int],
    schedule: Schedule | None = None,
    line_search: bool = False,
    callback: Callable[[int, float, list[Tensor]], bool] | None = None,
) -> tuple[list[Tensor], ConvergenceInfo]:
    """Run sweeps from ``factors`` until a rule says stop.

    One sweep updates the modes ``free`` in increasing order, each by its least-squares problem with
    all the others fixed, and ends with the true relative error.
    """
    factors = list(factors)
    free = sorted(free)
    if schedule is None:
        schedule = operand.schedule(factors[0].shape[1], free)
    grams = [baseline.gram_of_columns(f) for f in factors]
    stop = StoppingRule(tol, operand.dtype, update.monotone)
    watch = DivergenceWatch()
    search = LineSearch() if line_search else None
    errors: list[float] = []
    status = "max_iter"
    mttkrps = products(operand, schedule, factors)
    for sweep in range(1, n_iter_max + 1):
        for mode in free:
            product = next(mttkrps)
            others = hadamard([g for n, g in enumerate(grams) if n != mode])
            factors[mode] = update(others, product, factors[mode])
            grams[mode] = baseline.gram_of_columns(factors[mode])
        error, exact = _relative_error(operand, product, factors, grams, free[-1])
        if search is not None:
            better = _extrapolated(search, sweep, operand, update, factors, error, free[-1])
            if better is not None:
                factors, grams, error, exact = better
                # What is left of the schedule stands on the factors that were given up.
                mttkrps = products(operand, schedule, factors)
        errors.append(error)
        watch.record(sweep, grams)
        reason = stop.status(errors, exact, partial(exact_error, operand, factors))
        if callback is not None and callback(sweep, errors[-1], list(factors)):
            reason = "stopped"
        if reason is not None:
            status = reason
            break
    return factors, conclude(status, errors, operand.dtype, tol, update.ridge, watch, grams)


def conclude(
    status: str,
    errors: Sequence[float],
    dtype: torch.dtype,
    tol: float,
    ridge: float,
    watch: DivergenceWatch,
    grams: Sequence[Tensor],
    remark: str = "",
) -> ConvergenceInfo:
    """Give an account of a fit that has ended; ``remark`` is added to the message."""
    pair = watch.diverging(len(errors), grams)
    return concluded(status, errors, dtype, tol, ridge, pair, remark)


def concluded(
    status: str,
    errors: Sequence[float],
    dtype: torch.dtype,
    tol: float,
    ridge: float,
    pair: tuple[int, int, float] | None,
    remark: str = "",
) -> ConvergenceInfo:
    """Give the account where it is known which ``pair`` of components diverges, if any."""
    if status == "max_iter" and at_precision_limit(errors[-1], dtype):
        status = "precision_limit"
    return describe(status, errors, tol, ridge, pair, remark)


def products(operand: Contracts, schedule: Schedule, factors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield MTTKRPs in update order for ever, from the sweep's first mode on."""
    while True:
        for run in schedule.runs:
            for _, product in operand.mttkrps(run, factors):
                yield product


def _extrapolated(
    search: LineSearch,
    sweep: int,
    operand: Operand,
    update: UpdateRule,
    factors: Sequence[Tensor],
    error: float,
    mode: int,
) -> tuple[list[Tensor], list[Tensor], float, bool] | None:
    """Return factors, Grams and error further along the line, if that lowers the objective."""
    candidate = search.candidate(sweep, factors)
    if candidate is None:
        return None
    grams = [baseline.gram_of_columns(f) for f in candidate]
    _, product = next(operand.mttkrps((mode,), candidate))
    new_error, exact = _relative_error(operand, product, candidate, grams, mode)
    old, new = (
        e**2 * operand.squared_norm + update.penalty(at)
        for e, at in ((error, factors), (new_error, candidate))
    )
    accepted = new < old
    search.report(accepted, candidate if accepted else factors)
    return (candidate, grams, new_error, exact) if accepted else None


def _relative_error(
    operand: Operand, product: Tensor, factors: Sequence[Tensor], grams: Sequence[Tensor], mode: int
) -> tuple[float, bool]:
    """Return ``||X - M|| / ||X||``, and whether it comes from the residual itself.

    From the MTTKRP of ``mode`` with all other factors current, as long as that has the digits.
    """
    inner, model, trace = map(float, scalars(product, factors[mode], grams))
    error = fast_relative_error(operand.squared_norm, inner, model, operand.dtype, trace)
    return (exact_error(operand, factors), True) if error is None else (error, False)


def scalars(product: Tensor, factor: Tensor, grams: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``<X, M>``, ``||M||^2`` and the sum of the squared lengths of the components of ``M``.

    From the MTTKRP of the mode of ``factor`` with all other factors current.
    """
    wide = grams[0].dtype
    inner = torch.vdot(factor.to(wide).view(-1), product.to(wide).view(-1)).real
    model = hadamard(grams)
    return inner, model.sum().real, model.trace().real


def exact_error(operand: Operand, factors: Sequence[Tensor]) -> float:
    """Return ``||X - M|| / ||X||`` from the residual itself."""
    norm = math.sqrt(operand.squared_norm)
    return operand.residual_norm(factors) / (norm if norm > 0 else 1.0)
