"""Convolutions in a row that together do what one does: their shapes, strides and padding.

A decomposed kernel becomes a few convolutions, each with some of the spatial axes. Stride, padding
and dilation of an axis go to the one that has it; an axis of length 1 that no one has, to the first
that is spatial at all. That is exact for every padding mode: padding with zeros, with the border or
with a mirror image commutes with what mixes channels only, and axes are padded one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CONVOLUTIONS", "Convolution", "Stage", "assemble", "assemble_linear", "composed"]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Stage:
    """One of the convolutions.

    Attributes
    ----------
    name : str
        Under which the result has it.
    weight : Tensor, [out, in / groups, *kernel]
    groups : int
    """

    name: str
    weight: Tensor
    groups: int

    @property
    def axes(self) -> tuple[int, ...]:
        """Spatial axes that it has."""
        return tuple(n for n, size in enumerate(self.weight.shape[2:]) if size > 1)


def assemble(conv: Convolution, stages: Sequence[Stage], bias: Tensor | None) -> nn.Sequential:
    """Return the stages as modules, with the geometry of ``conv``, its type and place.

    Parameters
    ----------
    conv : nn.Conv1d, nn.Conv2d or nn.Conv3d
    stages : sequence of Stage
        In the order in which they run.
    bias : Tensor, [out], or None
        Of the last.

    Returns
    -------
    nn.Sequential
    """
    dimension = len(conv.kernel_size)
    homes = _homes(stages, dimension)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for at, stage in enumerate(stages):
        own = [n for n in range(dimension) if homes[n] == at]
        last = at == len(stages) - 1
        modules[stage.name] = _module(conv, stage, own, bias if last else None)
    return nn.Sequential(modules).train(conv.training)


def assemble_linear(
    linear: nn.Linear, stages: Sequence[Stage], bias: Tensor | None
) -> nn.Sequential:
    """Return the stages as linear layers, of the type of ``linear`` and in its place."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for stage in stages:
        own = bias if stage is stages[-1] else None
        outputs, inputs = stage.weight.shape[:2]
        kind = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        module = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=own is not None, **kind)
        modules[stage.name] = _filled(module, stage.weight, own, linear)
    return nn.Sequential(modules).train(linear.training)


def _filled(module: Any, weight: Tensor, bias: Tensor | None, like: Any) -> nn.Module:
    """Give a module its weight and bias, trained if those of ``like`` are."""
    with torch.no_grad():
        module.weight.copy_(weight)
        module.weight.requires_grad_(like.weight.requires_grad)
        if bias is not None:
            module.bias.copy_(bias)
            module.bias.requires_grad_(like.bias.requires_grad)
    return module


def _homes(stages: Sequence[Stage], dimension: int) -> list[int]:
    """Return for each axis which stage has its stride and padding."""
    spatial = next((at for at, stage in enumerate(stages) if stage.axes), 0)
    having = ([at for at, stage in enumerate(stages) if n in stage.axes] for n in range(dimension))
    return [at[0] if at else spatial for at in having]


def _module(conv: Convolution, stage: Stage, axes: Sequence[int], bias: Tensor | None) -> nn.Module:
    """Make one of the convolutions, which has the geometry of these axes."""

    def own(values: Sequence[int], others: int) -> tuple[int, ...]:
        return tuple(value if n in axes else others for n, value in enumerate(values))

    padding = conv.padding if isinstance(conv.padding, str) else own(conv.padding, 0)
    kind = next(kind for kind in CONVOLUTIONS if isinstance(conv, kind))
    module = nn.utils.skip_init(
        kind,
        stage.weight.shape[1] * stage.groups,
        stage.weight.shape[0],
        tuple(stage.weight.shape[2:]),
        stride=own(conv.stride, 1),
        padding=padding,
        dilation=own(conv.dilation, 1),
        groups=stage.groups,
        bias=bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    return _filled(module, stage.weight, bias, conv)


def composed(layer: nn.Module) -> Tensor:
    """Return the weight of a layer, or that which a sequence of them makes up, in float64.

    ``[out, in / groups, *taps]``, with the groups of the layer with the fewest; stages have
    different spatial axes, as those of a decomposition do.
    """
    stages = [m for m in layer.modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))]
    groups = min(getattr(stage, "groups", 1) for stage in stages)
    total = _dense(stages[0], groups)
    for stage in stages[1:]:
        # Axes that both have, of which one has one tap.
        total = torch.einsum("goc...,gci...->goi...", _dense(stage, groups), total)
    return total.flatten(0, 1)


def _dense(stage: nn.Module, groups: int) -> Tensor:
    """Return the weight ``[groups, out, in, *taps]`` of a layer with more groups than that."""
    weight: Any = stage.weight
    own: Tensor = weight.detach().to(torch.float64).unflatten(0, (groups, -1))
    parts = int(getattr(stage, "groups", 1)) // groups
    if parts == 1:
        return own
    each = own.unflatten(1, (parts, -1))
    outputs, inputs = each.shape[2:4]
    full = own.new_zeros(groups, parts, outputs, parts, inputs, *own.shape[3:])
    at = torch.arange(parts)
    full[:, at, :, at] = each.movedim(1, 0)
    return full.flatten(3, 4).flatten(1, 2)
