"""The least-squares update of a mode, for a batch of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ...precision import pivot_tolerance, solve_dtype
from ..update import sound, with_ridge

__all__ = ["BatchLeastSquares"]


class BatchLeastSquares:
    """`tensorfast.cp.update.LeastSquares` of every tensor of a batch, factors given by rows.

    Parameters
    ----------
    l2_reg : Tensor, [B], or None
        Weight of ``sum_n ||A_n||^2`` in the objective of each.
    size : int
        B.
    device : torch.device
    ranks : Tensor, [B], or None
        Components of each, where they differ; the rows from there on are zero, and remain so.

    Attributes
    ----------
    monotone : bool
    ridge : Tensor, [B]
        Largest relative ridge that each needed so far.
    """

    def __init__(
        self,
        l2_reg: Tensor | None,
        size: int,
        device: torch.device,
        ranks: Tensor | None = None,
    ) -> None:
        self._l2_reg, self._ranks = l2_reg, ranks
        self.monotone = l2_reg is None
        self.ridge = torch.zeros(size, dtype=torch.float64, device=device)

    def __call__(
        self, grams: Tensor, products: Tensor, current: Tensor, frozen: Tensor | None = None
    ) -> Tensor:
        """Return the new factor of a mode, ``[B, R, I_n]``; those ``frozen`` keep theirs."""
        dtype = solve_dtype(products.dtype)
        right = products.to(dtype)
        shift = self._shift(grams.shape[-1])
        if shift is not None:
            grams = grams + torch.diag_embed(shift.expand(grams.shape[:-1]))
        least = self._least(products.dtype, grams.shape[-1])
        lower, info = torch.linalg.cholesky_ex(grams)
        good = sound(lower, info, grams, least)
        if not good.all():
            lower, right = self._raise_ridge(grams, lower, right, current, ~good, frozen, least)
        if dtype.itemsize > products.dtype.itemsize:
            # Pivots are far above the rounding of an inverse in double precision, and to multiply
            # by it takes two thirds of what solving does.
            new = torch.bmm(torch.cholesky_inverse(lower), right)
        else:
            new = torch.cholesky_solve(right, lower).contiguous()
        new = new.to(products.dtype)
        return new if frozen is None else torch.where(frozen[:, None, None], current, new)

    def keep(self, index: Tensor) -> None:
        """Go on with these tensors only."""
        self.ridge = self.ridge[index]
        if self._l2_reg is not None:
            self._l2_reg = self._l2_reg[index]
        if self._ranks is not None:
            self._ranks = self._ranks[index]

    def _shift(self, rank: int) -> Tensor | None:
        """Return what is added to the diagonals: the weights, and ones where there is no row."""
        l2_reg = None if self._l2_reg is None else self._l2_reg[:, None]
        if self._ranks is None:
            return l2_reg
        # Ones decouple what is padded from the rest, whose factors and pivots stay what they were.
        padded = torch.arange(rank, device=self._ranks.device) >= self._ranks[:, None]
        real = torch.zeros_like(self.ridge)[:, None] if l2_reg is None else l2_reg
        return torch.where(padded, 1.0, real)

    def _least(self, dtype: torch.dtype, rank: int) -> float | Tensor:
        """Return the smallest pivot that is none, for all or ``[B, 1]``."""
        if self._ranks is None:
            return pivot_tolerance(dtype, rank)
        return pivot_tolerance(dtype, 1) * self._ranks[:, None].to(torch.float64)

    def _raise_ridge(
        self,
        grams: Tensor,
        lower: Tensor,
        right: Tensor,
        current: Tensor,
        singular: Tensor,
        frozen: Tensor | None,
        least: float | Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return factors that exist, and right-hand sides pulled towards the current factor."""
        if frozen is not None:
            # What these give is not used, but has to be a number.
            lower = torch.where(
                (singular & frozen)[:, None, None],
                torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device),
                lower,
            )
            singular = singular & ~frozen
        index = singular.nonzero().squeeze(1)
        if len(index):
            own = least[index] if isinstance(least, Tensor) else least
            factored, pull, ridge = with_ridge(grams[index], own)
            towards = pull[:, :, None] * current[index].to(right.dtype)
            lower = lower.index_copy(0, index, factored)
            right = right.index_add(0, index, towards)
            self.ridge[index] = torch.maximum(self.ridge[index], ridge)
        return lower, right
