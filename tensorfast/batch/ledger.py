"""Which tensors of a chunk are at work, and how the others ended."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .stopping import STATUSES

__all__ = ["Ledger"]

#: Share of the tensors at work that have to be done for the others to be copied together. Sweeps
#: then work on at most a third more than is needed, and all copies of a fit are four of the data.
DONE_ENOUGH = 0.25


class Ledger:
    """The books of a chunk of fits.

    Those that are done are frozen, and dropped once they are a share of what is worked on.

    Parameters
    ----------
    size : int
        Fits in the chunk.
    device : torch.device
    done_enough : float
        The share; with 0 they are dropped at once.

    Attributes
    ----------
    places : Tensor
        Places in the chunk of what is worked on.
    running : Tensor of bool
        Which of these are not done.
    left : int
        How many.
    last : Tensor, float64
        The last error of each tensor of the chunk.
    """

    def __init__(self, size: int, device: torch.device, done_enough: float = DONE_ENOUGH) -> None:
        self._done_enough = done_enough
        self.places = torch.arange(size, device=device)
        self.running = torch.ones(size, dtype=torch.bool, device=device)
        self.left = size
        self.last = torch.zeros(size, dtype=torch.float64, device=device)
        self._log: list[Tensor] = []
        self._codes = torch.zeros(size, dtype=torch.int64, device=device)
        self._ran = torch.zeros_like(self._codes)

    @property
    def frozen(self) -> Tensor | None:
        """Which of what is worked on must not change; None if nothing is done."""
        return None if self.left == len(self.places) else ~self.running

    def note(self, errors: Tensor) -> None:
        """Note the errors after a sweep; of what is done, the old ones stand."""
        self.last[self.places[self.running]] = errors[self.running]
        self._log.append(self.last.clone())

    def close(self, sweep: int, codes: Tensor) -> Tensor:
        """Note how those ended that are done with this sweep, and return their indices."""
        index = (self.running & (codes > 0)).nonzero().squeeze(1)
        if len(index):
            places = self.places[index]
            self._codes[places], self._ran[places] = codes[index], sweep
            self.running[index] = False
            self.left -= len(index)
        return index

    def drop(self) -> Tensor | None:
        """Drop those that are done, if they are enough, and return the indices of the others."""
        done = len(self.places) - self.left
        if not done or done < self._done_enough * len(self.places):
            return None
        index = self.running.nonzero().squeeze(1)
        self.places, self.running = self.places[index], self.running[index]
        return index

    def ends(self) -> Iterator[tuple[str, list[float]]]:
        """Yield status and errors of each tensor, once all are done."""
        errors = torch.stack(self._log, 1).tolist()
        ran, codes = self._ran.tolist(), self._codes.tolist()
        for code, log, sweeps in zip(codes, errors, ran, strict=True):
            yield STATUSES[code], log[:sweeps]
