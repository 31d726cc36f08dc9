"""What a decomposition did to a network: size, work, time, errors and value ranges, by layer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .layers import CONVOLUTIONS, composed
from .timing import medians
from .watch import batches_of, evaluating, run, watching

__all__ = ["LayerReport", "NetworkReport", "Range", "conv_report", "layers_of"]

LAYERS = (*CONVOLUTIONS, nn.Linear)


@dataclass(frozen=True)
class Range:
    """Values of a feature map: least, largest, mean and standard deviation."""

    min: float
    max: float
    mean: float
    std: float


@dataclass(frozen=True)
class LayerReport:
    """One layer; pairs are before and after.

    Attributes
    ----------
    name : str
    parameters, macs : (int, int)
        Multiply-adds are those of one input.
    seconds : (float, float)
        Median of a call with the inputs that it had.
    weight_error : float
        ``||W - W'|| / ||W||`` of the kernel that the layers make up.
    feature_error : float
        ``||Y - Y'|| / ||Y||`` of its output, inside the two networks.
    ranges : (Range, Range)
        Of its output, inside the two networks.
    """

    name: str
    parameters: tuple[int, int]
    macs: tuple[int, int]
    seconds: tuple[float, float]
    weight_error: float
    feature_error: float
    ranges: tuple[Range, Range]


@dataclass(frozen=True)
class NetworkReport:
    """All layers, and the network as a whole; prints as a table.

    Attributes
    ----------
    layers : tuple of LayerReport
    parameters, macs : (int, int)
    seconds : (float, float)
        Median of a call of the network.
    output_error : float
        ``||Y - Y'|| / ||Y||`` of its output; NaN where that is no tensor.
    """

    layers: tuple[LayerReport, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    seconds: tuple[float, float]
    output_error: float

    def __str__(self) -> str:
        head = f"{'layer':24} {'parameters':>19} {'MACs':>23} {'ms':>15} {'weight':>7} {'map':>7}"
        rows = [head + f" {'range before':>20} {'std':>8} {'range after':>20} {'std':>8}"]
        for layer in self.layers:
            ranges = (f"{f'{r.min:.3g} to {r.max:.3g}':>20} {r.std:8.3g}" for r in layer.ranges)
            rows.append(
                f"{layer.name:24} {_pair(layer.parameters, 9, ',d')} "
                f"{_pair(layer.macs, 11, ',d')} {_ms(layer.seconds)} "
                f"{layer.weight_error:7.4f} {layer.feature_error:7.4f} {' '.join(ranges)}"
            )
        rows.append(
            f"{'network':24} {_pair(self.parameters, 9, ',d')} {_pair(self.macs, 11, ',d')} "
            f"{_ms(self.seconds)} {'':7} {self.output_error:7.4f}"
        )
        return "\n".join(rows)

    def plot(self) -> Any:
        """Draw errors and value ranges by layer; returns a matplotlib figure.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "plot: matplotlib is not installed; pip install matplotlib"
            ) from error
        figure = Figure(figsize=(9, 6), layout="constrained")
        errors, ranges = figure.subplots(2, 1, sharex=True)
        places, names = range(len(self.layers)), [layer.name for layer in self.layers]
        errors.plot(places, [layer.weight_error for layer in self.layers], "o-", label="weight")
        errors.plot(
            places, [layer.feature_error for layer in self.layers], "s-", label="feature map"
        )
        errors.set_ylabel("relative error")
        errors.legend()
        for which, (label, aside) in enumerate((("before", -0.1), ("after", 0.1))):
            found = [layer.ranges[which] for layer in self.layers]
            at = [place + aside for place in places]
            mean = [r.mean for r in found]
            ranges.errorbar(at, mean, [r.std for r in found], fmt="o", capsize=4, label=label)
            ranges.vlines(at, [r.min for r in found], [r.max for r in found], alpha=0.3)
        ranges.set_ylabel("values: mean, std, range")
        ranges.set_xticks(list(places), names, rotation=45, ha="right")
        ranges.legend()
        return figure


def _ms(seconds: Iterable[float]) -> str:
    return _pair([1e3 * s for s in seconds], 7, ".3f")


def _pair(values: Iterable[float], width: int, form: str) -> str:
    return " ".join(f"{value:{width}{form}}" for value in values)


