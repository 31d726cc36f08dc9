"""What the ALS engine asks of its data, and the dense tensor's answer.

The engine never touches the data itself. Whatever offers the methods of `Operand` (a sparse tensor, one
larger than memory, one spread over machines) can be decomposed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .. import baseline, reconstruct
from ..precision import compute_dtype, precision_floor
from .schedule import Run, Schedule, plan, split

__all__ = ["DenseOperand", "Operand"]


class Operand(Protocol):
    """The data of a CP decomposition."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    squared_norm: float

    def schedule(self, rank: int, free: Sequence[int]) -> Schedule:
        """Choose how to sweep over the modes ``free``."""
        ...

    def mttkrps(self, run: Run, factors: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(mode, mttkrp)`` for each mode of a run, in order.

        The caller replaces ``factors[mode]`` before it asks for the next.
        """
        ...

    def residual_norm(self, factors: Sequence[Tensor]) -> float:
        """Return ``||X - [[factors]]||`` computed from the residual itself."""
        ...


class DenseOperand:
    """A dense tensor, read in place whatever its strides.

    Parameters
    ----------
    x : Tensor
        Not copied: a permutation of a C-ordered tensor is walked in its own memory order; strided slices
        and half precision are lifted block by block.
    """

    def __init__(self, x: Tensor) -> None:
        self.shape = tuple(x.shape)
        self.dtype = compute_dtype(x.dtype)
        self.device = x.device
        self._order = tuple(baseline.by_stride(x))
        self._x = x.permute(self._order)
        self.squared_norm = float(baseline.sum_of_squares(self._x))

    def schedule(self, rank: int, free: Sequence[int]) -> Schedule:
        """Choose among the exact schedules by predicted time."""
        return plan(self.shape, rank, free, self.dtype.itemsize)

    def mttkrps(self, run: Run, factors: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield the MTTKRPs of a run from one contraction of the tensor."""
        kept = set(run)
        groups = _groups(self._order, set(self._order) - kept)
        axes = tuple(mode for mode in self._order if mode in kept)
        spans = [(lo, hi, _krp(factors, self._order[lo:hi])) for lo, hi in groups]
        if len(spans) == 2 and spans[0][0] == 0 and spans[1][1] == len(self._order):
            (_, lo, left), (hi, _, right) = spans
            partial = baseline.contract_sides(self._x, lo, hi, left, right)
        else:
            # The longest group shrinks the tensor most, so it goes first.
            spans.sort(key=lambda span: -span[2].shape[0])
            lo, hi, k = spans[0]
            partial = baseline.contract_data(self._x, lo, hi, k)
            left_axes = self._order[:lo] + self._order[hi:]
            partial = _contract(partial, left_axes, set(left_axes) - kept, factors)
        yield from _descend(partial, axes, run, factors)

    def residual_norm(self, factors: Sequence[Tensor]) -> float:
        """Return the exact residual norm, in double precision where the computing type is too coarse."""
        ordered = [factors[mode] for mode in self._order]
        norm = reconstruct.cp_residual_norm(self._x, ordered)
        floor = 100 * precision_floor(self.dtype) * math.sqrt(self.squared_norm)
        if norm < floor and self.dtype.itemsize < torch.float64.itemsize:
            return reconstruct.cp_residual_norm(self._x, ordered, double=True)
        return norm


def _krp(factors: Sequence[Tensor], modes: Sequence[int]) -> Tensor:
    return baseline.khatri_rao([factors[mode].conj() for mode in modes])


def _groups(axes: Sequence[int], gone: set[int]) -> list[tuple[int, int]]:
    """Return maximal stretches ``[lo, hi)`` of neighbouring axes whose modes are in ``gone``."""
    groups: list[tuple[int, int]] = []
    for at, mode in enumerate(axes):
        if mode not in gone:
            continue
        if groups and groups[-1][1] == at:
            groups[-1] = (groups[-1][0], at + 1)
        else:
            groups.append((at, at + 1))
    return groups


def _contract(
    partial: Tensor, axes: Sequence[int], gone: set[int], factors: Sequence[Tensor]
) -> Tensor:
    """Contract the modes ``gone`` of a partial result, from the last stretch of axes to the first."""
    for lo, hi in reversed(_groups(axes, gone)):
        partial = baseline.contract_partial(partial, lo, hi, _krp(factors, axes[lo:hi]))
    return partial


def _descend(
    partial: Tensor, axes: tuple[int, ...], run: Run, factors: Sequence[Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Walk the binary tree below a partial result ``[axes..., R]``, the updates coming in between."""
    if len(run) == 1:
        yield run[0], partial
        return
    sizes = dict(zip(axes, partial.shape[:-1], strict=True))
    halves = split(run, [sizes.get(mode, 1) for mode in range(max(run) + 1)])
    for half, other in (halves, halves[::-1]):
        below = _contract(partial, axes, set(other), factors)
        yield from _descend(below, tuple(a for a in axes if a in half), half, factors)
