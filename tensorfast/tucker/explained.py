"""What `hooi` would do with a tensor, without doing it."""

from __future__ import annotations

from typing import Any

from .. import _check
from ..results import FitPlan
from .ahead import never_waits
from .plan import cost
from .shared import bring
from .sweep import runs

__all__ = ["planned"]


def planned(x: Any, rank: Any, **_: Any) -> FitPlan:
    """Tell how `hooi` would run with these arguments; the others change nothing in it."""
    tensor = bring("hooi", x)
    _check.modes_at_least("hooi", tensor, 2)
    ranks = _check.tucker_rank("hooi", rank, tensor.shape)
    ahead, expected = never_waits(tensor, ranks), cost(tensor, ranks)
    return FitPlan(
        method="hooi",
        engine="kernels" if ahead else "torch",
        schedule=f"projections ({' '.join(''.join(map(str, run)) for run in runs(tensor.ndim))})",
        reads=expected.reads,
        seconds=expected.seconds,
        # Of the kernels' engine a graph's arrays stand beside those of the first cycle.
        workspace=(1 + ahead) * expected.workspace,
    )
