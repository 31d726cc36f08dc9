"""Outputs of decomposed layers with the mean and the spread of the original's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .report import LAYERS, layers_of
from .watch import batches_of, evaluating, run, watching

__all__ = ["match_outputs"]


def match_outputs(compressed: nn.Module, original: nn.Module, inputs: Any) -> nn.Module:
    r"""Scale and shift the output channels of decomposed layers to the original's mean and spread.

    ``y'_c -> (y'_c - mean(y'_c)) std(y_c) / std(y'_c) + mean(y_c)``, folded into weight and bias of
    the last part of each layer; of a layer without bias ``y'_c rms(y_c) / rms(y'_c)``. One layer
    after another, in the order in which they run, as each changes what those behind it are given.

    Parameters
    ----------
    compressed : nn.Module
        With `nn.Sequential` in place of some layers, as `compress` returns it. Changed in place.
    original : nn.Module
        Of the same names. Not modified.
    inputs : Tensor, tuple or list of them
        What to run both with; a tuple are the arguments of one call, a list several calls.

    Returns
    -------
    nn.Module
        ``compressed``.

    Raises
    ------
    ValueError
        If no input is given.

    Notes
    -----
    It restores the range of values, not the values: the relative error of a map can grow by it, as
    the best approximation is one of less spread. Where a BatchNorm follows, `recalibrate_batchnorm`
    does the same behind the layer.

    Examples
    --------
    >>> import torch
    >>> from tensorfast.nn import decompose_conv
    >>> conv, x = nn.Conv2d(8, 8, 3), torch.randn(4, 8, 9, 9)
    >>> small = match_outputs(decompose_conv(conv, 2), conv, x)
    >>> torch.allclose(small(x).std((0, 2, 3)), conv(x).std((0, 2, 3)), rtol=1e-4)
    True
    """
    calls = batches_of("match_outputs", inputs)
    before = layers_of(original)
    changed = {name: compressed.get_submodule(name) for name in before}
    changed = {name: m for name, m in changed.items() if isinstance(m, nn.Sequential)}
    with evaluating(original, compressed):
        order: dict[str, _Channels] = {}
        wanted = _channels({name: before[name] for name in changed}, original, calls, order)
        for name in order:
            own = _channels({name: changed[name]}, compressed, calls, {})
            _fold(changed[name], own[name], wanted[name])
    return compressed


class _Channels:
    """Adds up mean and mean square of each channel."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Tensor] = []

    def add(self, out: Tensor, mode: int) -> None:
        """Look at an output with the channels in a mode."""
        rows = out.movedim(mode, 0).flatten(1).to(torch.float64)
        parts = [rows.sum(1), rows.square().sum(1)]
        self._sums = (
            [a + b for a, b in zip(self._sums, parts, strict=True)] if self._sums else parts
        )
        self._count += rows.shape[1]

    @property
    def mean(self) -> Tensor:
        """Mean of each channel."""
        return self._sums[0] / self._count

    @property
    def rms(self) -> Tensor:
        """Root of the mean square of each channel."""
        return (self._sums[1] / self._count).sqrt()

    @property
    def std(self) -> Tensor:
        """Standard deviation of each channel."""
        return (self.rms.square() - self.mean.square()).clamp(min=0).sqrt()


def _channels(
    layers: dict[str, nn.Module],
    model: nn.Module,
    calls: list[tuple[Any, ...]],
    found: dict[str, _Channels],
) -> dict[str, _Channels]:
    """Run a model, and add up what layers give, in the order in which they run."""

    def see(name: str, _: Any, out: Tensor) -> None:
        mode = -1 if isinstance(_last(layers[name]), nn.Linear) else 1
        found.setdefault(name, _Channels()).add(out, mode)

    with watching(layers, see):
        run(model, calls)
    return found


def _last(layer: nn.Module) -> Any:
    return [m for m in layer.modules() if isinstance(m, LAYERS)][-1]


def _fold(layer: nn.Module, own: _Channels, wanted: _Channels) -> None:
    last = _last(layer)
    with_bias = last.bias is not None
    one, other = (own.std, wanted.std) if with_bias else (own.rms, wanted.rms)
    # A channel that is constant has no spread to scale.
    scale = torch.where(one > 0, other / one, torch.ones_like(one))
    last.weight.mul_(scale.view(-1, *[1] * (last.weight.ndim - 1)))
    if with_bias:
        last.bias.copy_((last.bias - own.mean) * scale + wanted.mean)
