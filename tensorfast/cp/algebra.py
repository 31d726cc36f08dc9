"""The small algebra of a sweep, where it lies on the device."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..ops.fused import Fused
from ..precision import pivot_tolerance
from .iterate import Iterate

__all__ = ["Algebra", "FusedAlgebra"]


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


class FusedAlgebra:
    """The small algebra of least squares in the GPU's kernels.

    Parameters
    ----------
    fused : Fused
    l2_reg : float
        As in `update.LeastSquares`.
    """

    def __init__(self, fused: Fused, l2_reg: float = 0.0) -> None:
        self._fused, self._l2_reg = fused, l2_reg

    def update(self, fit: Iterate, mode: int, product: Tensor) -> None:
        """As in `Algebra`."""
        others = [gram for n, gram in enumerate(fit.grams) if n != mode]
        least = pivot_tolerance(product.dtype, product.shape[1])
        at = fit.standing
        ends = at.ridge, product, at.active, fit.factors[mode], fit.grams[mode]
        self._fused.solve(others, self._l2_reg, least, *ends)

    def judge(self, fit: Iterate, mode: int, product: Tensor) -> None:
        """As in `Algebra`."""
        at = fit.standing
        state = at.active, at.count, at.previous
        self._fused.judge(fit.grams, fit.factors[mode], product, at.log, state, at.limits)
