"""What the ALS engine asks of its data, and the dense tensor's answer.

The engine never touches the data itself. Whatever offers the methods of `Operand` (a sparse tensor,
one larger than memory, one spread over machines) can be decomposed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .. import reconstruct
from ..blocks import by_stride
from ..ops import norms
from ..ops.fused import Fused
from ..precision import compute_dtype, precision_floor, solve_dtype
from .plan import plan
from .plan_fused import plan_fused
from .schedule import Run, Schedule
from .tree import Node, contraction_tree

__all__ = ["Contracts", "DenseOperand", "Operand", "room_for", "schedule_of"]


class Contracts(Protocol):
    """Data that are contracted with factors."""

    def mttkrps(self, run: Run, factors: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(mode, mttkrp)`` for each mode of a run, in order.

        The caller replaces ``factors[mode]`` before it asks for the next.
        """
        ...


class Operand(Contracts, Protocol):
    """The data of a CP decomposition."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    squared_norm: float

    def schedule(self, rank: int, free: Sequence[int]) -> Schedule:
        """Choose how to sweep over the modes ``free``."""
        ...

    def residual_norm(self, factors: Sequence[Tensor]) -> float:
        """Return ``||X - [[factors]]||`` computed from the residual itself."""
        ...


class DenseOperand:
    """A dense tensor, read in place whatever its strides.

    Parameters
    ----------
    x : Tensor
        Not copied: a permutation of a C-ordered tensor is walked in its own memory order; strided
        slices and half precision are lifted block by block.
    fused : Fused, optional
        The GPU's kernels, which read any strides and types as they are.
    """

    def __init__(self, x: Tensor, fused: Fused | None = None) -> None:
        self.shape = tuple(x.shape)
        self.dtype = compute_dtype(x.dtype)
        self.device = x.device
        self._order = tuple(by_stride(x))
        self._x = x.permute(self._order)
        self._trees: dict[Run, Node] = {}
        self._room: Tensor | None = None
        self.fused = fused
        self.squared_norm = float(norms.squared_norm(x))

    @property
    def place(self) -> Hashable:
        """Where the data lie, how, and what reads them: all that a recorded contraction has of it.

        Other data that are written there later are read instead.
        """
        x = self._x
        return x.data_ptr(), x.shape, x.stride(), x.dtype, x.device, self._order, self.fused

    def schedule(self, rank: int, free: Sequence[int]) -> Schedule:
        """Choose among the exact schedules by predicted time."""
        inverse = [self._order.index(n) for n in range(len(self._order))]
        return schedule_of(self._x.permute(inverse), rank, tuple(free), self.fused)

    def mttkrps(self, run: Run, factors: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield the MTTKRPs of a run from one contraction of the tensor."""
        tree = self._trees.get(run)
        if tree is None:
            tree = self._trees[run] = contraction_tree(self._order, run, self.shape)
        # A run that begins before this one has ended finds no room and gets its own.
        room, self._room = self._room, None
        if self.fused is None:
            room = room_for(tree, factors, room)
            yield from tree.contract(self._x, factors, room)
        else:
            given = {at: factors[n] for at, n in enumerate(self._order) if n not in run}
            partial = self.fused.contract(self._x, given, factors[0].shape[1])
            yield from tree.mttkrps(partial, factors, self.fused.contract_partial)
        self._room = room

    def residual_norm(self, factors: Sequence[Tensor]) -> float:
        """Return the exact residual norm, in double precision where less is too coarse."""
        return self.residual_norms([factors])[0]

    def residual_norms(
        self, models: Sequence[Sequence[Tensor]], double: bool = False
    ) -> list[float]:
        """Return the same of several models, in double precision throughout if asked for.

        Plain torch reads the tensor once for all of them.
        """
        ordered = [[factors[mode] for mode in self._order] for factors in models]
        found = self._residual_norms(ordered, double)
        floor = 100 * precision_floor(self.dtype) * math.sqrt(self.squared_norm)
        coarse = [at for at, norm in enumerate(found) if norm < floor]
        if coarse and not double and self.dtype != solve_dtype(self.dtype):
            again = self._residual_norms([ordered[at] for at in coarse], double=True)
            for at, norm in zip(coarse, again, strict=True):
                found[at] = norm
        return found

    def inner_products(self, factors: Sequence[Tensor]) -> Tensor:
        """Return the tensor's inner product with every component, in double precision."""
        return reconstruct.cp_inner_products(self._x, [factors[mode] for mode in self._order])

    def _residual_norms(
        self, models: Sequence[Sequence[Tensor]], double: bool = False
    ) -> list[float]:
        squares = [norms.squared_residual(self._x, ordered, double) for ordered in models]
        found = [math.sqrt(float(squared)) for squared in squares if squared is not None]
        if len(found) < len(models):
            return reconstruct.cp_residual_norms(self._x, models, double)
        return found


def room_for(tree: Node, factors: Sequence[Tensor], room: Tensor | None) -> Tensor:
    """Return memory for the first result of a run: ``room`` if that is large enough."""
    elements = tree.room * factors[0].shape[1]
    if room is None or room.numel() < elements:
        return factors[0].new_empty(elements)
    return room


def schedule_of(
    x: Tensor, rank: int, free: tuple[int, ...], fused: Fused | None = None
) -> Schedule:
    """Choose how to sweep over the modes ``free`` of a tensor, by predicted time."""
    order = tuple(by_stride(x))
    if fused is not None:
        return plan_fused(x.permute(order), fused, order, rank, free)
    return plan(tuple(x.shape), rank, free, compute_dtype(x.dtype).itemsize, axes=order)
