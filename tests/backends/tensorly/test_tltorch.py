"""Layers of tensorly-torch by our tensor algebra: what they are by TensorLy's, before and after a step.

What rounding may change is measured: weights are moved by as much as a sum over them is rounded, and
TensorLy's own answers move by what is then allowed to ours, twice.
"""

import importlib
from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import tensorly
import torch
from tensorly import tenalg
from torch import Tensor, nn

import tensorfast.backends.tensorly as backend
from tests.backends.tensorly.suite.plugin import Counted, registered

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
IMPLEMENTATIONS = ["reconstructed", "factorized"]
DTYPES = [torch.float32, torch.float64]
#: The function of ours that a decomposition takes. Tensor trains need none.
TAKES = {"cp": "unfolding_dot_khatri_rao", "tucker": "multi_mode_dot"}


@pytest.fixture
def tltorch() -> Iterator[ModuleType]:
    """tensorly-torch, which sets TensorLy to PyTorch when it is imported."""
    with tensorly.backend_context(tensorly.get_backend()):
        module = importlib.import_module("tltorch")
        tensorly.set_backend("pytorch")
        yield module


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of our functions was called."""
    counter: Counter[str] = Counter()
    algebra, functions = registered()
    for name, function in functions.items():
        monkeypatch.setattr(algebra, name, Counted(function, name, counter))
    return counter


def settings(factorization: str, implementation: str) -> dict:
    # As many iterations whatever rounding does to the error.
    fixed = {"n_iter_max": 10, "tol": 0} if factorization in TAKES else {}
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
        ours = seen()
    assert 0 < allowed < torch.finfo(dtype).eps ** 0.5
    assert distance(ours, theirs) <= allowed


def convolution(tltorch: ModuleType, order: int, factorization: str, implementation: str):
    def make(dtype: torch.dtype):
        dense = CONVOLUTIONS[order](6, 8, 3, padding=1, dtype=dtype)
        x = torch.randn(4, 6, *[7] * order, dtype=dtype)

        def factorized(dense: nn.Module) -> nn.Module:
            chosen = settings(factorization, implementation)
            return tltorch.FactorizedConv.from_conv(dense, **chosen, dtype=dtype)

        return dense, x, factorized

    return make


def linear(tltorch: ModuleType, factorization: str, implementation: str):
    def make(dtype: torch.dtype):
        dense, x = nn.Linear(24, 36, dtype=dtype), torch.randn(5, 24, dtype=dtype)

        def factorized(dense: nn.Module) -> nn.Module:
            chosen = settings(factorization, implementation)
            return tltorch.FactorizedLinear.from_linear(dense, n_tensorized_modes=2, **chosen)

        return dense, x, factorized

    return make


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("factorization", ["cp", "tucker", "tt"])
@pytest.mark.parametrize("order", CONVOLUTIONS)
def test_convolution(tltorch, calls, order, factorization, implementation, dtype):
    assert_same(convolution(tltorch, order, factorization, implementation), dtype)
    assert calls[TAKES[factorization]] if factorization in TAKES else not calls.total()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("factorization", ["cp", "tucker", "blocktt"])
def test_linear(tltorch, calls, factorization, implementation, dtype):
    assert_same(linear(tltorch, factorization, implementation), dtype)
    assert calls[TAKES[factorization]] if factorization in TAKES else not calls.total()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factorization", TAKES)
def test_a_wrong_product_is_noticed(tltorch, monkeypatch, factorization, dtype):
    algebra, functions = registered()
    name = TAKES[factorization]

    def wrong(*given, **named):
        return functions[name](*given, **named) * (1 + torch.finfo(dtype).eps ** 0.5)

    monkeypatch.setattr(algebra, name, staticmethod(wrong))
    with pytest.raises(AssertionError):
        assert_same(convolution(tltorch, 2, factorization, "factorized"), dtype)
