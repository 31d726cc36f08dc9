"""Times of calls on a device, and the precision of torch's own matrix products."""

import statistics
import time
from contextlib import contextmanager

import torch

#: Bytes that are overwritten before a call: they empty the L2 cache, and keep the GPU busy (for
#: a quarter of a millisecond on an H200) until the host has launched the call.
FLUSH = 1 << 30


@contextmanager
def products_in(precision):
    """Set the arithmetic of torch's float32 matrix products on a GPU, and put it back.

    Parameters
    ----------
    precision : {"ieee", "tf32"}
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before


def summary(seconds):
    """Return median, spread (interquartile range over median) and number of laps.

    Parameters
    ----------
    seconds : list of float

    Returns
    -------
    dict
    """
    middle = statistics.median(seconds)
    spread = 0.0
    if len(seconds) > 1 and middle > 0:
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
        spread = (high - low) / middle
    return {"ms": middle * 1e3, "spread": spread, "laps": len(seconds)}


class Clock:
    """Times calls: by events on a GPU, by the host's clock elsewhere.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device):
        self._cuda = device.type == "cuda"
        self._flush = None
        if self._cuda:
            memory = torch.cuda.get_device_properties(device).total_memory
            size = min(FLUSH, memory // 8)
            self._flush = torch.empty(size, dtype=torch.int8, device=device)

    def wait(self):
        """Wait until the device has done all it was given."""
        if self._cuda:
            torch.cuda.synchronize()

    def seconds(self, call):
        """Return what a call takes from here until the device has done it, and its result."""
        self.wait()
        begin = time.perf_counter()
        result = call()
        self.wait()
        return time.perf_counter() - begin, result

    def host(self, call, calls=10):
        """Return the seconds after which the host is done with a call, and the device is not."""
        self.wait()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        seconds = (time.perf_counter() - begin) / calls
        self.wait()
        return seconds

    def laps(self, call, seconds=0.15, most=20, least=5, flush=True):
        """Return what a call takes on the device, several times over; it is warmed up.

        Parameters
        ----------
        call : callable
        seconds : float
            For all laps together, about.
        most, least : int
            Laps.
        flush : bool
            Empty the cache before each.

        Returns
        -------
        list of float
        """
        call()
        once, _ = self.seconds(call)
        number = max(least, min(most, int(seconds / max(once, 1e-6))))
        if not self._cuda:
            return [self.seconds(call)[0] for _ in range(number)]
        events = []
        for _ in range(number):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if flush:
                self._flush.zero_()
            start.record()
            call()
            stop.record()
            events.append((start, stop))
        self.wait()
        return [start.elapsed_time(stop) * 1e-3 for start, stop in events]
