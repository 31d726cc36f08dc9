"""When an iteration is over, and what its error is: the rules that CP and Tucker share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .precision import compute_dtype, explicit_residual_below, precision_floor

__all__ = ["StoppingRule", "at_precision_limit", "fast_relative_error"]


def fast_relative_error(
    squared_norm: float,
    inner: float,
    model_squared_norm: float,
    dtype: torch.dtype,
    components_squared: float = 0.0,
) -> float | None:
    """``||X - M|| / ||X||`` from three scalars, or None where that has lost its digits.

    ``components_squared``, the sum of the squared lengths of the terms of ``M``, tells how much
    they cancel: rounding grows with it.
    """
    scale = squared_norm if squared_norm > 0 else 1.0
    squared = (squared_norm - 2 * inner + model_squared_norm) / scale
    cancelling = max(1.0, components_squared / scale)
    # A NaN is an answer too: it must not look like a lost digit.
    if squared < cancelling * explicit_residual_below(dtype) ** 2:
        return None
    return math.sqrt(squared)


class StoppingRule:
    """Decides after each sweep whether to go on.

    An error from three scalars is right to a few digits, yet from sweep to sweep it jitters by
    about ``eps / error``, in float32 as much as a usual ``tol``. Where that could decide, the rule
    asks for the residual itself, once when a sweep looks like the last and once a sweep later, and
    judges by those two; if they say go on, by the next such error and the one before.

    Parameters
    ----------
    tol : float
        Stop once the relative error changes by less than this a sweep; 0 runs all sweeps.
    dtype : torch.dtype
        Computing type, whose rounding bounds what can be reached.
    monotone : bool
        Whether the error cannot rise in exact arithmetic, so that a rise is rounding.
    """

    #: Jitter in units of ``eps / error``. Measured in float32 on 30^3, R 6, and 20^4, R 5, at
    #: errors of 0.01, 0.03 and 0.1: up to 0.45.
    JITTER = 2.0

    def __init__(self, tol: float, dtype: torch.dtype, monotone: bool = True) -> None:
        self.tol = tol
        self.monotone = monotone
        self._dtype = dtype
        self._was_exact = False
        self._confirmed: tuple[int, float] | None = None
        self._confirm_next = False

    def status(
        self, errors: list[float], exact: bool, recompute: Callable[[], float]
    ) -> str | None:
        """Return ``"converged"``, ``"precision_limit"`` or None to go on.

        ``exact`` says whether the last of ``errors`` comes from the residual itself. If not, it may
        be replaced by ``recompute()``, which does.
        """
        if self.tol == 0:
            return None
        if at_precision_limit(errors[-1], self._dtype):
            return "precision_limit"
        exact = exact or self._resolves(errors[-1])
        comparable, self._was_exact = exact == self._was_exact, exact
        if len(errors) < 2:
            return None
        verdict = self._judge(errors[-2] - errors[-1])
        if exact:
            return verdict if comparable else None
        if verdict is None and not self._confirm_next:
            return None
        errors[-1] = recompute()
        before, self._confirmed = self._confirmed, (len(errors), errors[-1])
        self._confirm_next = before is None
        if before is None:
            return None
        return self._judge((before[1] - errors[-1]) / (len(errors) - before[0]))

    def _resolves(self, error: float) -> bool:
        """Whether three scalars tell changes of ``tol`` at this error."""
        return self.JITTER * torch.finfo(compute_dtype(self._dtype)).eps < self.tol * error

    def _judge(self, fall: float) -> str | None:
        """Judge by the fall of the error a sweep."""
        if abs(fall) < self.tol:
            return "converged"
        return "precision_limit" if self.monotone and fall < 0 else None


def at_precision_limit(error: float, dtype: torch.dtype) -> bool:
    """Whether an error is as small as factors of this type can make it."""
    return 0 < error < precision_floor(dtype)
