"""Sweeps launched ahead of their errors: for a device whose queue must not run dry.

The host launches sweeps in chunks, and reads the errors of one chunk while the next one runs. On
the device each sweep ends with a rule that is a little stricter than the host's: a sweep with which
the fit may end, or that needs the residual itself, clears a flag, and whatever was launched after
it changes nothing. So the host finds the model of the very sweep that it judges, by the rule of the
plain loop, and the results are that loop's. `cp.ahead` and `tucker.ahead` are fits of this kind.
"""

from .loop import Components, run, sweeps_of_chunk
from .recording import Capture, Replay, graphs
from .shelf import Kept, Shelf, forget
from .standing import Standing
from .sweeps import Sweeps

__all__ = [
    "Capture",
    "Components",
    "Kept",
    "Replay",
    "Shelf",
    "Standing",
    "Sweeps",
    "forget",
    "graphs",
    "run",
    "sweeps_of_chunk",
]
