"""Squared norms of data for the engines, on a GPU in one read: no public operations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .. import baseline
from ._shared import describe_tensor
from ._triton import reasons

__all__ = ["squared_norm", "squared_residual"]


def squared_residual(x: Tensor, factors: Sequence[Tensor], double: bool = False) -> Tensor | None:
    """``||x - [[factors]]||^2``, a 0-d float64 tensor on the device of ``x``, by the kernels.

    None where they cannot serve, as on every CPU; the caller has `reconstruct.cp_residual_norm`.

    ``factors[n]`` is ``[I_n, R]``, of all modes; a difference is formed in the common computing
    type, in float64 if ``double``. Squares of float64 may over- or underflow, those of other types
    do not. Nothing waits for the device, and a CUDA graph may record it.
    """
    if x.device.type != "cuda":
        return None
    rank = factors[0].shape[1]
    if reasons(describe_tensor("residual", x, *factors, rank=rank, double=double)):
        return None
    from ..kernels import residual

    return residual.residual(x, factors, double)


def squared_norm(x: Tensor) -> Tensor:
    """``||x||^2``, a 0-d float64 tensor on the device of ``x``."""
    if x.device.type != "cuda" or reasons(describe_tensor("squared_norm", x, rank=1)):
        return baseline.sum_of_squares(x)
    from ..kernels import norm

    return norm.squared_norm(x)
