"""Alternating least squares of a chunk of tensors, sweep by sweep, each ending when it is done."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...batch import BatchStoppingRule, Ledger, fast_relative_errors
from ...batch.ledger import DONE_ENOUGH
from ...batch.stopping import STATUSES
from ...results import ConvergenceInfo
from ..als import concluded, products
from ..operand import Contracts
from ..schedule import Schedule
from ..stopping import DivergenceWatch, hadamard
from .contract import gram_of_rows
from .update import BatchLeastSquares

__all__ = ["BatchALS"]


class Fits(Contracts, Protocol):
    """The data of a chunk of fits: a tensor for each, or one for all.

    MTTKRPs are ``[B, R, I_n]`` as the factors are.
    """

    dtype: torch.dtype
    device: torch.device
    squared_norms: Tensor

    def __len__(self) -> int: ...

    def schedule(self, rank: int, free: Sequence[int]) -> Schedule:
        """Choose how to sweep over the modes ``free``."""
        ...

    def residual_norms(self, factors: Sequence[Tensor], index: Tensor) -> Tensor:
        """Return the exact residual norms of some, in float64."""
        ...

    def keep(self, index: Tensor) -> None:
        """Go on with these fits only."""
        ...


class BatchALS:
    """The fits of a chunk of tensors, or of several starts of one.

    Parameters
    ----------
    operand : Fits
        Its tensors are dropped as they are done.
    factors : sequence of Tensor, [B, R, I_n]
        The starts; here the results are put, in place.
    l2_reg : Tensor, [B], or None
    n_iter_max, tol, free
        As in `tensorfast.cp.als.als`.
    ranks : Tensor, [B], or None
        Components of each, where they differ; rows from there on are zero.
    done_enough : float
        As in `tensorfast.batch.Ledger`.
    """

    def __init__(
        self,
        operand: Fits,
        factors: Sequence[Tensor],
        l2_reg: Tensor | None,
        *,
        n_iter_max: int,
        tol: float,
        free: Sequence[int],
        ranks: Tensor | None = None,
        done_enough: float = DONE_ENOUGH,
    ) -> None:
        size, device = len(operand), operand.device
        self._operand, self._dtype = operand, operand.dtype
        self._n_iter_max, self._tol, self._free = n_iter_max, tol, sorted(free)
        self._results = list(factors)
        self._update = BatchLeastSquares(l2_reg, size, device, ranks)
        self._stop = BatchStoppingRule(tol, operand.dtype, self._update.monotone, size, device)
        self._watch = DivergenceWatch()
        self._ledger = Ledger(size, device, done_enough)
        # What is worked on: rows and their Grams.
        self._rows = list(factors)
        self._grams = [gram_of_rows(rows) for rows in factors]
        # What is known of all.
        self._ridges = torch.zeros(size, dtype=torch.float64, device=device)
        self._pairs: dict[int, tuple[int, int, float]] = {}

    @property
    def last(self) -> Tensor:
        """The last error of each."""
        return self._ledger.last

    def sweeps(self) -> Generator[None, bool | None, None]:
        """Run sweeps, one between one ``yield`` and the next, until all are done.

        To send True stops what was running in the last sweep.
        """
        mttkrps = self._mttkrps()
        for sweep in range(1, self._n_iter_max + 1):
            frozen = self._ledger.frozen
            for mode in self._free:
                product = next(mttkrps)
                others = hadamard([g for n, g in enumerate(self._grams) if n != mode])
                self._rows[mode] = self._update(others, product, self._rows[mode], frozen)
                self._grams[mode] = gram_of_rows(self._rows[mode])
            codes = self._judge(sweep, product)
            if sweep == self._n_iter_max:
                codes = torch.where(codes > 0, codes, STATUSES.index("max_iter"))
            if (yield):
                codes = torch.full_like(codes, STATUSES.index("stopped"))
            self._close(sweep, codes)
            if not self._ledger.left:
                break
            if self._compact():
                # What is left of the schedule stands on all of them.
                mttkrps = self._mttkrps()
        self.store()

    def _mttkrps(self) -> Iterator[Tensor]:
        """Yield MTTKRPs from the first mode of a sweep on."""
        schedule = self._operand.schedule(self._rows[0].shape[1], self._free)
        return products(self._operand, schedule, self._rows)

    def store(self) -> None:
        """Put what the factors are now where the starts were."""
        self._store(self._ledger.places)

    def _store(self, places: Tensor) -> None:
        for result, rows in zip(self._results, self._rows, strict=True):
            if rows is not result:
                result[places] = rows

    def infos(self) -> list[ConvergenceInfo]:
        """Give an account of each fit, once all have ended."""
        ends = zip(self._ledger.ends(), self._ridges.tolist(), strict=True)
        return [
            concluded(status, errors, self._dtype, self._tol, ridge, self._pairs.get(at))
            for at, ((status, errors), ridge) in enumerate(ends)
        ]

    def _judge(self, sweep: int, product: Tensor) -> Tensor:
        """Note the errors after a sweep, and return the code of each."""
        operand, rows = self._operand, self._rows[self._free[-1]]
        wide = self._grams[0].dtype
        inner = (rows.to(wide).conj() * product.to(wide)).real.sum((1, 2))
        model = hadamard(self._grams).real
        errors, lost = fast_relative_errors(
            operand.squared_norms,
            inner,
            model.sum((1, 2)),
            model.diagonal(dim1=1, dim2=2).sum(1),
            operand.dtype,
        )
        # Of what is done nothing is asked any more.
        running = self._ledger.running
        lost = lost & running
        index = lost.nonzero().squeeze(1)
        if len(index):
            errors[index] = self._exact_errors(index)
        codes = self._stop.codes(sweep, errors, lost | ~running, self._exact_errors)
        self._watch.record(sweep, self._grams)
        self._ledger.note(errors)
        return codes

    def _exact_errors(self, index: Tensor) -> Tensor:
        """``||X - M|| / ||X||`` of some, from the residuals themselves."""
        norms = self._operand.squared_norms[index].sqrt()
        residuals = self._operand.residual_norms(self._rows, index)
        return residuals / torch.where(norms > 0, norms, torch.ones_like(norms))

    def _close(self, sweep: int, codes: Tensor) -> None:
        """Note how those ended that are done with this sweep."""
        index = self._ledger.close(sweep, codes)
        if not len(index):
            return
        places = self._ledger.places[index]
        self._ridges[places] = self._update.ridge[index]
        pairs = self._watch.diverging_of(sweep, [gram[index] for gram in self._grams], index)
        self._pairs |= {at: p for at, p in zip(places.tolist(), pairs, strict=True) if p}

    def _compact(self) -> bool:
        """Drop those that are done, if they are enough."""
        before = self._ledger.places
        index = self._ledger.drop()
        if index is None:
            return False
        self._store(before)
        self._rows[:] = [rows[index] for rows in self._rows]
        self._grams = [gram[index] for gram in self._grams]
        for part in (self._operand, self._update, self._stop, self._watch):
            part.keep(index)
        return True
