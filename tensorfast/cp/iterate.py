"""The state of a CP fit that lives on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import baseline
from ..ahead import Standing
from ..precision import solve_dtype
from .operand import Operand

__all__ = ["Iterate"]


@dataclass(frozen=True)
class Iterate:
    """What sweeps change, in place.

    Attributes
    ----------
    factors, grams : list of Tensor
        ``[I_n, R]``, and ``[R, R]`` in double precision.
    standing : Standing
    """

    factors: list[Tensor]
    grams: list[Tensor]
    standing: Standing

    @classmethod
    def room_for(cls, operand: Operand, factors: Sequence[Tensor], rows: int) -> Iterate:
        """Make room for factors of these shapes, and for a log of so many sweeps."""
        wide = solve_dtype(operand.dtype)
        own = [torch.empty_like(f, memory_format=torch.contiguous_format) for f in factors]
        grams = [f.new_empty(f.shape[1], f.shape[1], dtype=wide) for f in factors]
        return cls(own, grams, Standing.of_rows(rows, operand.device))

    def begin(self, operand: Operand, factors: Sequence[Tensor], tol: float) -> None:
        """Begin a fit from these factors, which are not modified."""
        for own, gram, given in zip(self.factors, self.grams, factors, strict=True):
            own.copy_(given)
            gram.copy_(baseline.gram_of_columns(own))
        self.standing.begin(operand.squared_norm, operand.dtype, tol)
