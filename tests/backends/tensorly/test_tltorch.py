"""Layers of tensorly-torch by our tensor algebra are what they are by TensorLy's, trained too.

How far rounding may carry is measured: where the weights of the dense layer move by as much as a
sum over them is rounded, TensorLy's own answers move by half of what ours may differ.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorly
import torch
from torch import Tensor, nn

import tensorfast.backends.tensorly as backend
from tensorfast.backends.tensorly import algebra
from tests.backends.tensorly.suite.plugin import count, ours

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
IMPLEMENTATIONS = ["reconstructed", "factorized"]
DTYPES = [torch.float32, torch.float64]
#: The functions of ours that a decomposition takes.
TAKES = {
    "cp": {"unfolding_dot_khatri_rao"},
    "tucker": {"multi_mode_dot"},
    "tt": set(),
    "blocktt": set(),
}


@pytest.fixture
def tltorch() -> Iterator[ModuleType]:
    """tensorly-torch, which sets TensorLy to PyTorch when it is imported."""
    with tensorly.backend_context(tensorly.get_backend()):
        module = importlib.import_module("tltorch")
        tensorly.set_backend("pytorch")
        yield module


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """How many calls our functions have served."""
    calls: Counter[str] = Counter()
    handed_back: Counter[str] = Counter()
    count(calls, handed_back, monkeypatch.setattr)
    return lambda: calls - handed_back


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are ours as well."""
    monkeypatch.setattr(algebra, "SMALL", 0)


def settings(factorization: str, implementation: str) -> dict[str, Any]:
    # As many iterations whatever rounding does to the error.
    fixed = {"n_iter_max": 10, "tol": 0} if factorization in ("cp", "tucker") else {}
    return {
        "rank": 0.5,
        "factorization": factorization,
        "implementation": implementation,
        "decomposition_kwargs": fixed,
    }


def moved(dense: nn.Module, units: float) -> None:
    """Move the weights by so many roundings of a sum over them."""
    weight = dense.weight.data
    unit = torch.finfo(weight.dtype).eps * weight.numel() ** 0.5
    weight.mul_(1 + units * unit * torch.randn_like(weight))


def trained(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the output, the gradients and the state after a step, and the output then."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    out = layer(x)
    out.square().mean().backward()
    seen = {"output": out.detach()}
    seen |= {f"gradient of {name}": p.grad.clone() for name, p in layer.named_parameters()}
    optimizer.step()
    seen |= {f"state of {name}": value.clone() for name, value in layer.state_dict().items()}
    return {**seen, "output after a step": layer(x).detach()}


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest difference, in units of the largest entry of the same tensor."""
    assert ours.keys() == theirs.keys()
    assert all(value.isfinite().all() for value in theirs.values())
    return max(
        float((ours[name] - value).abs().max() / value.abs().max())
        for name, value in theirs.items()
    )


def assert_same(make, dtype: torch.dtype) -> None:
    """Compare what ``make`` yields by both algebras, from the same seeds."""

    def seen(units: float = 0.0) -> dict[str, Tensor]:
        # TensorLy draws from NumPy's global generator where there are fewer singular vectors than
        # components.
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        dense, x, factorized = make(dtype)
        if units:
            moved(dense, units)
        return trained(factorized(dense), x)

    theirs = seen()
    allowed = 2 * max(distance(seen(units), theirs) for units in (1, -1, 0.5))
    with backend.active():
        differ = distance(seen(), theirs)
    # Else it would be noise that is compared.
    assert allowed < torch.finfo(dtype).eps ** 0.5
    assert differ <= allowed


def convolution(tltorch: ModuleType, order: int, channels: tuple[int, int], **settings: Any):
    def make(dtype: torch.dtype):
        dense = CONVOLUTIONS[order](*channels, 3, padding=1, dtype=dtype)
        x = torch.randn(4, channels[0], *[7] * order, dtype=dtype)

        def factorized(dense: nn.Module) -> nn.Module:
            return tltorch.FactorizedConv.from_conv(dense, **settings, dtype=dtype)

        return dense, x, factorized

    return make


def linear(tltorch: ModuleType, features: tuple[int, int], **settings: Any):
    def make(dtype: torch.dtype):
        dense = nn.Linear(*features, dtype=dtype)
        x = torch.randn(5, features[0], dtype=dtype)

        def factorized(dense: nn.Module) -> nn.Module:
            return tltorch.FactorizedLinear.from_linear(dense, n_tensorized_modes=2, **settings)

        return dense, x, factorized

    return make


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("factorization", ["cp", "tucker", "tt"])
@pytest.mark.parametrize("order", CONVOLUTIONS)
def test_convolution(tltorch, served, every_size, order, factorization, implementation, dtype):
    chosen = settings(factorization, implementation)
    assert_same(convolution(tltorch, order, (6, 8), **chosen), dtype)
    assert {*served()} >= TAKES[factorization]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("factorization", ["cp", "tucker", "blocktt"])
def test_linear(tltorch, served, every_size, factorization, implementation, dtype):
    assert_same(linear(tltorch, (24, 36), **settings(factorization, implementation)), dtype)
    assert {*served()} >= TAKES[factorization]


@pytest.mark.parametrize(("factorization", "rank"), [("cp", 0.1), ("tucker", 0.9)])
def test_layers_of_a_usual_size_are_ours(tltorch, served, factorization, rank):
    chosen = {**settings(factorization, "factorized"), "rank": rank}
    # Noise has singular values that lie close, and float32 tells their vectors apart badly.
    assert_same(convolution(tltorch, 2, (96, 96), **chosen), torch.float64)
    assert {*served()} >= TAKES[factorization]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("factorization", "name"), [("cp", "unfolding_dot_khatri_rao"), ("tucker", "multi_mode_dot")]
)
def test_a_wrong_product_is_noticed(tltorch, monkeypatch, every_size, factorization, name, dtype):
    known, functions = ours()

    def wrong(*given, **named):
        return functions[name](*given, **named) * (1 + torch.finfo(dtype).eps ** 0.5)

    monkeypatch.setattr(known, name, staticmethod(wrong))
    chosen = settings(factorization, "factorized")
    with pytest.raises(AssertionError):
        assert_same(convolution(tltorch, 2, (96, 96), **chosen), dtype)
