"""Two exact ALS updates in one read of the data: the one-pass schedule.

Cut ``x`` along a mode ``i``. The rows of the MTTKRP of ``i`` that belong to a slab depend on
nothing outside it, and neither does their least-squares update, whose normal matrix comes from the
other modes. So the slab can be contracted once, the rows of ``A_i`` updated, and the *new* rows
used at once to contract the same partial result towards the modes that come next. Columns may be
normalised afterwards: that is a diagonal scaling.

For three modes the passes ``(0, 1), (2, 0), (1, 2)`` make two sweeps in three reads, like the
multi-sweep dimension tree, and no partial result leaves the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..blocks import SLAB, by_stride
from .tree import contraction_tree

__all__ = ["SlabPass", "slab_pass"]

#: Bytes that memory hands over at once, and so the least thickness of a slab along the fastest
#: mode. Float32, 400^3, R 16, one core, slabs of 2^20 elements: 74 ms in slabs 16 thick, 188 in
#: slabs 6 thick.
LINE = 64


class SlabPass(NamedTuple):
    """What one read gives.

    Attributes
    ----------
    factor, mttkrp : Tensor
        The new factor of the mode that was cut, and the MTTKRP it solves for, both ``[I, R]``.
    partial : Tensor
        ``x`` contracted to the group with the new factor, ``[modes ..., R]`` in the order of the
        memory of ``x``, the slowest first, in whatever order the group was given: as it is made,
        and as a dimension tree goes on with it. Of a single mode, its MTTKRP.
    """

    factor: Tensor
    mttkrp: Tensor
    partial: Tensor


def slab_pass(
    x: Tensor,
    factors: Sequence[Tensor],
    mode: int,
    group: Sequence[int],
    solve: Callable[[Tensor, Tensor], Tensor],
    elements: int = SLAB,
) -> SlabPass:
    """Update the factor of ``mode``, then contract ``x`` to the modes ``group`` with the new one.

    2 numel(x) R flops and one read of ``x``, whatever its strides. Made for the slowest mode in
    memory, along which slabs lie in one piece; along the others they are gathered. (CPU time,
    float32, 400^3, one thread, along the slowest, middle and fastest mode. R 16: 32, 45 and 74 ms,
    two MTTKRPs 35 to 52. R 64: 56, 99 and 187 ms, two MTTKRPs 105 to 150.)

    Parameters
    ----------
    x : Tensor
    factors : sequence of Tensor
        All current; not modified.
    mode : int
        The mode to cut along and to update.
    group : sequence of int
        Modes to be updated next, from ``partial``. At least one mode is neither here nor ``mode``.
    solve : callable
        Rows of the MTTKRP and the current rows -> new rows, each by itself.
    elements : int
        Elements of a slab, about.

    Returns
    -------
    SlabPass

    Raises
    ------
    ValueError
        If ``mode`` and ``group`` are not different modes, or no mode is left to contract with
        before the update.
    """
    _check(x.ndim, mode, group)
    axes, (size, rank) = by_stride(x), factors[mode].shape
    kept = [n for n in axes if n == mode or n in group]
    to_kept = contraction_tree(axes, (mode, *group), x.shape)
    to_mode = contraction_tree(kept, (mode,), x.shape)
    to_group = contraction_tree(kept, tuple(group), x.shape)
    data, at = x.permute(axes), axes.index(mode)
    least = LINE // x.element_size() if at == x.ndim - 1 else 1
    step = max(least, elements * size // x.numel())
    local = list(factors)
    rows: list[Tensor] = []
    products: list[Tensor] = []
    partial = factors[mode].new_zeros(*(x.shape[n] for n in kept if n != mode), rank)
    for slab, old in zip(data.split(step, at), factors[mode].split(step), strict=True):
        y = to_kept.from_data(slab, local)
        products.append(to_mode.from_partial(y, local))
        local[mode] = solve(products[-1], old)
        rows.append(local[mode])
        partial += to_group.from_partial(y, local)
    return SlabPass(torch.cat(rows), torch.cat(products), partial)


def _check(ndim: int, mode: int, group: Sequence[int]) -> None:
    given, kept = f"slab_pass: mode {mode} and group {tuple(group)}", {mode, *group}
    if not group:
        raise ValueError("slab_pass: group is empty; expected at least one mode")
    if len(kept) <= len(group) or not kept <= set(range(ndim)):
        raise ValueError(f"{given} for x with {ndim} modes; expected different modes of x")
    if len(kept) == ndim:
        raise ValueError(f"{given} are all {ndim} modes of x; expected at least one besides")
