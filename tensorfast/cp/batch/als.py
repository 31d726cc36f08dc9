"""Alternating least squares of a chunk of tensors, sweep by sweep, each ending when it is done."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...results import ConvergenceInfo
from ..als import concluded, products
from ..operand import Contracts
from ..schedule import Schedule
from ..stopping import DivergenceWatch, hadamard
from .contract import gram_of_rows
from .stopping import STATUSES, BatchStoppingRule, fast_relative_errors
from .update import BatchLeastSquares

__all__ = ["BatchALS"]

#: Share of the tensors at work that have to be done for the others to be copied together. Sweeps
#: then work on at most a third more than is needed, and all copies of a fit are four of the data.
DONE_ENOUGH = 0.25


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

    Those that are done are frozen, and dropped once they are a share of what is worked on.

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
        The share at which those that are done are dropped.

    Attributes
    ----------
    last : Tensor, [B]
        The last error of each.
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
        self._done_enough = done_enough
        self._update = BatchLeastSquares(l2_reg, size, device, ranks)
        self._stop = BatchStoppingRule(tol, operand.dtype, self._update.monotone, size, device)
        self._watch = DivergenceWatch()
        # What is worked on: rows, their Grams, their places in the chunk, and which are not done.
        self._rows = list(factors)
        self._grams = [gram_of_rows(rows) for rows in factors]
        self._places = torch.arange(size, device=device)
        self._running = torch.ones(size, dtype=torch.bool, device=device)
        self._left = size
        # What is known of all.
        self.last = torch.zeros(size, dtype=torch.float64, device=device)
        self._log: list[Tensor] = []
        self._codes = torch.zeros(size, dtype=torch.int64, device=device)
        self._ran = torch.zeros_like(self._codes)
        self._ridges = torch.zeros_like(self.last)
        self._pairs: dict[int, tuple[int, int, float]] = {}

    def sweeps(self) -> Generator[None, bool | None, None]:
        """Run sweeps, one between one ``yield`` and the next, until all are done.

        To send True stops what was running in the last sweep.
        """
        mttkrps = self._mttkrps()
        for sweep in range(1, self._n_iter_max + 1):
            frozen = None if self._left == len(self._places) else ~self._running
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
            if not self._left:
                break
            done = len(self._places) - self._left
            if done and done >= self._done_enough * len(self._places):
                self._compact()
                # What is left of the schedule stands on all of them.
                mttkrps = self._mttkrps()
        self.store()

    def _mttkrps(self) -> Iterator[Tensor]:
        """Yield MTTKRPs from the first mode of a sweep on."""
        schedule = self._operand.schedule(self._rows[0].shape[1], self._free)
        return products(self._operand, schedule, self._rows)

    def store(self) -> None:
        """Put what the factors are now where the starts were."""
        for result, rows in zip(self._results, self._rows, strict=True):
            if rows is not result:
                result[self._places] = rows

    def infos(self) -> list[ConvergenceInfo]:
        """Give an account of each fit, once all have ended."""
        errors = torch.stack(self._log, 1).tolist()
        ends = zip(self._codes.tolist(), self._ran.tolist(), self._ridges.tolist(), strict=True)
        return [
            concluded(
                STATUSES[code],
                errors[at][:ran],
                self._dtype,
                self._tol,
                ridge,
                self._pairs.get(at),
            )
            for at, (code, ran, ridge) in enumerate(ends)
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
        lost = lost & self._running
        index = lost.nonzero().squeeze(1)
        if len(index):
            errors[index] = self._exact_errors(index)
        codes = self._stop.codes(sweep, errors, lost | ~self._running, self._exact_errors)
        self._watch.record(sweep, self._grams)
        places = self._places[self._running]
        self.last[places] = errors[self._running]
        self._log.append(self.last.clone())
        return codes

    def _exact_errors(self, index: Tensor) -> Tensor:
        """``||X - M|| / ||X||`` of some, from the residuals themselves."""
        norms = self._operand.squared_norms[index].sqrt()
        residuals = self._operand.residual_norms(self._rows, index)
        return residuals / torch.where(norms > 0, norms, torch.ones_like(norms))

    def _close(self, sweep: int, codes: Tensor) -> None:
        """Note how those ended that are done with this sweep."""
        index = (self._running & (codes > 0)).nonzero().squeeze(1)
        if not len(index):
            return
        places = self._places[index]
        self._codes[places], self._ran[places] = codes[index], sweep
        self._ridges[places] = self._update.ridge[index]
        self._running[index] = False
        self._left -= len(index)
        pairs = self._watch.diverging_of(sweep, [gram[index] for gram in self._grams], index)
        self._pairs |= {at: p for at, p in zip(places.tolist(), pairs, strict=True) if p}

    def _compact(self) -> None:
        """Drop those that are done."""
        self.store()
        index = self._running.nonzero().squeeze(1)
        self._rows[:] = [rows[index] for rows in self._rows]
        self._grams = [gram[index] for gram in self._grams]
        self._places, self._running = self._places[index], self._running[index]
        for part in (self._operand, self._update, self._stop, self._watch):
            part.keep(index)
