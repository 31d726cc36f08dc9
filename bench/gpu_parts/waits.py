"""Where a call waits for the device: torch's own warnings of it, by the line of tensorfast."""

import sys
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]

#: How torch begins its warning.
WORDS = "called a synchronizing"

#: What stands for a wait on a CPU: every way by which a tensor becomes a number.
NUMBERS = ("item", "tolist", "__float__", "__int__", "__bool__", "__index__")


def place(stack):
    """Return the innermost line of a stack that belongs to the library.

    Parameters
    ----------
    stack : list of traceback.FrameSummary

    Returns
    -------
    str
    """
    for frame in reversed(stack):
        path = Path(frame.filename)
        for folder in ("tensorfast", "kernels"):
            if path.is_relative_to(ROOT / folder):
                return f"{path.relative_to(ROOT).as_posix()}:{frame.lineno} {frame.name}"
    return "elsewhere"


@contextmanager
def counted(device):
    """Count the waits inside the block; yields a counter by place.

    Parameters
    ----------
    device : torch.device
        On a CPU the ways by which a tensor becomes a number are counted: a rehearsal.
    """
    found = Counter()

    def note(message, *_, **__):
        if WORDS in str(message):
            found[place(traceback.extract_stack())] += 1

    with warnings.catch_warnings(), _mode("warn", device):
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield found


@contextmanager
def refused(device):
    """Make every wait inside the block an error."""
    with _mode("error", device):
        yield


@contextmanager
def _mode(mode, device):
    if device.type != "cuda":
        with _numbers(mode):
            yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _numbers(mode):
    kept = {name: getattr(torch.Tensor, name) for name in NUMBERS}

    def watched(original):
        def method(*arguments, **options):
            # Of a call inside another one only the outer counts.
            if sys._getframe(1).f_code is not method.__code__:
                message = f"{WORDS} CPU operation"
                if mode == "error":
                    raise RuntimeError(message)
                warnings.warn(message, stacklevel=2)
            return original(*arguments, **options)

        return method

    try:
        for name, original in kept.items():
            setattr(torch.Tensor, name, watched(original))
        yield
    finally:
        for name, original in kept.items():
            setattr(torch.Tensor, name, original)
