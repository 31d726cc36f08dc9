"""Data near the ends of a type's range: the scale at which they are fitted, and the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..precision import safe_scale

__all__ = ["restored", "scaled_l2", "unit_columns", "unit_of"]


def unit_of(x: Tensor, squared_norm: float) -> float:
    """Power of two by which every factor is scaled, and ``x`` by its N-th power; 1 if x is tame."""
    return 2.0 ** math.floor(math.log2(safe_scale(x, squared_norm)) / x.ndim)


def scaled_l2(l2_reg: float, unit: float, order: int) -> float:
    """Weight that has the same effect once ``x`` and all its factors are scaled.

    From 1e200 on, the model is zero either way.
    """
    return min(1e200, l2_reg * 2.0 ** min(1023.0, (2 - 2 * order) * math.log2(unit)))


def restored(
    factors: Sequence[Tensor], kept: dict[int, Tensor], unit: float | Tensor
) -> list[Tensor]:
    """Undo the scaling by ``unit``; the fixed factors are exactly those that were given."""
    if isinstance(unit, float) and unit == 1.0:
        return list(factors)
    return [kept.get(n, factor * unit) for n, factor in enumerate(factors)]


def unit_columns(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns of length 1, or 0, and their lengths."""
    # By a power of two first, which rounds nothing, so that no square over- or underflows: one
    # factor may have all of the scale.
    largest = factor.abs().amax(-2)
    unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1)
    scaled = factor / unit[..., None, :]
    lengths = torch.linalg.vector_norm(scaled, dim=-2)
    safe = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return scaled / safe[..., None, :], lengths * unit
