"""CUDA graphs: what a function launches, recorded once to be replayed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Protocol

import torch

__all__ = ["Capture", "Replay", "graphs"]


class Replay(Protocol):
    """Something that was recorded."""

    def replay(self) -> None:
        """Do it again."""
        ...


Capture = Callable[[Callable[[], None]], Replay]


#: Held while a graph is recorded: torch has some of what that changes once a process.
_RECORDING = threading.Lock()


def graphs(device: torch.device) -> Capture:
    """Return what records functions as CUDA graphs, all of which share their memory.

    They must be replayed in the order in which they were recorded. Other threads may use the device
    meanwhile.
    """
    stream, pool = _stream(device), torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with _RECORDING, _no_collection(), _own_workspace():
            # Not before: it would end what another thread records on this stream.
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
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


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for recordings.

    Torch hands out the same few streams again and again, and what another thread launched on this
    one would be recorded with the rest: so one for all, and of those of high priority, few use.
    """
    return torch.cuda.Stream(device, priority=-1)


@contextmanager
def _own_workspace() -> Iterator[None]:
    """Let cuBLAS work, as long as something is recorded, in memory of the pool of that alone.

    Torch keeps what cuBLAS works on for each stream, and all is recorded on the same one. So graphs
    would share it, also those that threads replay at once, and with the pool of one of them it
    would be gone for all (pytorch/pytorch, issue 193402).
    """
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)
    clear()
    try:
        yield
    finally:
        clear()


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
