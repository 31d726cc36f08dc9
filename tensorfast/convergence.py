"""When an iteration is over, and what its error is: the rules that CP and Tucker share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .precision import explicit_residual_below, precision_floor

__all__ = ["StoppingRule", "at_precision_limit", "fast_relative_error"]


def fast_relative_error(
    squared_norm: float, inner: float, model_squared_norm: float, dtype: torch.dtype
) -> float | None:
    """``||X - M|| / ||X||`` from three scalars, or None where that has lost its digits."""
    scale = squared_norm if squared_norm > 0 else 1.0
    squared = (squared_norm - 2 * inner + model_squared_norm) / scale
    # A NaN is an answer too: it must not look like a lost digit.
    if squared < explicit_residual_below(dtype) ** 2:
        return None
    return math.sqrt(squared)


@dataclass(frozen=True)
class StoppingRule:
    """Decides after each sweep whether to go on.

    Attributes
    ----------
    tol : float
        Stop once the relative error changes by less than this; 0 runs all sweeps.
    dtype : torch.dtype
        Computing type, whose rounding bounds what can be reached.
    monotone : bool
        Whether the error cannot rise in exact arithmetic, so that a rise is rounding.
    """

    tol: float
    dtype: torch.dtype
    monotone: bool = True

    def status(self, errors: Sequence[float]) -> str | None:
        """Return ``"converged"``, ``"precision_limit"`` or None to go on."""
        if self.tol == 0:
            return None
        if at_precision_limit(errors[-1], self.dtype):
            return "precision_limit"
        if len(errors) < 2:
            return None
        fall = errors[-2] - errors[-1]
        if abs(fall) < self.tol:
            return "converged"
        return "precision_limit" if self.monotone and fall < 0 else None


def at_precision_limit(error: float, dtype: torch.dtype) -> bool:
    """Whether an error is as small as factors of this type can make it."""
    return 0 < error < precision_floor(dtype)