def conv_report(original: nn.Module, compressed: nn.Module, inputs: Any) -> NetworkReport:
    """Compare a network with a compressed copy of it, layer by layer.

    Parameters
    ----------
    original, compressed : nn.Module
        With the same names; what `compress` returns, or one whose layers were replaced by hand.
        Or a layer and its decomposition.
    inputs : Tensor, tuple or list of them
        What to run both with; a tuple are the arguments of one call, a list several calls.

    Returns
    -------
    NetworkReport
        Of every convolution and linear layer of ``original`` that ran.

    Raises
    ------
    ValueError
        If no input is given, or ``compressed`` lacks a layer's name.

    Notes
    -----
    Both run in evaluation mode, without gradients, where they are. Times are medians of 20 calls of
    the two in turns, fewer where that takes long.

    Examples
    --------
    >>> import torch
    >>> from tensorfast.nn import decompose_conv
    >>> conv = torch.nn.Conv2d(8, 8, 3)
    >>> report = conv_report(conv, decompose_conv(conv, 4), torch.ones(1, 8, 5, 5))
    >>> report.layers[0].macs
    (5184, 2384)
    """
    op = "conv_report"
    calls = batches_of(op, inputs)
    before = layers_of(original)
    try:
        after = {name: compressed.get_submodule(name) for name in before}
    except AttributeError as error:
        raise ValueError(f"{op}: compressed lacks a layer of original: {error}") from error
    with evaluating(original, compressed):
        maps = {name: _Comparison() for name in before}
        given: dict[str, tuple[Any, ...]] = {}
        missed = _Comparison()
        for call in calls:
            outputs = _outputs(before, original, call, given), _outputs(after, compressed, call)
            for name, own in outputs[0][1].items():
                for pair in zip(own, outputs[1][1][name], strict=True):
                    maps[name].add(*pair)
            if isinstance(outputs[0][0], Tensor):
                missed.add(outputs[0][0], outputs[1][0])
        reports = [
            _layer(name, before[name], after[name], given[name], maps[name]) for name in given
        ]
        device = next(original.parameters()).device
        times = medians([lambda: original(*calls[0]), lambda: compressed(*calls[0])], device)
    return NetworkReport(
        tuple(reports),
        (_parameters(original), _parameters(compressed)),
        (sum(r.macs[0] for r in reports), sum(r.macs[1] for r in reports)),
        (times[0], times[1]),
        missed.error,
    )


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return every convolution and linear layer by its name; ``""`` is the model itself."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LAYERS)}


class _Comparison:
    """Adds up two feature maps: their values, and how far they are from each other."""

    def __init__(self) -> None:
        self._sums: list[list[float]] = []
        self._gap = 0.0

    def add(self, one: Tensor, other: Tensor) -> None:
        """Look at a pair."""
        one, other = (a.to(torch.float64) for a in (one, other))
        self._gap += float((one - other).square().sum())
        self._sums.append([f for a in (one, other) for f in _sums(a)])

    @property
    def error(self) -> float:
        """``||Y - Y'|| / ||Y||``."""
        norm = sum(s[3] for s in self._sums)
        return math.sqrt(self._gap / norm) if norm > 0 else math.nan

    def ranges(self) -> tuple[Range, Range]:
        """Return what is known of both."""
        one, other = ([s[at : at + 5] for s in self._sums] for at in (0, 5))
        return _range(one), _range(other)


def _sums(a: Tensor) -> list[float]:
    least, most = a.aminmax()
    return [*map(float, (least, most, a.sum(), a.square().sum())), a.numel()]


def _range(sums: list[list[float]]) -> Range:
    least, most, total, squares, count = zip(*sums, strict=True)
    mean = sum(total) / sum(count)
    return Range(
        min(least), max(most), mean, math.sqrt(max(0.0, sum(squares) / sum(count) - mean**2))
    )


def _outputs(
    layers: dict[str, nn.Module],
    model: nn.Module,
    call: tuple[Any, ...],
    given: dict[str, tuple[Any, ...]] | None = None,
) -> tuple[Any, dict[str, list[Tensor]]]:
    """Return what a model gives, and its layers; note what these are given first."""
    found: dict[str, list[Tensor]] = defaultdict(list)

    def see(name: str, arguments: tuple[Any, ...], out: Tensor) -> None:
        found[name].append(out)
        if given is not None:
            given.setdefault(name, arguments)

    with watching(layers, see):
        (out,) = run(model, [call])
    return out, found


def _layer(
    name: str, before: nn.Module, after: nn.Module, given: tuple[Any, ...], maps: _Comparison
) -> LayerReport:
    first, second = composed(before), composed(after)
    norm = float(first.norm())
    times = medians([lambda: before(*given), lambda: after(*given)], first.device, seconds=0.5)
    return LayerReport(
        name,
        (_parameters(before), _parameters(after)),
        (_macs(before, given), _macs(after, given)),
        (times[0], times[1]),
        float((first - second).norm()) / norm if norm > 0 else math.nan,
        maps.error,
        maps.ranges(),
    )


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _macs(module: nn.Module, given: tuple[Any, ...]) -> int:
    """Count the multiply-adds of a call, by one sample."""
    total = 0

    def see(name: str, arguments: tuple[Any, ...], out: Tensor) -> None:
        nonlocal total
        weight: Any = module.get_submodule(name).weight
        total += out[0].numel() * weight[0].numel()

    with watching(layers_of(module), see):
        module(*given)
    return total
