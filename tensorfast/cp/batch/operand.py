"""What the batched engine asks of its data: a chunk of dense tensors that is worked on together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from ... import reconstruct
from ...batch import squared_norms
from ...blocks import SLAB, by_stride, grain, middle
from ...precision import compute_dtype, precision_floor, solve_dtype
from ..plan import Machine, plan
from ..schedule import Run, Schedule
from ..tree import Node, contraction_tree
from .contract import contract_data, contract_partial, distances

__all__ = ["BATCHED", "BatchOperand", "lifted", "schedule_of"]

#: Rates of contractions in batches: matrix products of small matrices, data that stay in cache, and
#: calls that are shared by many tensors. Measured on two cores of a server CPU, float32, 1000 x
#: 16^3 and 200 x 40 x 30 x 20.
BATCHED = Machine(
    flops=1.2e11, batched_flops=6e10, bandwidth=1e11, partial_bandwidth=2.5e10, call=1e-7
)


class BatchOperand:
    """Dense tensors of one shape, ``x [B, I_0, ..., I_{N-1}]``.

    Parameters
    ----------
    x : Tensor
        Walked in its own memory order, the batch axis apart, and copied only where matrix products
        cannot take it as it lies: strided slices, half precision, a batch axis that is not the
        slowest.
    units : Tensor, [B], or None
        The tensors are divided by the N-th power of these.
    """

    def __init__(self, x: Tensor, units: Tensor | None = None) -> None:
        self.shape = tuple(x.shape[1:])
        self.dtype = compute_dtype(x.dtype)
        self.device = x.device
        self._order = tuple(by_stride(x[0]))
        axes = [0, *(n + 1 for n in self._order)]
        self._x = lifted(x.permute(axes), units)
        self._trees: dict[Run, Node] = {}
        self.squared_norms = squared_norms(self._x)

    def __len__(self) -> int:
        return len(self._x)

    def schedule(self, rank: int, free: Sequence[int]) -> Schedule:
        """Choose among the exact schedules by predicted time."""
        return schedule_of(self.shape, rank, tuple(free), self.dtype.itemsize, self._order)

    def mttkrps(self, run: Run, factors: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(mode, mttkrp)`` for each mode of a run from one contraction of the tensors.

        MTTKRPs are ``[B, R, I_n]`` as the factors are.
        """
        tree = self._trees.get(run)
        if tree is None:
            tree = self._trees[run] = contraction_tree(self._order, run, self.shape)
        first, *others = tree.contractions
        partial = contract_data(self._x, first.lo, first.hi, [factors[m] for m in first.modes])
        for step in others:
            given = [factors[mode] for mode in step.modes]
            partial = contract_partial(partial, step.lo, step.hi, given)
        yield from tree.mttkrps(partial, factors, contract_partial)

    def residual_norms(self, factors: Sequence[Tensor], index: Tensor) -> Tensor:
        """Return the exact residual norms of some, in double precision where less is too coarse."""
        whole = len(index) == len(self)
        x = self._x if whole else self._x[index]
        ordered = [factors[mode] if whole else factors[mode][index] for mode in self._order]
        if math.prod(self.shape) > grain(SLAB, x):
            # Too large to form models whole.
            each = zip(x, zip(*ordered, strict=True), strict=True)
            return self.squared_norms.new_tensor([self._norm_of_one(*pair) for pair in each])
        cut = middle(x.shape[1:])
        found = distances(x, ordered, cut)
        wide = solve_dtype(self.dtype)
        if wide != self.dtype:
            coarse = found < self._fine(self.squared_norms[index])
            if coarse.any():
                again = [rows[coarse].to(wide) for rows in ordered]
                found[coarse] = distances(x[coarse], again, cut)
        return found

    def _fine(self, squared_norms: Tensor) -> Tensor:
        """Residual norms that the computing type gives well."""
        return 100 * precision_floor(self.dtype) * squared_norms.sqrt()

    def _norm_of_one(self, x: Tensor, rows: Sequence[Tensor]) -> float:
        ordered = [row.t() for row in rows]
        norm = reconstruct.cp_residual_norm(x, ordered)
        if norm < float(self._fine(squared_norms(x[None]))):
            return reconstruct.cp_residual_norm(x, ordered, double=True)
        return norm

    def keep(self, index: Tensor) -> None:
        """Go on with these tensors only, which are copied."""
        self._x = self._x[index]
        self.squared_norms = self.squared_norms[index]


def lifted(x: Tensor, units: Tensor | None) -> Tensor:
    """Return ``x [B, ...]`` as matrix products take it, divided by the N-th power of ``units``.

    What lies so, each tensor in C order and of a computing type, is not copied.
    """
    dtype = compute_dtype(x.dtype)
    if units is not None:
        divisor = units.to(dtype).view(-1, *[1] * (x.ndim - 1))
        for _ in range(x.ndim - 1):
            x = x.to(dtype) / divisor
    return x.to(dtype) if x[0].is_contiguous() else x.to(dtype).contiguous()


def schedule_of(
    shape: tuple[int, ...], rank: int, free: tuple[int, ...], itemsize: int, order: tuple[int, ...]
) -> Schedule:
    """Choose how to sweep over the modes ``free`` of each tensor of a batch."""
    return plan(shape, rank, free, itemsize, BATCHED, order)
