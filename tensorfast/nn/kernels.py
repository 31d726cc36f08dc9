"""Factors of a convolution kernel: Tucker-2, CP, and two matrices where it has one tap.

A kernel is ``[groups, out, in, *taps]`` here, each group decomposed by itself at the same rank.
What comes out are stages of convolutions (`layers`): ``reduce`` mixes input channels, ``core`` or
one stage an axis has the taps, ``expand`` mixes to output channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..cp import cp_als
from ..svd import truncated_svd
from ..tucker import hooi
from .layers import Stage

__all__ = ["cp", "exact_cp_rank", "pointwise", "tucker2", "with_taps"]


def tucker2(kernel: Tensor, ranks: tuple[int, int], **options: Any) -> list[Stage]:
    """``W[o, i, ...] ~ sum_ab U[o, a] G[a, b, ...] V[i, b]``: two or three convolutions.

    A mode whose rank is its size has no stage: its factor goes into the core.
    """
    groups, outputs, inputs, *taps = kernel.shape
    # More than the other mode and the taps can feed is not used.
    first, second = ranks
    first = min(first, outputs, second * math.prod(taps))
    second = min(second, inputs, first * math.prod(taps))
    if (first, second) == (outputs, inputs):
        return [Stage("core", kernel.flatten(0, 1), groups)]
    found = [_tucker2(each.flatten(2), first, second, **options) for each in kernel]
    core = torch.stack([c for c, _, _ in found]).unflatten(3, taps)
    left, right = (torch.stack([f[n] for f in found]) for n in (1, 2))
    stages = []
    if second < inputs:
        stages.append(Stage("reduce", with_taps(right.mT.flatten(0, 1), len(taps)), groups))
    stages.append(Stage("core", core.flatten(0, 1), groups))
    if first < outputs:
        stages.append(Stage("expand", with_taps(left.flatten(0, 1), len(taps)), groups))
    return stages


def _tucker2(x: Tensor, first: int, second: int, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the core ``[first, second, taps]`` and two factors of ``x [out, in, taps]``."""
    core, (left, right, across) = hooi(x, (first, second, x.shape[2]), **options)
    core = core @ across.mT
    # Of a mode that keeps its size the factor is a rotation.
    if first == x.shape[0]:
        core = torch.einsum("oa,abk->obk", left, core)
    if second == x.shape[1]:
        core = torch.einsum("ib,abk->aik", right, core)
    return core, left, right


def cp(kernel: Tensor, rank: int, strides: Sequence[int], **options: Any) -> list[Stage]:
    """``W[o, i, h, w] ~ sum_r U[o, r] V[i, r] A[h, r] B[w, r]``: one convolution a factor.

    Axes of one tap have none, and neither has an input mode of size 1. The axes with the longest
    strides go first, so that those after have fewer positions.
    """
    groups, _, inputs, *taps = kernel.shape
    dimension = len(taps)
    axes = sorted((n for n in range(dimension) if taps[n] > 1), key=lambda n: -strides[n])
    kept = [0, *([1] if inputs > 1 else []), *(n + 2 for n in axes)]
    order = [*kept, *(n for n in range(dimension + 2) if n not in kept)]
    squeezed = [each.permute(order).reshape([each.shape[n] for n in kept]) for each in kernel]
    found = [_cp(each, rank, **options) for each in squeezed]
    out, *others = (torch.stack(factors) for factors in zip(*found, strict=True))
    stages = []
    if inputs > 1:
        stages.append(Stage("reduce", with_taps(others.pop(0).mT.flatten(0, 1), dimension), groups))
    for n, factor in zip(axes, others, strict=True):
        shape = [groups * factor.shape[2], 1, *(taps[n] if m == n else 1 for m in range(dimension))]
        each = groups if not stages else shape[0]
        stages.append(Stage(f"axis{n}", factor.mT.reshape(shape), each))
    stages.append(Stage("expand", with_taps(out.flatten(0, 1), dimension), groups))
    return stages


def exact_cp_rank(shape: Sequence[int]) -> int:
    """Return a rank at which every tensor of a shape has a CP model, up to rounding."""
    return math.prod(shape) // max(shape)


def _cp(x: Tensor, rank: int, **options: Any) -> list[Tensor]:
    """Return the factors of a CP model, all components' lengths dealt evenly to them."""
    if rank >= exact_cp_rank(x.shape):
        return _unit_cp(x)
    weights, factors = cp_als(x, rank, **options)
    return [f * weights ** (1 / x.ndim) for f in factors]


def _unit_cp(x: Tensor) -> list[Tensor]:
    """Write ``x`` as a CP model: a component for each entry of all modes but the longest."""
    longest = max(range(x.ndim), key=lambda n: x.shape[n])
    others = [size for n, size in enumerate(x.shape) if n != longest]
    places = torch.unravel_index(torch.arange(math.prod(others), device=x.device), others)
    factors = [
        torch.nn.functional.one_hot(place, size).to(x.dtype).t()
        for place, size in zip(places, others, strict=True)
    ]
    factors.insert(longest, x.movedim(longest, 0).flatten(1))
    return factors


def pointwise(kernel: Tensor, rank: int) -> list[Stage]:
    """``W = U S V^T`` of a kernel with one tap: two convolutions, the root of S in each."""
    groups, outputs, inputs, *taps = kernel.shape
    rank = min(rank, outputs, inputs)
    found = [truncated_svd(each.flatten(1), rank) for each in kernel]
    expand = torch.stack([u * s.sqrt() for u, s, _ in found])
    reduce = torch.stack([s.sqrt()[:, None] * v for _, s, v in found])
    return [
        Stage("reduce", with_taps(reduce.flatten(0, 1), len(taps)), groups),
        Stage("expand", with_taps(expand.flatten(0, 1), len(taps)), groups),
    ]


def with_taps(matrix: Tensor, dimension: int) -> Tensor:
    """Give a matrix axes of one tap."""
    return matrix[(...,) + (None,) * dimension]
