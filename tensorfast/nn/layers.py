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

import torch
from torch import Tensor, nn

__all__ = ["CONVOLUTIONS", "Convolution", "Stage", "assemble"]

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
    with torch.no_grad():
        module.weight.copy_(stage.weight)
        if bias is not None:
            module.bias.copy_(bias)
    module.weight.requires_grad_(conv.weight.requires_grad)
    if module.bias is not None and conv.bias is not None:
        module.bias.requires_grad_(conv.bias.requires_grad)
    return module
