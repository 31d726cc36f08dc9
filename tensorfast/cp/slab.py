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

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import baseline
from .tree import contraction_tree

__all__ = ["SlabPass", "slab_pass"]


class SlabPass(NamedTuple):
    """What one read gives: the new factor, its MTTKRP, and the partial result of the group."""

    factor: Tensor
    mttkrp: Tensor
    partial: Tensor


def slab_pass(
    x: Tensor,
    factors: Sequence[Tensor],
    mode: int,
    group: Sequence[int],
    solve: Callable[[Tensor, Tensor], Tensor],
    elements: int = baseline.SLAB,
) -> SlabPass:
    """Update the factor of ``mode``, then contract ``x`` to the modes ``group`` with the new one.

    Parameters
    ----------
    x : Tensor
    factors : sequence of Tensor
        All current; not modified.
    mode, group : int, sequence of int
        Updated in the read; still to be updated, from ``partial``.
    solve : callable
        Rows of the MTTKRP and the current rows -> new rows.
    elements : int
        Of a slab.

    Returns
    -------
    SlabPass
        ``partial [modes of the group in memory order ..., R]``; of a single mode, its MTTKRP.
    """
    axes, sizes = baseline.by_stride(x), x.shape
    kept = [n for n in axes if n == mode or n in group]
    to_kept = contraction_tree(axes, (mode, *group), sizes)
    to_mode = contraction_tree(kept, (mode,), sizes)
    to_group = contraction_tree(kept, tuple(group), sizes)
    data, at = x.permute(axes), axes.index(mode)
    local = list(factors)
    products: list[Tensor] = []
    rows: list[Tensor] = []
    partials: list[Tensor] = []
    step = max(1, elements * sizes[mode] // math.prod(sizes))
    for start in range(0, sizes[mode], step):
        old = factors[mode][start : start + step]
        local[mode] = old
        y = to_kept.from_data(data.narrow(at, start, len(old)), local)
        product = to_mode.from_partial(y, local)
        local[mode] = solve(product, old)
        part = to_group.from_partial(y, local)
        partials = [partials[0].add_(part)] if partials else [part]
        products.append(product)
        rows.append(local[mode])
    return SlabPass(torch.cat(rows), torch.cat(products), partials[0])
