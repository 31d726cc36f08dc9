"""One tensor that several fits share: each read of it serves all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...batch import fast_relative_errors
from ...precision import solve_dtype
from ..operand import DenseOperand
from ..schedule import Run, Schedule
from ..stopping import hadamard
from .contract import gram_of_rows

__all__ = ["SharedOperand"]


class SharedOperand:
    """What `batch.als.BatchALS` asks of its data, of one tensor for all fits.

    Each column of a contraction stands for itself, so the factors of all fits are contracted side
    by side, ``[I_n, sum of the ranks]``, as if they were those of one.

    Parameters
    ----------
    data : DenseOperand
    ranks : sequence of int
        Components of each fit. Factors are by rows, ``[B, R, I_n]`` with R the largest; the rows of
        a fit from its own rank on are padding, and are neither contracted nor given.
    rows : int, optional
        R, where it is not the largest.
    """

    def __init__(self, data: DenseOperand, ranks: Sequence[int], rows: int | None = None) -> None:
        self.dtype, self.device = data.dtype, data.device
        self._data, self._ranks = data, list(ranks)
        self._real: Tensor | None = None
        self._note(rows or max(ranks))

    def __len__(self) -> int:
        return len(self._ranks)

    def schedule(self, rank: int, free: Sequence[int]) -> Schedule:
        """Choose among the exact schedules by predicted time, for the columns of all fits."""
        return self._data.schedule(sum(self._ranks), free)

    def mttkrps(self, run: Run, factors: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(mode, mttkrp)`` for each mode of a run from one contraction of the tensor."""
        columns = [self._columns(rows) for rows in factors]
        for mode, product in self._data.mttkrps(run, columns):
            yield mode, self._rows(product, factors[mode])
            columns[mode] = self._columns(factors[mode])

    def residual_norms(self, factors: Sequence[Tensor], index: Tensor) -> Tensor:
        """Return the residual norms of some: true ones, from one read in plain torch.

        Of data in less than double precision by inner products that are; where these have lost
        their digits, and of others, from the residuals themselves. (145 x 145 x 200, float32, one
        thread, ten models of rank 6: 13 ms, and 26 for the residuals; of one model 5.4 and 6.)
        """
        some = [rows[index] for rows in factors]
        ranks = [self._ranks[at] for at in index.tolist()]
        if self.dtype == solve_dtype(self.dtype) or self._data.fused is not None:
            return self._from_residuals(some, ranks)
        found, lost = self._from_inner_products(some, ranks)
        again = lost.nonzero().squeeze(1)
        if len(again):
            own = [ranks[at] for at in again.tolist()]
            found[again] = self._from_residuals([f[again] for f in some], own, double=True)
        return found

    def _from_residuals(
        self, factors: Sequence[Tensor], ranks: Sequence[int], double: bool = False
    ) -> Tensor:
        models = [
            [rows[at, :rank].t().contiguous() for rows in factors] for at, rank in enumerate(ranks)
        ]
        return self.squared_norms.new_tensor(self._data.residual_norms(models, double))

    def _from_inner_products(
        self, factors: Sequence[Tensor], ranks: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return norms, and where they have lost their digits."""
        own = SharedOperand(self._data, ranks, rows=factors[0].shape[1])
        columns = self._data.inner_products([own._columns(rows) for rows in factors])
        inner = own._rows(columns[None], columns.new_zeros(*factors[0].shape[:2], 1)).sum((1, 2))
        model = hadamard([gram_of_rows(rows) for rows in factors]).real
        errors, lost = fast_relative_errors(
            own.squared_norms,
            inner,
            model.sum((1, 2)),
            model.diagonal(dim1=1, dim2=2).sum(1),
            solve_dtype(self.dtype),
        )
        norms = own.squared_norms.sqrt()
        return errors * torch.where(norms > 0, norms, torch.ones_like(norms)), lost

    def keep(self, index: Tensor) -> None:
        """Go on with these fits only."""
        rows = self._rows_of_each
        self._ranks = [self._ranks[at] for at in index.tolist()]
        self._note(rows)

    def _note(self, rows: int) -> None:
        """Note where the columns of the fits at hand lie among all their rows."""
        self._rows_of_each, size = rows, len(self._ranks)
        self.squared_norms = torch.full(
            (size,), self._data.squared_norm, dtype=torch.float64, device=self.device
        )
        self._real = None
        if any(rank < rows for rank in self._ranks):
            ranks = torch.tensor(self._ranks, device=self.device)
            own = torch.arange(rows, device=self.device) < ranks[:, None]
            self._real = own.flatten().nonzero().squeeze(1)

    def _columns(self, rows: Tensor) -> Tensor:
        flat = rows.flatten(0, 1)
        if self._real is not None:
            flat = flat[self._real]
        return flat.t().contiguous()

    def _rows(self, columns: Tensor, like: Tensor) -> Tensor:
        if self._real is None:
            return columns.t().contiguous().view(like.shape)
        flat = torch.zeros_like(like).flatten(0, 1)
        flat[self._real] = columns.t()
        return flat.view(like.shape)
