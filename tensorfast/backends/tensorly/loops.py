"""Whether two MTTKRPs were asked for by one and the same running decomposition of TensorLy.

If so, nothing but TensorLy's own code has run in between, and that changes no tensor in place: it
is known to be what it was, without a look at it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import tensorly
from tensorly import decomposition, tenalg

__all__ = ["Loop", "running_loop"]


def _codes(module: Any, *names: str) -> set[CodeType]:
    """Return the code of TensorLy's functions, but none of what others have put in their place."""
    home = Path(tensorly.__file__).parent
    codes = (getattr(getattr(module, name, None), "__code__", None) for name in names)
    return {code for code in codes if code and Path(code.co_filename).is_relative_to(home)}


#: Functions that update factor after factor, and run nothing of their caller's but a ``callback``.
LOOPS = _codes(
    decomposition,
    "parafac",
    "non_negative_parafac",
    "non_negative_parafac_hals",
    "constrained_parafac",
)
#: What stands between such a function and ours: TensorLy's dispatch.
BETWEEN = _codes(tenalg, "unfolding_dot_khatri_rao")


class Loop(NamedTuple):
    """A running function. The same place may be another's later, once this one has returned."""

    place: int
    code: CodeType


def running_loop(depth: int) -> Loop | None:
    """Return TensorLy's function that called the function ``depth`` frames up, if one did.

    None where it was given a ``callback``: between sweeps its caller's own code runs.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    while frame is not None and frame.f_code in BETWEEN:
        frame = frame.f_back
    if frame is None or frame.f_code not in LOOPS or frame.f_locals.get("callback") is not None:
        return None
    return Loop(id(frame), frame.f_code)
