"""Peak extra memory of one call, measured in this process.

Run as ``python -m bench.memory_probe PROBLEM IMPLEMENTATION VARIANT FILE``. The resident size is
read just before the call, the kernel's high-water mark is reset, and the mark is read just after:
what the call needed at its worst, results included, input excluded. Libraries are loaded and their
pools filled by a small decomposition beforehand. The kernel counts pages in batches: good to about
0.2 MB. Which variant is fastest was found elsewhere, as trials here would leave memory for reuse.
"""

import ctypes
import gc
import json
import re
import sys
from pathlib import Path

from bench import threads

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
SWEEPS = 3


def supported():
    """Return whether this system can tell and reset the peak resident size.

    Returns
    -------
    bool
    """
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return "VmHWM" in STATUS.read_text()


def _status(key):
    return 1024 * int(re.search(rf"^{key}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)[1])


def extra_bytes(setup, call):
    """Return the peak resident bytes during ``call()`` beyond those resident before it.

    Parameters
    ----------
    setup : callable
        Called first; what it leaves behind is not counted.
    call : callable

    Returns
    -------
    int
    """
    setup()
    gc.collect()
    # What the allocator keeps for reuse would hide the same amount of the call's own use.
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    before = _status("VmRSS")
    CLEAR.write_text("5")
    result = call()
    peak = _status("VmHWM")
    del result
    return peak - before


def main(name, implementation, variant, target):
    """Measure and write ``{"extra_bytes": ..., "sweeps": ..., "variant": ...}`` as JSON.

    Parameters
    ----------
    name, implementation, variant, target : str
    """
    threads.pin()
    import torch

    from bench import problems, rivals

    torch.set_num_threads(threads.count())

    def prepared(problem, sweeps):
        runs = rivals.MEMORY[implementation](problem, problem.build(), sweeps)
        return next(run for run in runs if run.variant == variant)

    warm_up = prepared(problems.WARM_UP, problems.WARM_UP.sweeps)
    warm_up.setup()
    warm_up.call()
    del warm_up
    run = prepared(problems.by_name(name), SWEEPS)
    extra = extra_bytes(run.setup, run.call)
    found = {"extra_bytes": extra, "sweeps": SWEEPS, "variant": run.variant}
    Path(target).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
