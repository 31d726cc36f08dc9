"""A sweep of orthogonal iteration: what each mode's factor is improved with, and how."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..ops import direct
from ..ops.small import eigenvectors, orthonormal
from ..precision import solve_dtype

__all__ = ["KRYLOV_STEPS", "improved", "projections", "runs", "sweeps_of_cycle", "trial_space"]

#: ``adjoint(x, factor, mode)``: ``x`` multiplied by the adjoint of a factor along a mode.
Adjoint = Callable[[Tensor, Tensor, int], Tensor]

#: Powers of a mode's small projected Gram matrix that extend the current factor to the space in
#: which the new one is sought. With two, an update is as good as an exact one.
KRYLOV_STEPS = 2


def adjoint_product(x: Tensor, factor: Tensor, mode: int) -> Tensor:
    """``x x_n U^H``."""
    return direct.ttm(x, factor, mode, transpose=True)


def projections(
    x: Tensor, factors: Sequence[Tensor], adjoint: Adjoint = adjoint_product
) -> Iterator[Tensor]:
    """Yield for mode after mode, for ever, ``x`` projected on the factors of all the others.

    The caller replaces the mode's factor before it asks for the next. The cyclic order of modes is
    cut into runs of N - 1, each served by ``x`` projected on the one factor that stays as it is.
    With the ``adjoint`` for it, ``x`` and the factors may have the axes of a batch before.
    """
    order = len(factors)
    for run in itertools.cycle(runs(order)):
        outside = [n for n in range(order) if n not in run]
        yield from _descend(_project(x, outside, factors, adjoint), run, factors, adjoint)


def runs(order: int) -> list[tuple[int, ...]]:
    """Cut the updates of so many modes into runs of all but one, as many as end with a sweep."""
    length = max(1, order - 1)
    cycle = itertools.cycle(range(order))
    return [tuple(itertools.islice(cycle, length)) for _ in range(order)]


def sweeps_of_cycle(order: int) -> int:
    """Return in how many sweeps these `runs` end."""
    return max(1, order - 1)


def _descend(
    x: Tensor, run: tuple[int, ...], factors: Sequence[Tensor], adjoint: Adjoint
) -> Iterator[Tensor]:
    if len(run) == 1:
        yield x
        return
    cut = len(run) // 2
    for half, other in ((run[:cut], run[cut:]), (run[cut:], run[:cut])):
        yield from _descend(_project(x, other, factors, adjoint), half, factors, adjoint)


def _project(
    x: Tensor, modes: Sequence[int], factors: Sequence[Tensor], adjoint: Adjoint
) -> Tensor:
    """Multiply by the adjoint factors of ``modes``, the one that shrinks most first."""
    for n in sorted(modes, key=lambda n: factors[n].shape[-1] / factors[n].shape[-2]):
        x = adjoint(x, factors[n], n)
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
