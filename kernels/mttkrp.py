"""MTTKRP on a GPU: the fused contraction to one mode, and what it is expected to cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .contraction import contract
from .devices import Chip
from .plan import Contraction, expected

__all__ = ["cost", "mttkrp"]


def mttkrp(
    x: Tensor,
    others: Sequence[Tensor],
    mode: int,
    weights: Tensor | None,
    precision: str,
    chip: Chip | None = None,
) -> Tensor:
    """``unfold(x, n) @ (khatri_rao(others) * weights)``; ``others`` lacks the mode's factor."""
    matrices = list(others)
    matrices.insert(mode, others[0])
    factors = {n: f for n, f in enumerate(matrices) if n != mode}
    rank = others[0].shape[1]
    dtype = torch.float64 if torch.float64 in (x.dtype, *(f.dtype for f in others)) else None
    x = x if dtype is None else x.to(dtype)
    out = x.new_empty(x.shape[mode], rank, dtype=dtype or torch.float32)
    contract(x, factors, out, precision, chip)
    return out if weights is None else out * weights.to(out.dtype)


def cost(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    mode: int,
    rank: int,
    dtype: str,
    precision: str,
    chip: Chip,
) -> tuple[float, float, float]:
    """Flops, bytes and seconds that are expected."""
    return expected(Contraction(shape, strides, (mode,), rank, dtype, precision, chip))
