"""Small fits by the kernel in CUDA C++ that gives each tensor to a thread block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...precision import compute_dtype
from ...results import ConvergenceInfo
from ..als import concluded
from ..stopping import DivergenceWatch, diverging
from ..update import not_finite
from .operand import lifted

__all__ = ["fit", "reasons"]


def reasons(x: Tensor, shape: Sequence[int], rank: int, watched: bool, scaled: bool) -> list[str]:
    """Every reason why the kernel cannot fit tensors of ``shape`` out of ``x``; empty if it can.

    ``watched`` is whether somebody looks on from sweep to sweep, ``scaled`` whether each tensor has
    a weight ``l2_reg`` of its own, as those out of range have.
    """
    if x.device.type != "cuda":
        return [f"x is on {x.device}; the kernel that fits many small tensors runs on CUDA"]
    from ...cuda import cp_plan
    from ...kernels.devices import chip_of

    dtype = str(compute_dtype(x.dtype)).removeprefix("torch.")
    found = cp_plan.reasons(shape, rank, dtype, x.device.type, chip_of(x.device))
    if watched:
        found.append("callback or progress looks on; the kernel runs fits from beginning to end")
    if scaled:
        found.append("x is out of range, so that l2_reg differs from tensor to tensor")
    return found


def fit(
    x: Tensor,
    units: Tensor | None,
    rows: Sequence[Tensor],
    l2_reg: float,
    *,
    n_iter_max: int,
    tol: float,
    free: Sequence[int],
) -> list[ConvergenceInfo]:
    """Fit tensors ``x [B, ...]``; the starts ``rows``, by rows, become the results."""
    from ...cuda.cp_als import STATUSES, cp_als_small

    data = lifted(x, units)
    start = [r.mT.contiguous() for r in rows]
    options: dict[str, Any] = {"n_iter_max": n_iter_max, "tol": tol, "l2_reg": l2_reg}
    fits = cp_als_small(data, start, free=free, **options)
    for given, factor in zip(rows, fits.factors, strict=True):
        given.copy_(factor.mT)
    codes, ran = fits.status.tolist(), fits.sweeps.tolist()
    if STATUSES.index("not_finite") in codes:
        raise not_finite()
    errors, pairs = fits.errors.tolist(), _diverging(fits.components, ran)
    ends = zip(codes, errors, ran, fits.ridge.tolist(), pairs, strict=True)
    return [
        concluded(STATUSES[code], log[:sweeps], data.dtype, tol, ridge, pair)
        for code, log, sweeps, ridge, pair in ends
    ]


def _diverging(components: Tensor, sweeps: Sequence[int]) -> list[tuple[int, int, float] | None]:
    """Judge each by its components now and at the last two doublings before half of its sweeps.

    Of sweep ``2**k`` they are in place ``k % 3``, the last ones in place 3.
    """
    pairs: list[tuple[int, int, float] | None] = [None] * len(sweeps)
    doublings: dict[int, list[int]] = {}
    for at, ran in enumerate(sweeps):
        doublings.setdefault(ran.bit_length() - 1, []).append(at)
    for k, group in doublings.items():
        if DivergenceWatch.due(1 << max(0, k - 2)):
            some = components[torch.tensor(group, device=components.device)]
            past = some[:, (k - 2) % 3], some[:, (k - 1) % 3]
            for at, pair in zip(group, diverging(past, some[:, 3]), strict=True):
                pairs[at] = pair
    return pairs
