"""What layers of a running model are given, and what they give back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["batches_of", "evaluating", "run", "watching"]

#: ``see(name, inputs, output)``.
See = Callable[[str, tuple[Any, ...], Tensor], None]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Run models as they are used, not trained, and without gradients; then restore their modes."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def watching(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Call ``see`` whenever one of the layers has run."""
    with ExitStack() as stack:
        for name, layer in layers.items():

            def hook(_: nn.Module, given: Any, out: Tensor, name: str = name) -> None:
                see(name, given, out)

            stack.callback(layer.register_forward_hook(hook).remove)
        yield


def batches_of(op: str, inputs: Any) -> list[tuple[Any, ...]]:
    """Return the arguments of calls of a model: a tensor or a tuple is one, a list are several."""
    several = (
        inputs
        if isinstance(inputs, Iterable) and not isinstance(inputs, (Tensor, tuple))
        else [inputs]
    )
    calls = [call if isinstance(call, tuple) else (call,) for call in several]
    if not calls:
        raise ValueError(f"{op}: no input is given; expected a tensor, a tuple, or a list of them")
    return calls


def run(model: nn.Module, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Call a model with each."""
    return [model(*call) for call in calls]
