"""Decompositions of a convolution that make the error of its output small, on inputs given.

The error of a kernel counts where inputs are. So the input channels are whitened before the kernel
is decomposed: directions with little variance may be wrong. What comes after the first convolution
is then a regression of the true output on what that lets through, and its best solution of a given
rank is known in closed form. With a bias, means are predicted apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..tucker import hooi
from . import kernels
from .layers import Convolution, Stage, assemble
from .moments import Moments, moments_of, roots

__all__ = ["cp", "linear", "pointwise", "tucker2"]

Fit = tuple[list[Stage], Tensor | None]


def tucker2(
    conv: Convolution,
    kernel: Tensor,
    ranks: tuple[int, int],
    inputs: Sequence[Tensor],
    **options: Any,
) -> Fit:
    """Tucker-2: channels reduced by HOOI of the whitened kernel, the rest by regression."""
    groups, outputs, channels, *taps = kernel.shape
    first, second = ranks
    second = min(second, channels, outputs * math.prod(taps))
    first = min(first, outputs, second * math.prod(taps))
    before = []
    if second < channels:
        root, inverse = _whitening(inputs, groups, conv.bias is not None, kernel)
        white = torch.einsum("goi...,gij->goj...", kernel, root)
        wide = (first, second, math.prod(taps))
        right = [hooi(each.flatten(2), wide, **options).factors[1] for each in white]
        bases, _ = torch.linalg.qr(inverse @ torch.stack(right))
        before = [Stage("reduce", kernels.with_taps(bases.mT.flatten(0, 1), len(taps)), groups)]
    patches = torch.eye(second * math.prod(taps), dtype=kernel.dtype, device=kernel.device)
    patches = patches.view(-1, second, *taps).repeat(groups, *[1] * (len(taps) + 1))
    found = _moments(conv, [*before, Stage("core", patches, groups)], inputs, groups)
    left, right_hand = found.reduced(first)
    bias = _bias(conv, found, left @ right_hand)
    if first == outputs:
        left, right_hand = left[..., :0], left @ right_hand
    core = right_hand.unflatten(2, (second, *taps)).flatten(0, 1).to(kernel.dtype)
    after = []
    if first < outputs:
        expand = kernels.with_taps(left.flatten(0, 1).to(kernel.dtype), len(taps))
        after = [Stage("expand", expand, groups)]
    return [*before, Stage("core", core, groups), *after], bias


def cp(
    conv: Convolution, kernel: Tensor, rank: int, inputs: Sequence[Tensor], **options: Any
) -> Fit:
    """CP of the whitened kernel; the last factor is then a regression."""
    groups, _, channels, *taps = kernel.shape
    white, inverse = kernel, None
    if channels > 1:
        root, inverse = _whitening(inputs, groups, conv.bias is not None, kernel)
        white = torch.einsum("goi...,gij->goj...", kernel, root)
    *before, _ = kernels.cp(white, rank, conv.stride, **options)
    if inverse is not None:
        reduce = before[0].weight.flatten(1).unflatten(0, (groups, -1)) @ inverse
        before[0] = Stage("reduce", kernels.with_taps(reduce.flatten(0, 1), len(taps)), groups)
    found = _moments(conv, before, inputs, groups)
    left, right = found.reduced(found.y.shape[1])
    expand = left @ right
    stage = Stage("expand", kernels.with_taps(expand.flatten(0, 1), len(taps)), groups)
    return [*before, stage], _bias(conv, found, expand)


def pointwise(conv: Convolution, kernel: Tensor, rank: int, inputs: Sequence[Tensor]) -> Fit:
    """Two convolutions without taps: the regression of the output on the input."""
    groups, outputs, channels, *taps = kernel.shape
    same = torch.eye(channels, dtype=kernel.dtype, device=kernel.device).repeat(groups, 1)
    found = _moments(
        conv, [Stage("reduce", kernels.with_taps(same, len(taps)), groups)], inputs, groups
    )
    left, right = found.reduced(min(rank, outputs, channels))
    stages = [
        Stage(name, kernels.with_taps(each.flatten(0, 1).to(kernel.dtype), len(taps)), groups)
        for name, each in (("reduce", right), ("expand", left))
    ]
    return stages, _bias(conv, found, left @ right)


def linear(layer: nn.Linear, rank: int, inputs: Iterable[Tensor]) -> Fit:
    """Two linear layers: the regression of the output on the input."""

    def flat(a: Tensor) -> Tensor:
        return a.reshape(-1, a.shape[-1])

    pairs = ((flat(x), flat(layer(x))) for x in inputs)
    found = moments_of(pairs, 1, layer.bias is not None)
    left, right = found.reduced(rank)
    dtype = layer.weight.dtype
    stages = [Stage("reduce", right[0].to(dtype), 1), Stage("expand", left[0].to(dtype), 1)]
    bias = None if layer.bias is None else found.shift(left @ right)[0].to(dtype)
    return stages, bias


def _whitening(
    inputs: Iterable[Tensor], groups: int, centred: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the root of the covariance of the input channels, and its inverse."""
    found = moments_of(((x, x) for x in inputs), groups, centred)
    root, inverse = roots(found.zz)
    return root.to(like.dtype), inverse.to(like.dtype)


def _moments(
    conv: Convolution, stages: Sequence[Stage], inputs: Iterable[Tensor], groups: int
) -> Moments:
    """Return the moments of what the stages let through, with what ``conv`` gives."""
    through = assemble(conv, stages, None)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for x in inputs:
            yield through(x), conv(x)

    return moments_of(pairs(), groups, conv.bias is not None)


def _bias(conv: Convolution, found: Moments, prediction: Tensor) -> Tensor | None:
    """Return the bias that goes with a prediction, if there is one."""
    return None if conv.bias is None else found.shift(prediction).flatten().to(conv.bias.dtype)
