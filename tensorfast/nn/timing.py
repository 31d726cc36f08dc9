"""Which of two modules is faster, on the device at hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["medians"]

#: A module is called so often, within these seconds for both.
CALLS, SECONDS = 20, 2.0


def medians(
    calls: list[Callable[[], Any]],
    device: torch.device,
    repeats: int = CALLS,
    seconds: float = SECONDS,
) -> list[float]:
    """Return the median seconds of each call; all of them take turns, so that they share noise."""
    for call in calls:
        call()
    laps: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(laps[0]) < repeats and (len(laps[0]) < 3 or time.perf_counter() < end):
        for call, own in zip(calls, laps, strict=True):
            own.append(_lap(call, device))
    return [statistics.median(own) for own in laps]


def _lap(call: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    before.record()
    call()
    after.record()
    after.synchronize()
    return 1e-3 * before.elapsed_time(after)
