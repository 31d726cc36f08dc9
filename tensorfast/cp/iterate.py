"""The state of a fit that lives on the device, and what one sweep does to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import baseline
from ..precision import explicit_residual_below, precision_floor, solve_dtype
from .als import products
from .operand import Operand
from .schedule import Schedule

__all__ = ["Algebra", "Capture", "Iterate", "Replay", "Sweeps"]


@dataclass(frozen=True)
class Iterate:
    """What sweeps change, in place, and what they need to know of the stopping rule.

    Attributes
    ----------
    factors, grams : list of Tensor
        ``[I_n, R]``, and ``[R, R]`` in double precision.
    log : Tensor, [rows, 3], float64
        ``<X, M>``, ``||M||^2`` and the sum of the squared lengths of the components, after sweep
        ``s`` in row ``s % rows``, the first sweep being 0.
    count : Tensor, int64
        Sweeps that were made.
    active : Tensor, bool
        Cleared by the first sweep that the host has to look at. From then on nothing changes.
    previous : Tensor, float64
        The relative error after the last sweep, as far as three scalars tell.
    ridge : Tensor, [1], float64
        The largest relative ridge that was needed.
    limits : Tensor, [4], float64
        ``||X||^2``, the relative error below which three scalars have lost its digits, the one that
        factors of this type cannot go below, and ``tol``.
    """

    factors: list[Tensor]
    grams: list[Tensor]
    log: Tensor
    count: Tensor
    active: Tensor
    previous: Tensor
    ridge: Tensor
    limits: Tensor

    @classmethod
    def start(cls, operand: Operand, factors: Sequence[Tensor], tol: float, rows: int) -> Iterate:
        """Begin a fit; the factors given are not modified."""
        own = [factor.clone(memory_format=torch.contiguous_format) for factor in factors]
        real = solve_dtype(operand.dtype).to_real()

        def fresh(*values: float) -> Tensor:
            return torch.tensor(values, dtype=real, device=operand.device)

        dtype = operand.dtype
        below, floor = explicit_residual_below(dtype), precision_floor(dtype)
        return cls(
            factors=own,
            grams=[baseline.gram_of_columns(factor) for factor in own],
            log=fresh(*[math.nan] * 3 * rows).view(rows, 3),
            count=torch.zeros((), dtype=torch.int64, device=operand.device),
            active=torch.ones((), dtype=torch.bool, device=operand.device),
            previous=fresh(math.inf)[0],
            ridge=fresh(0.0),
            limits=fresh(operand.squared_norm, below, floor, tol),
        )

    def resume(self, error: float) -> None:
        """Go on after a sweep that the host has looked at, whose relative error is this."""
        self.previous.fill_(error)
        self.active.fill_(True)


class Algebra(Protocol):
    """The small algebra of a sweep, without a word to the host."""

    def update(self, fit: Iterate, mode: int, product: Tensor) -> None:
        """Replace a factor and its Gram matrix, given the MTTKRP, if the fit is active."""
        ...

    def judge(self, fit: Iterate, mode: int, product: Tensor) -> None:
        """End a sweep: write the log, and clear ``active`` where the host may have to decide.

        ``product`` is the MTTKRP of ``mode``, the last that was updated.
        """
        ...


class Replay(Protocol):
    """Something that was recorded."""

    def replay(self) -> None:
        """Do it again."""
        ...


Capture = Callable[[Callable[[], None]], Replay]


class Sweeps:
    """Launches sweep after sweep: recorded once for each sweep of the schedule's cycle.

    Parameters
    ----------
    operand, schedule, fit, algebra
        What is swept, and how.
    free : sequence of int
        The modes that are updated, in order.
    capture : callable, optional
        Records what a function launches, without doing it.

    Attributes
    ----------
    launched : int
        Sweeps so far, those that changed nothing included.
    trouble : str
        Why nothing is recorded, where that was tried.
    """

    def __init__(
        self,
        operand: Operand,
        schedule: Schedule,
        fit: Iterate,
        algebra: Algebra,
        free: Sequence[int],
        capture: Capture | None = None,
    ) -> None:
        self.launched = 0
        self.trouble = ""
        self._about = operand, schedule, fit.factors
        self._fit, self._algebra, self._free = fit, algebra, free
        self._cycle, self._capture = schedule.sweeps, capture
        self._products = products(*self._about)
        self._recorded: list[Replay] = []

    def launch(self) -> None:
        """Launch one sweep; the first cycle directly, so that all code is loaded."""
        phase = self.launched % self._cycle
        first, self.launched = self.launched < self._cycle, self.launched + 1
        if not first and self._capture is not None and phase == len(self._recorded):
            try:
                self._recorded.append(self._capture(self._sweep))
            except RuntimeError as error:
                self.trouble = str(error).splitlines()[0]
                # What was recorded in part has used up products that were never made.
                self._capture, self._products = None, products(*self._about)
        if first or self._capture is None:
            self._sweep()
        else:
            self._recorded[phase].replay()

    def align(self, made: int) -> None:
        """Launch sweeps that change nothing until the cycle is where ``made`` sweeps left it."""
        while (self.launched - made) % self._cycle:
            self.launch()

    def _sweep(self) -> None:
        for mode in self._free:
            product = next(self._products)
            self._algebra.update(self._fit, mode, product)
        self._algebra.judge(self._fit, mode, product)
