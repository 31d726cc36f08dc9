"""Chunks of fits run to their ends: one after another, or side by side where somebody looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...results import ConvergenceInfo
from .als import BatchALS

__all__ = ["Report", "one_by_one", "together"]

#: ``report(sweep, errors) -> bool``, True to stop.
Report = Callable[[int, Tensor], bool]


def one_by_one(fits: Iterable[BatchALS]) -> list[ConvergenceInfo]:
    """Run each chunk from its first sweep to its last, while it is in cache."""
    infos: list[ConvergenceInfo] = []
    for fit in fits:
        for _ in fit.sweeps():
            pass
        infos += fit.infos()
    return infos


def together(fits: Sequence[BatchALS], report: Report) -> list[ConvergenceInfo]:
    """Run a sweep of all chunks, report, and so on: who looks on sees the batch as a whole."""
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
