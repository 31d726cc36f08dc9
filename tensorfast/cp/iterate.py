"""The state of a fit that lives on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import baseline
from ..precision import explicit_residual_below, precision_floor, solve_dtype
from .operand import Operand

__all__ = ["Iterate"]


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

        def fresh(*shape: int, value: float) -> Tensor:
            # Written there: a copy from the host would wait for the device.
            return torch.full(shape, value, dtype=real, device=operand.device)

        dtype = operand.dtype
        below, floor = explicit_residual_below(dtype), precision_floor(dtype)
        limits = fresh(4, value=tol)
        for place, limit in enumerate((operand.squared_norm, below, floor)):
            limits[place].fill_(limit)
        return cls(
            factors=own,
            grams=[baseline.gram_of_columns(factor) for factor in own],
            log=fresh(rows, 3, value=math.nan),
            count=torch.zeros((), dtype=torch.int64, device=operand.device),
            active=torch.ones((), dtype=torch.bool, device=operand.device),
            previous=fresh(value=math.inf),
            ridge=fresh(1, value=0.0),
            limits=limits,
        )

    def resume(self, error: float) -> None:
        """Go on after a sweep that the host has looked at, whose relative error is this."""
        self.previous.fill_(error)
        self.active.fill_(True)
