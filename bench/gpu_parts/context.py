"""What a part works with: a device, a deadline, and a record that is on disk after every entry."""

import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.gpu_parts.store import last_lines, read, write


class Context:
    """What a part is given.

    Parameters
    ----------
    path : Path
        Of the record, which the driver has begun.
    seconds : float
        Until the part has to have ended.
    rehearse : bool
        On the CPU, with tiny sizes: a check of the code, no measurement.

    Attributes
    ----------
    device : torch.device
    record : dict
        ``entries``, ``not_run`` (what, and the reason), ``failures`` (what of ours failed, and how)
        and whatever else a part has to tell.
    """

    def __init__(self, path, seconds, rehearse=False):
        self.path, self.rehearse = Path(path), rehearse
        self._deadline = time.monotonic() + seconds
        self.record = read(path)
        self.device = torch.device("cpu" if rehearse else "cuda")

    @property
    def left(self):
        """Seconds that are left."""
        return self._deadline - time.monotonic()

    def write(self):
        """Write the record."""
        write(self.path, self.record)

    def entry(self, **told):
        """Add an entry and write the record."""
        self.record["entries"].append(told)
        self.write()

    def tell(self, **told):
        """Add to the record itself, and write it."""
        self.record.update(told)
        self.write()

    def missing(self, what, reason):
        """Record what was not run, and why."""
        self.record["not_run"].append({"what": what, "reason": reason})
        self.write()

    def enough(self, what, seconds):
        """Tell whether there is time for something, and record where there is not."""
        if self.left < seconds:
            self.missing(what, f"no time left: it takes about {seconds:.0f} s")
        return self.left >= seconds

    def attempt(self, what, seconds, call, ours=True):
        """Make a call if there is time for it, and leave the GPU's memory to the next one.

        Parameters
        ----------
        what : str
        seconds : float
            What it takes, about.
        call : callable
        ours : bool
            As in `guard`.
        """
        if self.enough(what, seconds):
            with self.guard(what, ours):
                call()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def guard(self, what, ours=True):
        """Go on after a failure inside, which is recorded; but not with a GPU that is unusable.

        Parameters
        ----------
        what : str
        ours : bool
            Whether it is a failure of tensorfast. Others' are recorded as not run.
        """
        try:
            yield
        except Exception as error:
            told = f"{type(error).__name__}: {error}".strip()
            if ours:
                failed = {"what": what, "error": last_lines(traceback.format_exc())}
                self.record["failures"].append(failed)
                print(f"{what}: {told}", flush=True)
            else:
                self.missing(what, f"failed: {told.splitlines()[0]}")
            self.write()
            # After a fault in a kernel every call fails: this raises, and ends the part.
            if self.device.type == "cuda":
                torch.cuda.synchronize()
