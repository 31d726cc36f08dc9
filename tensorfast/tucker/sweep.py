"""A sweep of orthogonal iteration: what each mode's factor is improved with, and how."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops import direct
from ..ops.small import eigenvectors, orthonormal
from ..precision import solve_dtype

__all__ = ["improved", "projections", "sweeps_of_cycle", "trial_space", "workspace"]

#: Powers of a mode's small projected Gram matrix that extend the current factor to the space in
#: which the new one is sought. With two, an update is as good as an exact one.
KRYLOV_STEPS = 2


def projections(x: Tensor, factors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield for mode after mode, for ever, ``x`` projected on the factors of all the others.

    The caller replaces the mode's factor before it asks for the next. The cyclic order of modes is
    cut into runs of N - 1, each served by ``x`` projected on the one factor that stays as it is.
    """
    order = itertools.cycle(range(x.ndim))
    while True:
        run = tuple(itertools.islice(order, max(1, x.ndim - 1)))
        outside = [n for n in range(x.ndim) if n not in run]
        yield from _descend(_project(x, outside, factors), run, factors)


def sweeps_of_cycle(order: int) -> int:
    """Return after how many sweeps over so many modes runs and sweeps end together."""
    return max(1, order - 1)


def _descend(x: Tensor, run: tuple[int, ...], factors: Sequence[Tensor]) -> Iterator[Tensor]:
    if len(run) == 1:
        yield x
        return
    cut = len(run) // 2
    for half, other in ((run[:cut], run[cut:]), (run[cut:], run[:cut])):
        yield from _descend(_project(x, other, factors), half, factors)


def _project(x: Tensor, modes: Sequence[int], factors: Sequence[Tensor]) -> Tensor:
    """Multiply by the adjoint factors of ``modes``, the one that shrinks most first."""
    for n in sorted(modes, key=lambda n: factors[n].shape[1] / factors[n].shape[0]):
        x = direct.ttm(x, factors[n], n, transpose=True)
    return x


def trial_space(size: int, rank: int) -> int:
    """Return the dimension of the space in which the new factor of a mode is sought."""
    return 0 if size == rank else min(size, (KRYLOV_STEPS + 1) * rank)


def improved(projected: Tensor, mode: int, factor: Tensor) -> Tensor:
    """Return leading left singular vectors of a projected tensor's unfolding ``Y``, in C order.

    Rayleigh-Ritz on the block Krylov space of ``Y Y^H`` that the current factor spans, or on all of
    the mode's space where that is no larger.
    """
    size, rank = factor.shape
    if size == rank:
        return factor
    rows = projected.movedim(mode, 0).reshape(size, -1)
    if trial_space(size, rank) == size:
        _, vectors = eigenvectors(direct.gram(rows, 0, solve_dtype(rows.dtype)))
        return vectors[:, :rank].to(factor.dtype).contiguous()
    blocks = [factor]
    for _ in range(KRYLOV_STEPS):
        blocks.append(orthonormal(rows @ (rows.mH @ blocks[-1])))
    basis = orthonormal(torch.cat(blocks, 1))
    _, vectors = eigenvectors(direct.gram(basis.mH @ rows, 0, solve_dtype(rows.dtype)))
    return (basis @ vectors[:, :rank].to(factor.dtype)).contiguous()


def workspace(sizes: Sequence[int], ranks: Sequence[int], itemsize: int) -> int:
    """Return bytes that a sweep takes besides ``x``, factors and core, about, and no less."""
    order = len(sizes)
    count, most = _Bytes(tuple(ranks), itemsize), 0
    for start in range(order):
        run = tuple((start + k) % order for k in range(max(1, order - 1)))
        outside = [n for n in range(order) if n not in run]
        made, left = count.projecting(sizes, outside)
        most = max(most, made, count.of(left) + count.descending(left, run))
    return most


class _Bytes(NamedTuple):
    """Counts what `projections` and `improved` have at once."""

    ranks: tuple[int, ...]
    itemsize: int

    def of(self, sizes: Sequence[int]) -> int:
        return self.itemsize * math.prod(sizes)

    def projecting(self, sizes: Sequence[int], modes: Sequence[int]) -> tuple[int, list[int]]:
        left, before, most = list(sizes), 0, 0
        for n in sorted(modes, key=lambda n: self.ranks[n] / sizes[n]):
            left[n] = self.ranks[n]
            before, most = self.of(left), max(most, before + self.of(left))
        return most, left

    def descending(self, sizes: Sequence[int], run: tuple[int, ...]) -> int:
        if len(run) == 1:
            return self.improving(sizes, run[0])
        cut, most = len(run) // 2, 0
        for half, other in ((run[:cut], run[cut:]), (run[cut:], run[:cut])):
            made, left = self.projecting(sizes, other)
            most = max(most, made, self.of(left) + self.descending(left, half))
        return most

    def improving(self, sizes: Sequence[int], mode: int) -> int:
        size, others = sizes[mode], math.prod(sizes) // sizes[mode]
        side = trial_space(size, self.ranks[mode])
        # The unfolding, a basis times it, and bases and squares in double precision.
        return self.of((size + side, others)) + 8 * (5 * size + 8 * side) * side
