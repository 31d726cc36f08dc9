"""Where a batch of fits starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...batch import Stack
from ...blocks import SLAB, grain
from ...precision import compute_dtype, solve_dtype
from ...svd import generator, leading_subspace, sketch_pays
from ..init import OFF_SADDLE, check_name, given_factors
from .operand import lifted

__all__ = ["initial_rows"]

#: Tensors whose random numbers are drawn at once: always so many, that those of a tensor depend on
#: its place in the batch and not on how many there are.
DRAWN = 64


def initial_rows(
    op: str,
    x: Stack,
    units: Tensor | None,
    rank: int,
    init: Any,
    seed: int | torch.Generator | None,
    free: Sequence[int],
) -> list[Tensor]:
    """Return fresh starts by rows, ``[B, R, I_n]``, of the computing type.

    Random numbers are drawn tensor by tensor, in the order of the batch.
    """
    if not isinstance(init, str):
        given = given_factors(op, x.x, rank, init, free, x.batch)
        return [f.reshape(len(x), *f.shape[-2:]).mT.contiguous() for f in given]
    check_name(op, init)
    device, dtype, sizes = x.x.device, compute_dtype(x.dtype), x.shape
    rng = generator(op, seed, device)
    rows = [torch.empty(len(x), rank, size, dtype=dtype, device=device) for size in sizes]
    for lo in range(0, len(x), DRAWN):
        hi = min(lo + DRAWN, len(x))
        shape = DRAWN, rank, sum(sizes)
        drawn = torch.randn(shape, dtype=dtype, device=device, generator=rng)[: hi - lo]
        for n, part in enumerate(drawn.split(list(sizes), 2)):
            rows[n][lo:hi] = part / torch.linalg.vector_norm(part, dim=2, keepdim=True)
        if init == "svd":
            unit = None if units is None else units[lo:hi]
            _add_singular_vectors(x[lo:hi], unit, [part[lo:hi] for part in rows], rng)
    return rows


def _add_singular_vectors(
    x: Tensor, units: Tensor | None, rows: Sequence[Tensor], rng: torch.Generator
) -> None:
    """Turn random columns into the leading singular vectors, moved a little, and random ones."""
    rank = rows[0].shape[1]
    step = max(1, grain(SLAB, x) // math.prod(x.shape[1:]))
    for lo in range(0, len(x), step):
        part = slice(lo, lo + step)
        tensors = lifted(x[part], None if units is None else units[part])
        # The first mode is solved for before it is ever used.
        for n in range(1, tensors.ndim - 1):
            k = min(rank, tensors.shape[n + 1])
            start = rows[n][part]
            start *= OFF_SADDLE
            start[:, k:] /= OFF_SADDLE
            if sketch_pays(tensors[0], n, k):
                found = [leading_subspace(one, n, k, rng).t() for one in tensors]
                start[:, :k] += torch.stack(found)
            else:
                start[:, :k] += _leading(tensors, n, k)


def _leading(x: Tensor, mode: int, count: int) -> Tensor:
    """Leading left singular vectors of an unfolding of each tensor, as rows, by Gram matrices."""
    unfolded = x.movedim(mode + 1, 1).flatten(2).to(solve_dtype(x.dtype))
    _, vectors = torch.linalg.eigh(torch.bmm(unfolded, unfolded.mH))
    return vectors.flip(-1)[..., :count].mT.to(x.dtype)
