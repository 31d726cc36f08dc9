"""A pass over the modes: in which order they are truncated, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..ops import direct
from .subspace import basis_of_rank, basis_within

__all__ = ["order_of_modes", "truncate"]


def order_of_modes(
    op: str, shape: Sequence[int], ranks: Sequence[int] | None, given: Any
) -> tuple[int, ...]:
    """Return the order in which modes are truncated."""
    if given is not None:
        order = _check.modes(op, given, len(shape), "mode_order")
        if len(order) != len(shape):
            raise ValueError(f"{op}: mode_order is {tuple(given)}; expected all {len(shape)} modes")
        return order
    if ranks is None:
        return tuple(sorted(range(len(shape)), key=lambda n: shape[n]))
    return tuple(sorted(range(len(shape)), key=lambda n: (ranks[n] / shape[n], shape[n])))


def truncate(
    x: Tensor,
    ranks: Sequence[int] | None,
    tol: float | None,
    order: Sequence[int],
    squared_norm: float,
    sequential: bool,
    rng: torch.Generator | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return core and factors, from ranks or from a bound on the relative error."""
    core = x
    factors: list[Tensor] = [core] * x.ndim
    # Rounding of factors and core must not eat into the guarantee.
    slack = 1.0 - 1e-3
    left = (slack * tol) ** 2 * squared_norm if tol is not None else 0.0
    for place, n in enumerate(order):
        source, projected = core if sequential else x, None
        if ranks is not None:
            factors[n], projected = basis_of_rank(source, n, ranks[n], sequential, rng)
        else:
            share = left / (len(order) - place)
            factors[n], spent = basis_within(source, n, share, squared_norm, sequential)
            left -= spent
        if projected is None:
            projected = direct.ttm(core, factors[n], n, transpose=True)
        core = projected
    return core, factors
