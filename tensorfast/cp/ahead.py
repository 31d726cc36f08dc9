"""ALS whose sweeps are launched ahead of their errors: for a device whose queue must not run dry.

The host launches sweeps in chunks, and reads the errors of one chunk while the next one runs. On
the device each sweep ends with a rule that is a little stricter than the host's: a sweep with which
the fit may end, or that needs the residual itself, clears a flag, and whatever was launched after
it changes nothing. So the host finds the factors of the very sweep that it judges, by the rule of
the plain loop (`als`), and the results are that loop's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..convergence import StoppingRule, fast_relative_error
from ..results import ConvergenceInfo
from .algebra import Algebra
from .als import conclude, exact_error
from .iterate import Iterate
from .operand import Operand
from .schedule import Schedule
from .stopping import DivergenceWatch, hadamard
from .sweeps import Capture, Sweeps
from .update import not_finite

__all__ = ["als_ahead"]

#: Sweeps of a chunk at most, and seconds that the host may take to read one and launch another,
#: while the next runs. What was launched after the last sweep is wasted: less than `AHEAD` chunks.
CHUNK, READING = 8, 2e-4

#: Chunks that are under way at once.
AHEAD = 2


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
    callback: Callable[[int, float, list[Tensor]], bool] | None = None,
    chunk: int | None = None,
) -> tuple[list[Tensor], ConvergenceInfo]:
    """Run the sweeps of `als`, launched in chunks.

    ``capture`` records a sweep to be replayed. A ``chunk`` is as many sweeps as take `READING` if
    not given; with a ``callback`` each sweep is waited for.
    """
    free = sorted(free)
    if schedule is None:
        schedule = operand.schedule(factors[0].shape[1], free)
    chunk = chunk or max(1, min(CHUNK, math.ceil(READING / max(schedule.seconds, 1e-9))))
    chunk, ahead = (1, 1) if callback else (chunk, AHEAD)
    fit = Iterate.start(operand, factors, tol, rows=chunk)
    sweeps = Sweeps(operand, schedule, fit, algebra, free, capture)
    stop = StoppingRule(tol, operand.dtype, monotone)
    watch = DivergenceWatch()
    recompute = partial(exact_error, operand, fit.factors)
    errors: list[float] = []
    flights: deque[_Chunk] = deque()
    status, ridge = "", 0.0
    while not status:
        under_way = len(errors) + sum(flight.sweeps for flight in flights)
        if len(flights) < ahead and under_way < n_iter_max:
            most = min(chunk, n_iter_max - under_way)
            flights.append(_Chunk.launch(sweeps, fit, under_way, most))
            continue
        flight = flights.popleft()
        seen = flight.read()
        if flight.inner is not None and seen.count == flight.end:
            watch.record(flight.end, [flight.inner])
        for sweep in range(len(errors), seen.count):
            inner, model, trace = seen.log[sweep % len(seen.log)]
            error = fast_relative_error(operand.squared_norm, inner, model, operand.dtype, trace)
            errors.append(recompute() if error is None else error)
            status = stop.status(errors, error is None, recompute) or ""
        ridge = seen.ridge
        if callback and callback(len(errors), errors[-1], [f.clone() for f in fit.factors]):
            status = "stopped"
        if len(errors) == n_iter_max:
            status = status or "max_iter"
        elif not seen.active and not status:
            if not all(bool(gram.isfinite().all()) for gram in fit.grams):
                raise not_finite()
            # What was launched since has changed nothing.
            flights.clear()
            sweeps.align(len(errors))
            fit.resume(errors[-1])
    for flight in flights:
        # What they use must not be freed before they end.
        flight.read()
    remark = f"No graph of the sweep was made: {sweeps.trouble}." if sweeps.trouble else ""
    info = conclude(status, errors, operand.dtype, tol, ridge, watch, fit.grams, remark)
    return fit.factors, info


@dataclass(frozen=True)
class _Seen:
    """What the host reads of an `Iterate`, as plain numbers."""

    count: int
    active: bool
    ridge: float
    log: list[list[float]]


@dataclass(frozen=True)
class _Chunk:
    """Sweeps under way.

    Attributes
    ----------
    sweeps, end : int
        How many they are, and how many there will have been in all.
    inner : Tensor or None
        The inner products of the components after the last of them, where they are to be noted.
    """

    sweeps: int
    end: int
    inner: Tensor | None
    _state: Tensor
    _event: torch.cuda.Event | None

    @classmethod
    def launch(cls, sweeps: Sweeps, fit: Iterate, before: int, most: int) -> _Chunk:
        """Launch up to so many sweeps, up to one whose components are to be noted."""
        number = next((n for n in range(1, most) if DivergenceWatch.due(before + n)), most)
        for _ in range(number):
            sweeps.launch()
        noted = DivergenceWatch.due(before + number)
        parts = (fit.count, fit.active, fit.ridge, fit.log)
        state = torch.cat([part.reshape(-1).to(fit.log.dtype) for part in parts])
        event = None
        if state.is_cuda:
            waiting = torch.empty_like(state, device="cpu", pin_memory=True)
            state = waiting.copy_(state, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        inner = hadamard([gram.clone() for gram in fit.grams]) if noted else None
        return cls(number, before + number, inner, state, event)

    def read(self) -> _Seen:
        """Wait for the last sweep and read what it left."""
        if self._event is not None:
            self._event.synchronize()
        count, active, ridge, *log = self._state.tolist()
        rows = [log[at : at + 3] for at in range(0, len(log), 3)]
        return _Seen(int(count), bool(active), ridge, rows)
