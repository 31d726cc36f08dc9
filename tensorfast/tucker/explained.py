"""What `hooi` would do with a tensor, without doing it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..batch import Stack
from ..blocks import SLAB, grain
from ..precision import compute_dtype
from ..results import FitPlan
from .ahead import never_waits
from .plan import cost
from .shared import bring
from .sweep import runs

__all__ = ["planned"]


def planned(x: Any, rank: Any, *, batch_dims: int = 0, **_: Any) -> FitPlan:
    """Tell how `hooi` would run with these arguments; the others change nothing in it."""
    tensor, batch = bring("hooi", x, batch_dims, least=2)
    ranks = _check.tucker_rank("hooi", rank, tensor.shape[batch:])
    if batch:
        return _planned_batch(tensor, batch, ranks)
    ahead, expected = never_waits(tensor, ranks), cost(tensor, ranks)
    return FitPlan(
        method="hooi",
        engine="kernels" if ahead else "torch",
        schedule=_in_words(tensor.ndim),
        reads=expected.reads,
        seconds=expected.seconds,
        # Of the kernels' engine a graph's arrays stand beside those of the first cycle.
        workspace=(1 + ahead) * expected.workspace,
    )


def _planned_batch(x: Tensor, dims: int, ranks: tuple[int, ...]) -> FitPlan:
    """Tell of a batch: seconds of a sweep of all tensors, workspace of a chunk."""
    stack = Stack(x, dims)
    if not len(stack):
        raise ValueError(
            f"hooi: x has shape {tuple(x.shape)}, a batch of no tensor; expected one to explain"
        )
    together = next(stack.parts(grain(SLAB, x))).stop
    chunk = torch.empty(together, *stack.shape, dtype=compute_dtype(x.dtype), device="meta")
    expected = cost(chunk, ranks)
    # What is lifted, the copy of it without what is done, and unfoldings in double precision.
    copies = (2 * chunk.itemsize + 8) * chunk.numel()
    return FitPlan(
        method="hooi",
        engine="torch",
        schedule=f"{_in_words(len(ranks))}, {together} of {len(stack)} tensors at a time",
        reads=expected.reads,
        seconds=expected.seconds * len(stack) / together,
        workspace=copies + expected.workspace,
    )


def _in_words(order: int) -> str:
    return f"projections ({' '.join(''.join(map(str, run)) for run in runs(order))})"
