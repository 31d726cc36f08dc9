"""ALS whose sweeps are launched ahead of their errors: the engine on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

from torch import Tensor

from ..ahead import Capture, Kept, Replay, Shelf, Sweeps, run, sweeps_of_chunk
from ..convergence import StoppingRule
from ..results import ConvergenceInfo
from .algebra import Algebra
from .als import conclude, exact_error, products
from .iterate import Iterate
from .operand import Operand
from .schedule import Schedule
from .stopping import DivergenceWatch, hadamard
from .update import not_finite

__all__ = ["RECORDED", "als_ahead", "sweeps_of"]

#: Fits of small tensors by what was recorded for them. To record a sweep takes the host about as
#: long as to launch it twice, which for large tensors is no time.
RECORDED: Shelf[Iterate] = Shelf(most=8, nbytes=1 << 27)


def als_ahead(
    operand: Operand,
    factors: Sequence[Tensor],
    algebra: Algebra,
    *,
    n_iter_max: int,
    tol: float,
    free: Sequence[int],
    monotone: bool = True,
    schedule: Schedule | None = None,
    capture: Capture | None = None,
    keep: tuple[Hashable, int] | None = None,
    callback: Callable[[int, float, list[Tensor]], bool] | None = None,
    chunk: int | None = None,
) -> tuple[list[Tensor], ConvergenceInfo]:
    """Run the sweeps of `als`, launched in chunks.

    ``capture`` records a sweep to be replayed. A ``chunk`` is as many sweeps as keep the device
    busy if not given; with a ``callback`` each sweep is waited for. To ``keep`` what was recorded
    for the next fit takes all that it depends on besides schedule and shapes, and its bytes.
    """
    free = sorted(free)
    if schedule is None:
        schedule = operand.schedule(factors[0].shape[1], free)
    chunk = chunk or sweeps_of_chunk(schedule.seconds)
    problem, nbytes = keep or (None, 0)
    key = (problem, schedule, tuple(free), chunk, *(f.shape for f in factors))
    kept = RECORDED.take(key) if keep else None
    fit = Iterate.room_for(operand, factors, rows=chunk) if kept is None else kept.state
    fit.begin(operand, factors, tol)
    recorded = () if kept is None else kept.recorded
    sweeps = sweeps_of(operand, schedule, fit, algebra, free, capture, recorded)
    stop = StoppingRule(tol, operand.dtype, monotone)
    watch = DivergenceWatch()
    status, errors, ridge = run(
        sweeps,
        fit.standing,
        stop,
        operand.squared_norm,
        operand.dtype,
        partial(exact_error, operand, fit.factors),
        n_iter_max=n_iter_max,
        chunk=chunk,
        callback=callback and (lambda n, e: callback(n, e, [f.clone() for f in fit.factors])),
        components=_Components(watch, fit),
        check=partial(_check, fit),
    )
    remark = f"No graph of the sweep was made: {sweeps.trouble}." if sweeps.trouble else ""
    info = conclude(status, errors, operand.dtype, tol, ridge, watch, fit.grams, remark)
    if not (keep and sweeps.complete and RECORDED.holds(nbytes)):
        return fit.factors, info
    own = [f.clone() for f in fit.factors]
    RECORDED.put(key, Kept.now(fit, sweeps.recorded, nbytes))
    return own, info


def sweeps_of(
    operand: Operand,
    schedule: Schedule,
    fit: Iterate,
    algebra: Algebra,
    free: Sequence[int],
    capture: Capture | None = None,
    recorded: Sequence[Replay] = (),
) -> Sweeps:
    """Return the sweeps over the modes ``free`` that change ``fit``."""

    def begin() -> Callable[[], None]:
        mttkrps = products(operand, schedule, fit.factors)

        def sweep() -> None:
            for mode in free:
                product = next(mttkrps)
                algebra.update(fit, mode, product)
            algebra.judge(fit, mode, product)

        return sweep

    return Sweeps(begin, schedule.sweeps, capture, recorded)


class _Components:
    """The inner products of the components, for the watch over those that diverge."""

    def __init__(self, watch: DivergenceWatch, fit: Iterate) -> None:
        self.due = watch.due
        self._watch, self._fit = watch, fit

    def look(self) -> Tensor:
        # Of copies: those of the fit go on changing where there is but one.
        return hadamard([gram.clone() for gram in self._fit.grams])

    def record(self, sweep: int, seen: Tensor) -> None:
        self._watch.record(sweep, [seen])


def _check(fit: Iterate) -> None:
    if not all(bool(gram.isfinite().all()) for gram in fit.grams):
        raise not_finite()
