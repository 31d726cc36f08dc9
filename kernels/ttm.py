"""N-mode product on a GPU: the fused contraction of one mode, written where that mode was."""

from __future__ import annotations

import torch
from torch import Tensor

from .contraction import contract
from .devices import Chip
from .plan import Contraction, expected

__all__ = ["cost", "ttm"]


def ttm(
    x: Tensor, matrix: Tensor, mode: int, transpose: bool, precision: str, chip: Chip | None = None
) -> Tensor:
    """``x x_n matrix``, or its transpose, in C order whatever the strides of ``x``."""
    dtype = torch.float64 if torch.float64 in (x.dtype, matrix.dtype) else torch.float32
    x = x.to(dtype) if dtype == torch.float64 else x
    a = matrix if transpose else matrix.t()
    shape = [*x.shape[:mode], a.shape[1], *x.shape[mode + 1 :]]
    out = x.new_empty(shape, dtype=dtype)
    contract(x, {mode: a}, out.movedim(mode, -1), precision, chip)
    return out


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
    kept = tuple(n for n in range(len(shape)) if n != mode)
    return expected(Contraction(shape, strides, kept, rank, dtype, precision, chip))
