"""A network with decomposed layers where that pays, as measured on the device at hand."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from .. import _check
from .decompose import METHODS, decompose_conv, decompose_linear
from .ranks import suggest_rank
from .report import NetworkReport, conv_report, layers_of
from .timing import medians
from .watch import batches_of, evaluating, run, watching

__all__ = ["Choice", "Compressed", "compress"]

GOALS = ("faster", "smaller")

#: A layer is taken for faster below this share of its time: what is nearer may be noise.
FASTER = 0.95

#: Ranks that are tried for a layer with a tolerance, from the cheapest on: shares of its channels.
SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)

#: Share of the tolerance that ranks are chosen for, as other inputs give somewhat larger errors.
MARGIN = 0.9


@dataclass(frozen=True)
class Choice:
    """What became of a layer, and why.

    Attributes
    ----------
    name : str
    rank : object
        Of the decomposition that was tried last; None if none was.
    kept : bool
        Whether the network has it.
    reason : str
    """

    name: str
    rank: Any
    kept: bool
    reason: str


@dataclass(frozen=True)
class Compressed:
    """A compressed network, and an account of it. Iterates as ``model, report``.

    Attributes
    ----------
    model : nn.Module
    report : NetworkReport
    choices : tuple of Choice
        One for each convolution and linear layer.
    """

    model: nn.Module
    report: NetworkReport
    choices: tuple[Choice, ...]

    def __iter__(self) -> Any:
        return iter((self.model, self.report))

    def __str__(self) -> str:
        lines = [
            f"{choice.name:24} {'kept' if choice.kept else 'as it was':10} {choice.reason}"
            for choice in self.choices
        ]
        return "\n".join([str(self.report), "", *lines])


def compress(
    model: nn.Module,
    inputs: Any,
    *,
    budget: float | None = None,
    tolerance: float | None = None,
    method: str = "tucker2",
    goal: str = "faster",
    aware: bool = True,
    skip: Iterable[str] = (),
    seed: int = 0,
) -> Compressed:
    """Decompose the layers of a network that gain by it, each measured where it runs.

    Parameters
    ----------
    model : nn.Module
        Not modified.
    inputs : Tensor, tuple or list of them
        What ``model`` is given: a tuple are the arguments of one call, a list several calls. Their
        size is that for which times are measured.
    budget : float, optional
        Share of its parameters that each layer may have, in (0, 1].
    tolerance : float, optional
        In place of ``budget``: largest relative error of each layer's output, for the input that it
        has in ``model``. The smallest ranks that keep it are taken.
    method : {"tucker2", "cp"}
        For convolutions; linear layers are cut by their SVD.
    goal : {"faster", "smaller"}
        Keep a decomposition where it takes less time, or where it has fewer parameters.
    aware : bool
        Minimise the error of outputs on ``inputs``, not that of weights.
    skip : iterable of str
        Names of layers that stay as they are; ``*`` stands for anything.
    seed : int
        For the same result again.

    Returns
    -------
    Compressed
        Iterates as ``model, report``. The model is a copy in which some layers are `nn.Sequential`;
        with goal ``"faster"`` it is not slower than ``model``, as measured: layers that gained
        least are given back until that is so.

    Raises
    ------
    ValueError, TypeError
        If not exactly one of ``budget`` and ``tolerance`` is given, or an argument does not fit.

    Notes
    -----
    A layer's error is that of its output for the original's input, so errors of several layers add
    up behind each other; the report has what comes out in the network. Times are medians of calls
    in turns.

    Layers that run several times in a call are judged by the first; those whose weight another
    layer or a parametrization shares stay as they are.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> x = torch.randn(4, 3, 9, 9)
    >>> small, report = compress(net, x, budget=0.5, goal="smaller", skip=["0"])
    >>> [type(layer).__name__ for layer in small]
    ['Conv2d', 'ReLU', 'Sequential']
    """
    op = "compress"
    if (budget is None) == (tolerance is None):
        raise ValueError(
            f"{op}: budget is {budget} and tolerance is {tolerance}; expected exactly one of them"
        )
    for name, share in (("budget", budget), ("tolerance", tolerance)):
        if share is not None and not 0 < _check.number(op, name, share) <= 1:
            raise ValueError(f"{op}: {name} is {share}; expected a share in (0, 1]")
    for name, value, among in (("method", method, METHODS), ("goal", goal, GOALS)):
        if value not in among:
            raise ValueError(f"{op}: {name} is {value!r}; expected one of {', '.join(among)}")
    calls, skip = batches_of(op, inputs), [skip] if isinstance(skip, str) else list(skip)
    new = copy.deepcopy(model)
    device = next(model.parameters()).device
    with evaluating(model, new):
        seen = _inputs(model, calls)
        decide = _Decision(budget, tolerance, method, goal, aware, seed, device)
        choices: dict[str, Choice] = {}
        gains: dict[str, float] = {}
        shared = _shared(model)
        for name, layer in layers_of(model).items():
            reason = _against(name, layer, skip, seen, shared)
            if reason:
                choices[name] = Choice(name, None, False, reason)
                continue
            choice, small, gain = decide(name, layer, seen[name])
            choices[name] = choice
            if small is not None:
                new.set_submodule(name, small)
                gains[name] = gain
        if goal == "faster":
            _give_back(model, new, calls[0], gains, choices, device)
    return Compressed(new, conv_report(model, new, calls), tuple(choices.values()))


def _inputs(model: nn.Module, calls: list[tuple[Any, ...]]) -> dict[str, list[Tensor]]:
    """Return what each layer is given, in a list of calls."""
    seen: dict[str, list[Tensor]] = {}

    def see(name: str, given: tuple[Any, ...], _: Tensor) -> None:
        seen.setdefault(name, []).append(given[0])

    with watching(layers_of(model), see):
        run(model, calls)
    return seen


def _shared(model: nn.Module) -> set[int]:
    """Return which parameters several modules have."""
    found = [id(p) for module in model.modules() for p in module._parameters.values()]
    return {p for p in found if found.count(p) > 1}


def _against(
    name: str,
    layer: Any,
    skip: Iterable[str],
    seen: dict[str, list[Tensor]],
    shared: set[int],
) -> str:
    """Return why a layer stays as it is; empty if nothing is against its decomposition."""
    if not name:
        return "the model is this layer; decompose_conv or decompose_linear does one"
    if any(fnmatch(name, pattern) for pattern in skip):
        return "to be skipped"
    if name not in seen:
        return "did not run with these inputs"
    if nn.utils.parametrize.is_parametrized(layer) or "weight" not in layer._parameters:
        return "its weight is computed from others"
    if id(layer.weight) in shared:
        return "another layer has the same weight"
    if getattr(layer, "groups", 1) == layer.weight.shape[0]:
        return "each output channel has an input channel of its own"
    return ""


class _Decision:
    """Tries decompositions of a layer, as the arguments of `compress` want it."""

    def __init__(
        self,
        budget: float | None,
        tolerance: float | None,
        method: str,
        goal: str,
        aware: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        self._budget, self._tolerance, self._method = budget, tolerance, method
        self._goal, self._aware, self._seed, self._device = goal, aware, seed, device

    def __call__(
        self, name: str, layer: nn.Module, inputs: list[Tensor]
    ) -> tuple[Choice, nn.Module | None, float]:
        """Return what becomes of a layer, its decomposition if it is kept, and the seconds won."""
        rank, small, reason = self._found(layer, inputs)
        if small is None:
            return Choice(name, rank, False, reason), None, 0.0
        x = inputs[0]
        before, after = medians([lambda: layer(x), lambda: small(x)], self._device)
        sizes = [sum(p.numel() for p in m.parameters()) for m in (layer, small)]
        told = f"{before * 1e3:.3g} to {after * 1e3:.3g} ms, {sizes[0]} to {sizes[1]} parameters"
        faster = self._goal == "faster"
        kept = after < FASTER * before if faster else sizes[1] < sizes[0]
        reason = f"rank {rank}{reason}: {told}"
        return Choice(name, rank, kept, reason), small if kept else None, before - after

    def _found(self, layer: nn.Module, inputs: list[Tensor]) -> tuple[Any, nn.Module | None, str]:
        """Return a rank, the layer decomposed at it, and a remark; no layer if none will do."""
        if self._budget is not None:
            rank = _within(layer, self._budget, self._method)
            return rank, self._decomposed(layer, rank, inputs), ""
        assert self._tolerance is not None
        rank, error = None, 1.0
        for share in SHARES:
            rank = _share_of(layer, share, self._method)
            small = self._decomposed(layer, rank, inputs)
            error = _error(layer, small, inputs)
            if error <= MARGIN * self._tolerance:
                return rank, small, f", error {error:.3g}"
        return rank, None, f"at rank {rank} the error of its output is still {error:.3g}"

    def _decomposed(self, layer: Any, rank: Any, inputs: list[Tensor]) -> nn.Sequential:
        if isinstance(layer, nn.Linear):
            return decompose_linear(layer, rank, inputs=inputs if self._aware else None)
        given = inputs if self._aware else None
        return decompose_conv(layer, rank, method=self._method, inputs=given, seed=self._seed)


def _within(layer: Any, budget: float, method: str) -> Any:
    """Return the largest rank with that share of the parameters."""
    if isinstance(layer, nn.Linear) or method == "tucker2":
        weight = layer.weight[: layer.weight.shape[0] // getattr(layer, "groups", 1)]
        rank = suggest_rank(weight, method="budget", budget=budget)
        pointwise = weight[0, 0].numel() == 1 if weight.ndim > 2 else False
        return min(rank) if pointwise and isinstance(rank, tuple) else rank
    outputs, inputs, *taps = layer.weight.shape
    outputs //= layer.groups
    allowed = budget * layer.weight.numel() / layer.groups
    return max(1, int(allowed / (outputs + inputs + sum(n for n in taps if n > 1))))


def _share_of(layer: Any, share: float, method: str) -> Any:
    """Return the rank that is a share of the channels."""
    outputs, inputs = layer.weight.shape[:2]
    outputs //= getattr(layer, "groups", 1)
    if isinstance(layer, nn.Linear):
        return max(1, int(share * min(outputs, inputs)))
    if method == "cp":
        return max(1, int(2 * share * max(outputs, inputs)))
    return max(1, int(share * outputs)), max(1, int(share * inputs))


def _error(layer: nn.Module, small: nn.Module, inputs: list[Tensor]) -> float:
    gap = norm = 0.0
    for x in inputs:
        y = layer(x)
        gap += float((small(x) - y).double().square().sum())
        norm += float(y.double().square().sum())
    return (gap / norm) ** 0.5 if norm > 0 else 0.0


def _give_back(
    model: nn.Module,
    new: nn.Module,
    call: tuple[Any, ...],
    gains: dict[str, float],
    choices: dict[str, Choice],
    device: torch.device,
) -> None:
    """Put layers back, those that gained least first, until the network is not slower."""
    while gains:
        before, after = medians([lambda: model(*call), lambda: new(*call)], device)
        if after <= before:
            return
        least = min(gains, key=lambda name: gains[name])
        del gains[least]
        new.set_submodule(least, copy.deepcopy(model.get_submodule(least)))
        old = choices[least]
        reason = f"{old.reason}; given back, as the network was slower"
        choices[least] = Choice(least, old.rank, False, reason)
