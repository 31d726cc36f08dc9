"""The host's half: chunks of sweeps launched, their logs read late, each sweep judged."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..convergence import StoppingRule, fast_relative_error
from .standing import Standing
from .sweeps import Sweeps

__all__ = ["Components", "run", "sweeps_of_chunk"]

#: Sweeps of a chunk at most, and seconds that the host may take to read one and launch another,
#: while the next runs. What was launched after the last sweep is wasted: less than `AHEAD` chunks.
CHUNK, READING = 8, 2e-4

#: Chunks that are under way at once.
AHEAD = 2


class Components(Protocol):
    """Something of the model, besides its error, that the host notes after certain sweeps."""

    def due(self, sweep: int) -> bool:
        """Whether after this sweep."""
        ...

    def look(self) -> Tensor:
        """Launch what is to be noted."""
        ...

    def record(self, sweep: int, seen: Tensor) -> None:
        """Note it, once it is there."""
        ...


def sweeps_of_chunk(seconds: float) -> int:
    """Return as many sweeps of so many seconds as keep a device busy while the host reads."""
    return max(1, min(CHUNK, math.ceil(READING / max(seconds, 1e-9))))


def run(
    sweeps: Sweeps,
    standing: Standing,
    stop: StoppingRule,
    squared_norm: float,
    dtype: torch.dtype,
    recompute: Callable[[], float],
    *,
    n_iter_max: int,
    chunk: int,
    callback: Callable[[int, float], bool] | None = None,
    components: Components | None = None,
    check: Callable[[], None] | None = None,
) -> tuple[str, list[float], float]:
    """Run sweeps until a rule says stop; return how they ended, all errors, and the ridge.

    Parameters
    ----------
    sweeps : Sweeps
    standing : Standing
        Of a fit that has begun.
    stop : StoppingRule
    squared_norm : float
        Of the data.
    dtype : torch.dtype
        Computing type of the fit.
    recompute : callable
        The relative error from the residual itself, of the model as it is.
    n_iter_max : int
    chunk : int
        Sweeps that are launched together; with a ``callback`` each is waited for.
    callback : callable, optional
        Given the number of the sweep and its error; True stops.
    components : Components, optional
    check : callable, optional
        Raises if the fit cannot go on, called where the device has asked for the host.
    """
    chunk, ahead = (1, 1) if callback else (chunk, AHEAD)
    errors: list[float] = []
    flights: deque[_Chunk] = deque()
    status, ridge = "", 0.0
    try:
        while not status:
            under_way = len(errors) + sum(flight.sweeps for flight in flights)
            if len(flights) < ahead and under_way < n_iter_max:
                most = min(chunk, n_iter_max - under_way)
                flights.append(_Chunk.launch(sweeps, standing, under_way, most, components))
                continue
            flight = flights.popleft()
            seen = flight.read()
            if components and flight.noted is not None and seen.count == flight.end:
                components.record(flight.end, flight.noted)
            for sweep in range(len(errors), seen.count):
                inner, model, trace = seen.log[sweep % len(seen.log)]
                error = fast_relative_error(squared_norm, inner, model, dtype, trace)
                errors.append(recompute() if error is None else error)
                status = stop.status(errors, error is None, recompute) or ""
            ridge = seen.ridge
            if callback and callback(len(errors), errors[-1]):
                status = "stopped"
            if len(errors) == n_iter_max:
                status = status or "max_iter"
            elif not seen.active and not status:
                if check:
                    check()
                # What was launched since has changed nothing.
                flights.clear()
                sweeps.align(len(errors))
                standing.resume(errors[-1])
    finally:
        # What they use must not be freed before they end, not even where something was raised.
        for flight in flights:
            flight.read()
    return status, errors, ridge


@dataclass(frozen=True)
class _Seen:
    """What the host reads of a `Standing`, as plain numbers."""

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
    noted : Tensor or None
        What is to be noted after the last of them.
    """

    sweeps: int
    end: int
    noted: Tensor | None
    _state: Tensor
    _event: torch.cuda.Event | None

    @classmethod
    def launch(
        cls,
        sweeps: Sweeps,
        standing: Standing,
        before: int,
        most: int,
        components: Components | None,
    ) -> _Chunk:
        """Launch up to so many sweeps, up to one after which something is to be noted."""
        number, noted = most, None
        if components:
            number = next((n for n in range(1, most) if components.due(before + n)), most)
        for _ in range(number):
            sweeps.launch()
        parts = (standing.count, standing.active, standing.ridge, standing.log)
        state = torch.cat([part.reshape(-1).to(standing.log.dtype) for part in parts])
        event = None
        if state.is_cuda:
            waiting = torch.empty_like(state, device="cpu", pin_memory=True)
            state = waiting.copy_(state, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        if components and components.due(before + number):
            noted = components.look()
        return cls(number, before + number, noted, state, event)

    def read(self) -> _Seen:
        """Wait for the last sweep and read what it left."""
        if self._event is not None:
            self._event.synchronize()
        count, active, ridge, *log = self._state.tolist()
        rows = [log[at : at + 3] for at in range(0, len(log), 3)]
        return _Seen(int(count), bool(active), ridge, rows)
