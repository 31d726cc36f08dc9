"""Chunks of a batch, each fitted while it is in cache, or all of them sweep by sweep."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..results import ConvergenceInfo

__all__ = ["Fit", "Report", "run_chunks"]

#: ``report(sweep, errors) -> bool``, of all tensors of the batch; True stops what still runs.
Report = Callable[[int, Tensor], bool]

#: What tells a chunk from the others.
Part = TypeVar("Part")


class Fit(Protocol):
    """The fits of a chunk of tensors."""

    @property
    def last(self) -> Tensor:
        """The last error of each, in float64."""
        ...

    def sweeps(self) -> Generator[None, bool | None, None]:
        """Run sweeps, one between one ``yield`` and the next; to send True stops."""
        ...

    def store(self) -> None:
        """Put what there is now where the results are looked for."""
        ...

    def infos(self) -> list[ConvergenceInfo]:
        """Give an account of each, once all have ended."""
        ...


def run_chunks(
    begin: Callable[[Part], Fit], parts: Sequence[Part], report: Report | None = None
) -> list[ConvergenceInfo]:
    """Run all fits: chunk after chunk, or side by side if there is somebody to report to."""
    if report is None:
        return _one_by_one(begin, parts)
    return _together(begin, parts, report)


def _one_by_one(begin: Callable[[Part], Fit], parts: Sequence[Part]) -> list[ConvergenceInfo]:
    """Run each chunk from its first sweep to its last, while it is in cache."""
    infos: list[ConvergenceInfo] = []
    for part in parts:
        fit = begin(part)
        for _ in fit.sweeps():
            pass
        infos += fit.infos()
    return infos


def _together(
    begin: Callable[[Part], Fit], parts: Sequence[Part], report: Report
) -> list[ConvergenceInfo]:
    """Run a sweep of all chunks, report, and so on: who looks on sees the batch as a whole."""
    fits = [begin(part) for part in parts]
    runs = [fit.sweeps() for fit in fits]
    for run in runs:
        next(run)
    sweep = 1
    while runs:
        for fit in fits:
            fit.store()
        stop = report(sweep, torch.cat([fit.last for fit in fits]))
        runs = [run for run in runs if _goes_on(run, stop)]
        sweep += 1
    return [info for fit in fits for info in fit.infos()]


def _goes_on(run: Any, stop: bool) -> bool:
    try:
        run.send(stop)
    except StopIteration:
        return False
    return True
