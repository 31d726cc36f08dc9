"""Update rules: what a mode's new factor is, given its normal equations.

A rule is called with the Gram matrix of the other modes' Khatri-Rao product, the MTTKRP and the
current factor, and returns the new factor. Least squares is the first; non-negativity and other
constraints are more of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from .. import baseline
from ..precision import pivot_tolerance, solve_dtype

__all__ = ["LeastSquares", "UpdateRule", "not_finite", "sound", "with_ridge"]

#: Factor between one ridge and the next.
RISE = 10.0


class UpdateRule(Protocol):
    """``(gram, mttkrp, current) -> new factor``.

    Attributes
    ----------
    monotone : bool
        Whether an update can only lower the error, so that a rise is rounding.
    ridge : float
        Largest relative ridge that was needed so far; 0 if none was.
    """

    monotone: bool
    ridge: float

    def __call__(self, gram: Tensor, mttkrp: Tensor, current: Tensor) -> Tensor:
        """Return the new factor of one mode."""
        ...

    def penalty(self, factors: Sequence[Tensor]) -> float:
        """Return what the objective adds to the squared residual norm."""
        ...


class LeastSquares:
    """Solve ``H A^T = M^T`` in double precision, ``H`` the Hadamard product of the other Grams.

    Where ``H`` is singular to the precision of the data, a relative ridge is added that rises until
    the factorisation succeeds. The ridge is proximal, it pulls towards the current factor instead
    of towards zero, ``(H + mu D) A^T = M^T + mu D A_current^T`` with ``D = diag(H)``: at a solution
    it changes nothing.

    Parameters
    ----------
    l2_reg : float
        Weight of ``sum_n ||A_n||^2`` in the objective.

    Attributes
    ----------
    monotone, ridge
        As in `UpdateRule`.
    """

    def __init__(self, l2_reg: float = 0.0) -> None:
        self.l2_reg = l2_reg
        self.monotone = not l2_reg
        self.ridge = 0.0

    def __call__(self, gram: Tensor, mttkrp: Tensor, current: Tensor) -> Tensor:
        """Return the least-squares factor, contiguous and of the MTTKRP's type."""
        dtype = solve_dtype(mttkrp.dtype)
        # Row-major and transposed: the column-major right-hand side that LAPACK takes without a
        # copy.
        right = mttkrp.to(dtype).t()
        if self.l2_reg:
            gram = gram + self.l2_reg * torch.eye(gram.shape[0], dtype=dtype, device=gram.device)
        least = pivot_tolerance(mttkrp.dtype, gram.shape[0])
        lower, info = torch.linalg.cholesky_ex(gram)
        if not _sound(lower, info, gram, least):
            lower, right = self._raise_ridge(gram, right, current.t().to(dtype), least)
        return torch.cholesky_solve(right, lower).t().contiguous().to(mttkrp.dtype)

    def penalty(self, factors: Sequence[Tensor]) -> float:
        """Return ``l2_reg * sum_n ||A_n||^2``."""
        if not self.l2_reg:
            return 0.0
        return self.l2_reg * sum(float(baseline.sum_of_squares(f)) for f in factors)

    def _raise_ridge(
        self, gram: Tensor, right: Tensor, current: Tensor, least: float
    ) -> tuple[Tensor, Tensor]:
        lower, pull, ridge = with_ridge(gram[None], least)
        self.ridge = max(self.ridge, float(ridge))
        return lower[0], right + pull[0, :, None] * current


def with_ridge(grams: Tensor, least: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factor singular Gram matrices ``[fits, R, R]``, each with the ridge that it takes.

    ``least``, a number or ``[fits, 1]``, is the smallest pivot that is none.

    Returns the Cholesky factors, what was added to the diagonals, and the relative ridges, which
    rise until every pivot is clear of rounding.
    """
    if not torch.isfinite(grams).all():
        raise not_finite()
    diagonal = grams.diagonal(dim1=-2, dim2=-1).real
    # A column that has vanished gets the mean weight, so that it stays where it is.
    mean = diagonal.mean(-1, keepdim=True)
    weight = torch.where(diagonal > 0, diagonal, torch.where(mean > 0, mean, torch.ones_like(mean)))
    ridge = torch.zeros_like(mean) + 2 * least
    while True:
        pull = ridge * weight
        shifted = grams + torch.diag_embed(pull).to(grams.dtype)
        lower, info = torch.linalg.cholesky_ex(shifted)
        good = sound(lower, info, shifted, least)
        if good.all():
            return lower, pull, ridge[:, 0]
        ridge = torch.where(good[:, None], ridge, RISE * ridge)


def sound(lower: Tensor, info: Tensor, grams: Tensor, least: float | Tensor) -> Tensor:
    """Whether each factorisation of a batch succeeded with every pivot clear of rounding."""
    pivots = lower.diagonal(dim1=-2, dim2=-1).real.square()
    return (info == 0) & (pivots > least * grams.diagonal(dim1=-2, dim2=-1).real).all(-1)


def not_finite(x: str = "x") -> FloatingPointError:
    """Return the error that ends a fit of unchecked data."""
    return FloatingPointError(
        f"cp_als: the factors are no longer finite; {x} holds NaN or Inf, or it or init overflows; "
        "clean or rescale them"
    )


def _sound(lower: Tensor, info: Tensor, gram: Tensor, least: float) -> bool:
    """`sound` of one factorisation, on the host, which is quicker for a small one."""
    if int(info):
        return False
    pivots, squares = lower.diagonal().tolist(), gram.diagonal().tolist()
    return all(p.real**2 > least * s.real for p, s in zip(pivots, squares, strict=True))
