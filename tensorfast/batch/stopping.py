"""When each tensor of a batch is done: the rules of `tensorfast.convergence`, for many at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..convergence import StoppingRule
from ..precision import compute_dtype, explicit_residual_below, precision_floor

__all__ = ["STATUSES", "BatchStoppingRule", "fast_relative_errors"]

#: What the codes mean; 0 is to go on.
STATUSES = ("", "converged", "precision_limit", "stopped", "max_iter")


def fast_relative_errors(
    squared_norms: Tensor, inner: Tensor, model: Tensor, trace: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return `fast_relative_error` of each, and where the digits are lost and it is none."""
    scale = torch.where(squared_norms > 0, squared_norms, torch.ones_like(squared_norms))
    squared = (squared_norms - 2 * inner + model) / scale
    cancelling = (trace / scale).clamp(min=1.0)
    lost = squared < cancelling * explicit_residual_below(dtype) ** 2
    return squared.clamp(min=0).sqrt(), lost


class BatchStoppingRule:
    """`tensorfast.convergence.StoppingRule` of every tensor of a batch.

    Parameters
    ----------
    tol, dtype, monotone
        As there.
    size : int
        Tensors in the batch.
    device : torch.device
    """

    def __init__(
        self, tol: float, dtype: torch.dtype, monotone: bool, size: int, device: torch.device
    ) -> None:
        self._tol, self._monotone = tol, monotone
        self._floor = precision_floor(dtype)
        self._jitter = StoppingRule.JITTER * torch.finfo(compute_dtype(dtype)).eps
        # The last error of each, the last that was good to ``tol``, and its sweep; 0: none was.
        self._last = torch.zeros(size, dtype=torch.float64, device=device)
        self._trusted = torch.zeros_like(self._last)
        self._trusted_at = torch.zeros_like(self._last)

    def codes(
        self, sweep: int, errors: Tensor, exact: Tensor, recompute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return for each a code of `STATUSES`, 0 to go on.

        ``exact`` says whose error comes from the residual itself. Where ``recompute(index)``, which
        does, is called for, it replaces entries of ``errors``.
        """
        if self._tol == 0:
            return torch.zeros_like(errors, dtype=torch.int64)
        limit = (errors > 0) & (errors < self._floor)
        sure = exact | (self._jitter < self._tol * errors)
        if sweep > 1:
            asks = ~limit & ~sure & (self._judged(self._last - errors) > 0)
            index = asks.nonzero().squeeze(1)
            if len(index):
                errors[index] = recompute(index)
                sure = sure | asks
        judged = sure & ~limit
        falls = (self._trusted - errors) / (sweep - self._trusted_at)
        known = judged & (self._trusted_at > 0)
        codes = torch.where(known, self._judged(falls), 0)
        self._trusted = torch.where(judged, errors, self._trusted)
        self._trusted_at = torch.where(judged, float(sweep), self._trusted_at)
        self._last = errors.clone()
        return torch.where(limit, STATUSES.index("precision_limit"), codes)

    def keep(self, index: Tensor) -> None:
        """Go on with these tensors only."""
        self._last = self._last[index]
        self._trusted, self._trusted_at = self._trusted[index], self._trusted_at[index]

    def _judged(self, falls: Tensor) -> Tensor:
        """Judge by the falls of the errors a sweep."""
        rising = STATUSES.index("precision_limit") if self._monotone else 0
        codes = torch.where(falls < 0, rising, 0)
        return torch.where(falls.abs() < self._tol, STATUSES.index("converged"), codes)
