"""How much other processes disturbed a measurement.

Threads that wait for each other by spinning suffer out of proportion when another process takes a
core: beside one busy process, HOOI at 200^3 was seen to take up to 60 times its time on a quiet
machine, in tensorfast and in TensorLy alike. So every measurement records what others used.
"""

import os
import time
from pathlib import Path

from bench import threads

STAT = Path("/proc/stat")


class Watch:
    """Context manager that tells what other processes took of the cores' time.

    Attributes
    ----------
    others : float
        Processor seconds that other processes used. The system counts in ticks of 10 ms a core, so
        that only a sum over a second or more means much. 0 where it does not tell (no
        ``/proc/stat``).
    available : float
        Processor seconds there were.
    """

    others = 0.0
    available = 0.0

    def __enter__(self):
        """Start to watch."""
        self._begin = (time.perf_counter(), _all_seconds(), _own_seconds())
        return self

    def __exit__(self, *exception):
        """Stop, and set the attributes."""
        began, all_before, own_before = self._begin
        self.available = (time.perf_counter() - began) * threads.cores()
        self.others = (_all_seconds() - all_before) - (_own_seconds() - own_before)


def _all_seconds():
    """Processor seconds of every process since the machine started."""
    if not STAT.exists():
        return _own_seconds()
    user, nice, system = STAT.read_text().split(maxsplit=4)[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def _own_seconds():
    return sum(os.times()[:4])
