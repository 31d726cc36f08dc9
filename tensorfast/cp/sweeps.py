"""Sweeps that are recorded once and replayed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import torch

from .algebra import Algebra
from .als import products
from .iterate import Iterate
from .operand import Operand
from .schedule import Schedule

__all__ = ["Capture", "Replay", "Sweeps", "graphs"]


class Replay(Protocol):
    """Something that was recorded."""

    def replay(self) -> None:
        """Do it again."""
        ...


Capture = Callable[[Callable[[], None]], Replay]


class Sweeps:
    """Launches sweep after sweep: recorded once for each sweep of the schedule's cycle.

    Parameters
    ----------
    operand, schedule, fit, algebra
        What is swept, and how.
    free : sequence of int
        The modes that are updated, in order.
    capture : callable, optional
        Records what a function launches, without doing it.

    Attributes
    ----------
    launched : int
        Sweeps so far, those that changed nothing included.
    trouble : str
        Why nothing is recorded, where that was tried.
    """

    def __init__(
        self,
        operand: Operand,
        schedule: Schedule,
        fit: Iterate,
        algebra: Algebra,
        free: Sequence[int],
        capture: Capture | None = None,
    ) -> None:
        self.launched = 0
        self.trouble = ""
        self._about = operand, schedule, fit.factors
        self._fit, self._algebra, self._free = fit, algebra, free
        self._cycle, self._capture = schedule.sweeps, capture
        self._products = products(*self._about)
        self._recorded: list[Replay] = []

    def launch(self) -> None:
        """Launch one sweep; the first cycle directly, so that all code is loaded."""
        phase = self.launched % self._cycle
        first, self.launched = self.launched < self._cycle, self.launched + 1
        if not first and self._capture is not None and phase == len(self._recorded):
            try:
                self._recorded.append(self._capture(self._sweep))
            except RuntimeError as error:
                self.trouble = str(error).splitlines()[0]
                # What was recorded in part has used up products that were never made.
                self._capture, self._products = None, products(*self._about)
        if first or self._capture is None:
            self._sweep()
        else:
            self._recorded[phase].replay()

    def align(self, made: int) -> None:
        """Launch sweeps that change nothing until the cycle is where ``made`` sweeps left it."""
        while (self.launched - made) % self._cycle:
            self.launch()

    def _sweep(self) -> None:
        for mode in self._free:
            product = next(self._products)
            self._algebra.update(self._fit, mode, product)
        self._algebra.judge(self._fit, mode, product)


#: Held while a graph is recorded: torch has some of what that changes once a process.
_RECORDING = threading.Lock()


def graphs(device: torch.device) -> Capture:
    """Return what records functions as CUDA graphs, all of which share their memory.

    They must be replayed in the order in which they were recorded. Other threads may use the device
    meanwhile.
    """
    stream, pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream(device))
        with _RECORDING, _no_collection(), torch.cuda.stream(stream):
            try:
                # What torch keeps for all graphs of the process must not be of inference mode.
                with torch.inference_mode(False):
                    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                step()
                graph.capture_end()
            except BaseException:
                _abandon(graph, stream.device, pool)
                raise
        return graph

    return capture


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage: a graph among it could not be destroyed while another is recorded."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _abandon(graph: torch.cuda.CUDAGraph, device: torch.device, pool: tuple[int, int]) -> None:
    """End a recording that failed, and leave torch as it was.

    Where CUDA has given up the recording torch's `capture_end` fails at once: the allocator would
    go on as if something were recorded, and never again free memory that others want; and until
    something is recorded well, random numbers are refused.
    """
    try:
        graph.capture_end()
    except RuntimeError:
        pass
    else:
        return
    with suppress(RuntimeError, AttributeError):
        torch._C._cuda_endAllocateToPool(device.index, pool)
        torch._C._cuda_releasePool(device.index, pool)
    with suppress(RuntimeError):
        number, well = torch.zeros((), device=device), torch.cuda.CUDAGraph()
        well.capture_begin(capture_error_mode="thread_local")
        number.add_(1)
        well.capture_end()
