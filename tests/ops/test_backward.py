"""What a gradient costs: nothing that is not asked for, and of memory no more than the tensor."""

import importlib
import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tensorfast as tf
from tensorfast import reference

from .common import normal


class Seen(TorchDispatchMode):
    """Count the operations of the library, and note the largest result of any operation."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.namespace == "tensorfast":
            self.calls[func._opname] += 1
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def leaves(
    shape: tuple[int, ...], rank: int, wanted: set[str], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    shapes = {"x": shape, **{f"u{n}": (size, rank) for n, size in enumerate(shape)}, "w": (rank,)}
    return {
        name: normal(*sizes, dtype=dtype, seed=k).requires_grad_(name in wanted)
        for k, (name, sizes) in enumerate(shapes.items())
    }


def factors(given: dict[str, Tensor]) -> list[Tensor]:
    return [tensor for name, tensor in given.items() if name.startswith("u")]


@pytest.mark.parametrize(
    ("wanted", "calls"),
    [
        ({"x"}, {"khatri_rao": 2, "ttm": 1}),
        ({"u0"}, {"mttkrp": 1}),
        ({"u2"}, {"mttkrp": 1}),
        ({"w"}, {"mttkrp": 1}),
        ({"x", "u0", "u2", "w"}, {"khatri_rao": 2, "ttm": 1, "mttkrp": 3}),
    ],
    ids=lambda v: "+".join(sorted(v)) if isinstance(v, set) else "",
)
def test_mttkrp_computes_the_gradients_that_are_needed(wanted, calls):
    given = leaves((4, 3, 5), 2, wanted)
    out = tf.mttkrp(given["x"], factors(given), 1, given["w"])
    with Seen() as seen:
        out.sum().backward()
    assert seen.calls == calls
    assert {name for name, tensor in given.items() if tensor.grad is not None} == wanted


@pytest.mark.parametrize(
    ("wanted", "left_out"),
    [({"u0"}, [0]), ({"u2"}, [2]), ({"w"}, [None]), ({"u1", "w"}, [1, None])],
    ids=lambda v: "+".join(sorted(v)) if isinstance(v, set) else "",
)
def test_khatri_rao_computes_the_gradients_that_are_needed(wanted, left_out, monkeypatch):
    module = importlib.import_module("tensorfast.ops.khatri_rao")
    original, sums = module._sum_against, []

    def spy(full, factors, skip):
        sums.append(skip)
        return original(full, factors, skip)

    monkeypatch.setattr(module, "_sum_against", spy)
    given = leaves((4, 3, 5), 2, wanted)
    tf.khatri_rao(factors(given), given["w"]).square().sum().backward()
    assert sums == left_out
    assert {name for name, tensor in given.items() if tensor.grad is not None} == wanted


@pytest.mark.parametrize(
    ("wanted", "calls"),
    [("x", {"ttm": 1}), ("u1", {"ttm": 1})],
)
def test_ttm_computes_the_gradient_that_is_needed(wanted, calls):
    given = leaves((4, 3, 5), 2, {wanted})
    out = tf.ttm(given["x"], given["u1"], 1, transpose=True)
    with Seen() as seen:
        out.sum().backward()
    assert seen.calls == calls


@pytest.mark.parametrize("shape", [(2, 30, 40), (40, 30, 2), (3, 4, 50, 5)], ids=str)
def test_the_gradient_of_the_tensor_takes_no_more_memory_than_it(shape):
    for mode in range(len(shape)):
        given = leaves(shape, 8, {"x"})
        out = tf.mttkrp(given["x"], factors(given), mode)
        with Seen() as seen:
            out.sum().backward()
        assert seen.elements == math.prod(shape)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5), (1, 2, 3, 2, 2)], ids=str)
def test_gradients_of_mttkrp_are_those_of_the_formula(shape, weighted, dtype):
    for mode in range(len(shape)):
        names = {"x", *(f"u{n}" for n in range(len(shape)) if n != mode), *["w"] * weighted}
        ours, plain = (leaves(shape, 2, names, dtype) for _ in range(2))
        w = [given["w"] if weighted else None for given in (ours, plain)]
        others = [u for n, u in enumerate(factors(plain)) if n != mode]
        tf.mttkrp(ours["x"], factors(ours), mode, w[0]).abs().square().sum().backward()
        reference.mttkrp(plain["x"], others, mode, w[1]).abs().square().sum().backward()
        for name in names:
            torch.testing.assert_close(ours[name].grad, plain[name].grad)


def test_seen_counts_what_is_called():
    x, u = normal(4, 3, 5), normal(3, 2)
    with Seen() as seen:
        tf.ttm(x, u, 1, transpose=True)
    assert seen.calls == {"ttm": 1}
    assert seen.elements == 40
