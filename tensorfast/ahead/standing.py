"""Where a fit stands, in the memory of the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..precision import explicit_residual_below, precision_floor

__all__ = ["Standing"]


@dataclass(frozen=True)
class Standing:
    """What sweeps leave for the host, and what they need to know of the stopping rule.

    Attributes
    ----------
    log : Tensor, [rows, 3], float64
        ``<X, M>``, ``||M||^2`` and the sum of the squared lengths of the terms that the model adds,
        0 where they are orthogonal, after sweep ``s`` in row ``s % rows``, the first being 0.
    count : Tensor, int64
        Sweeps that were made.
    active : Tensor, bool
        Cleared by the first sweep that the host has to look at. From then on nothing changes.
    previous : Tensor, float64
        The relative error after the last sweep, as far as three scalars tell.
    ridge : Tensor, [1], float64
        The largest relative ridge that was needed to solve anything.
    limits : Tensor, [4], float64
        ``||X||^2``, the relative error below which three scalars have lost its digits, the one that
        factors of this type cannot go below, and ``tol``.
    """

    log: Tensor
    count: Tensor
    active: Tensor
    previous: Tensor
    ridge: Tensor
    limits: Tensor

    @classmethod
    def of_rows(cls, rows: int, device: torch.device) -> Standing:
        """Make room for a log of so many sweeps."""

        def room(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        count, active = room(dtype=torch.int64), room(dtype=torch.bool)
        return cls(room(rows, 3), count, active, room(), room(1), room(4))

    def begin(self, squared_norm: float, dtype: torch.dtype, tol: float) -> None:
        """Stand before the first sweep of a fit."""
        limits = squared_norm, explicit_residual_below(dtype), precision_floor(dtype), tol
        for place, limit in enumerate(limits):
            # Written there: a copy from the host would wait for the device.
            self.limits[place].fill_(limit)
        self.log.fill_(math.nan)
        self.count.zero_()
        self.ridge.zero_()
        self.resume(math.inf)

    def resume(self, error: float) -> None:
        """Go on after a sweep that the host has looked at, whose relative error is this."""
        self.previous.fill_(error)
        self.active.fill_(True)
