"""Orthogonal iteration of a chunk of tensors, sweep by sweep, each ending when it is done."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from ...batch import BatchStoppingRule, Ledger, squared_norms
from ...batch.stopping import STATUSES
from ...convergence import account, in_words
from ...results import ConvergenceInfo
from ..sweep import projections
from .model import adjoint_product, exact_errors, fast_errors
from .subspace import by_rows, improved

__all__ = ["BatchHOOI"]


class BatchHOOI:
    """`tucker.iteration.hooi_plainly` of every tensor of a chunk.

    Parameters
    ----------
    x : Tensor, [B, ...]
        As `lifted` gives it.
    core : Tensor, [B, R_0, ...]
        Where the cores are put.
    factors : sequence of Tensor, [B, I_n, R_n]
        The starts; here the results are put, in place.
    n_iter_max, tol
        As in `hooi`.
    """

    def __init__(
        self, x: Tensor, core: Tensor, factors: Sequence[Tensor], *, n_iter_max: int, tol: float
    ) -> None:
        self._n_iter_max, self._tol = n_iter_max, tol
        self._core, self._results = core, list(factors)
        self._ledger = Ledger(len(x), x.device)
        self._stop = BatchStoppingRule(tol, x.dtype, True, len(x), x.device)
        # What is worked on.
        self._x, self._factors = x, list(factors)
        self._squared_norms = squared_norms(x)

    @property
    def last(self) -> Tensor:
        """The last error of each."""
        return self._ledger.last

    def sweeps(self) -> Generator[None, bool | None, None]:
        """Run sweeps, one between one ``yield`` and the next, until all are done.

        To send True stops what was running in the last sweep.
        """
        projected = projections(self._x, self._factors, adjoint_product)
        for sweep in range(1, self._n_iter_max + 1):
            frozen = self._ledger.frozen
            for n, factor in enumerate(self._factors):
                y = next(projected)
                new = improved(y, n, factor)
                if frozen is not None:
                    new = torch.where(frozen[:, None, None], factor, new)
                self._factors[n] = new
            core = adjoint_product(y, new, n)
            codes = self._judge(sweep, core)
            if sweep == self._n_iter_max:
                codes = torch.where(codes > 0, codes, STATUSES.index("max_iter"))
            if (yield):
                codes = torch.full_like(codes, STATUSES.index("stopped"))
            done = self._ledger.close(sweep, codes)
            if len(done):
                self._core[self._ledger.places[done]] = core[done]
            if not self._ledger.left:
                break
            if self._compact():
                # What is left of the cycle stands on all of them.
                projected = projections(self._x, self._factors, adjoint_product)
        self.store()

    def store(self) -> None:
        """Put what the factors are now where the starts were."""
        self._store(self._ledger.places)

    def infos(self) -> list[ConvergenceInfo]:
        """Give an account of each fit, once all have ended."""
        return [
            account(status, errors, in_words(status, errors, self._tol))
            for status, errors in self._ledger.ends()
        ]

    def _judge(self, sweep: int, core: Tensor) -> Tensor:
        """Note the errors after a sweep, and return the code of each."""

        def exactly(index: Tensor) -> Tensor:
            x, factors = self._x[index], [f[index] for f in self._factors]
            return exact_errors(x, core[index], factors, self._squared_norms[index])

        errors, lost = fast_errors(core, self._factors, self._squared_norms, self._x.dtype)
        # Of what is done nothing is asked any more.
        running = self._ledger.running
        lost = lost & running
        index = lost.nonzero().squeeze(1)
        if len(index):
            errors[index] = exactly(index)
        codes = self._stop.codes(sweep, errors, lost | ~running, exactly)
        self._ledger.note(errors)
        return codes

    def _store(self, places: Tensor) -> None:
        for result, factor in zip(self._results, self._factors, strict=True):
            if factor is not result:
                result[places] = factor

    def _compact(self) -> bool:
        """Drop those that are done, if they are enough."""
        before = self._ledger.places
        index = self._ledger.drop()
        if index is None:
            return False
        self._store(before)
        self._x, self._squared_norms = self._x[index], self._squared_norms[index]
        self._factors[:] = [by_rows(factor[index]) for factor in self._factors]
        self._stop.keep(index)
        return True
