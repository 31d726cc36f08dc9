"""The fused contraction: every order, every set of modes kept, strides, types, precisions."""

import itertools
import math

import pytest
import torch
from triton import knobs

from tensorfast.kernels import contraction, plan
from tensorfast.kernels.devices import CHIPS
from tensorfast.testing import assert_close
from tensorfast.testing import normal as drawn

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

#: Ragged, prime and size-1; the last two have a long side.
SHAPES = [
    (37, 23),
    (19, 7, 11),
    (1, 20, 1, 9),
    (5, 3, 6, 4),
    (2, 3, 1, 5, 3),
    (3, 4, 90),
    (90, 2, 5),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def normal(*arguments):
    return drawn(*arguments).to(DEVICE)


def compute_type(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def einsum(x, factors):
    letters = "abcdefgh"[: x.ndim]
    terms = ",".join([letters, *(letters[n] + "r" for n in factors)])
    kept = "".join(letters[n] for n in range(x.ndim) if n not in factors)
    return torch.einsum(f"{terms}->{kept}r", x, *factors.values())


def check(x, kept, rank, precision="ieee", way=None):
    """Contract all modes but ``kept`` and hold the result to the rounding of its arithmetic."""
    wide = compute_type(x.dtype)
    factors = {n: normal((x.shape[n], rank), wide, n + 1) for n in range(x.ndim) if n not in kept}
    out = x.new_empty([*(x.shape[n] for n in kept), rank], dtype=wide)
    found = contraction.contract(x, factors, out, precision, way=way)
    assert found is out
    exact = {n: f.double() for n, f in factors.items()}
    expected = einsum(x.double(), exact)
    scale = einsum(x.double().abs(), {n: f.abs() for n, f in exact.items()})
    length = math.prod(x.shape[n] for n in factors) + len(factors)
    assert_close(found, expected, scale, length, dtype=wide, precision=precision)


def subsets(ndim):
    return [k for size in range(ndim) for k in itertools.combinations(range(ndim), size)]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_set_of_modes(shape):
    x = normal(shape, torch.float32)
    for kept in subsets(x.ndim):
        check(x, kept, 5)


@pytest.mark.parametrize("rank", [1, 16, 33, 70])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(37, 23), (19, 7, 40), (5, 3, 6, 4)], ids=str)
def test_types_and_ranks_with_the_tiles_of_the_heuristic(shape, dtype, rank):
    for mode in range(len(shape)):
        check(normal(shape, dtype), (mode,), rank)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strides(dtype):
    x = normal((6, 8, 5, 9), dtype)
    views = [
        x.permute(2, 0, 3, 1),
        x[::2, 1:, :, ::3],
        x.permute(3, 1, 0, 2)[:, ::2],
        x[:1].expand(4, 8, 5, 9),
        x[:, :, 2],
        torch.as_strided(x, (7, 7, 5), (9, 9, 1)),
    ]
    for view in views:
        for mode in range(view.ndim):
            check(view, (mode,), 5)


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_precisions(precision, dtype):
    for mode in range(3):
        check(normal((20, 18, 33), dtype), (mode,), 7, precision)


@pytest.mark.usefixtures("small_tiles")
def test_the_result_may_have_any_strides():
    x, factor = normal((4, 30, 5), torch.float32), normal((30, 6), torch.float32, 1)
    out = torch.full((4, 6, 5), torch.nan, device=DEVICE)
    contraction.contract(x, {1: factor}, out.movedim(1, -1))
    torch.testing.assert_close(out, torch.einsum("abc,br->arc", x, factor))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kept", [(0,), (1,), (2,)], ids=str)
def test_both_sweeps_and_every_number_of_splits(kept):
    x = normal((6, 40, 24), torch.float32)
    every = list(plan.candidates(plan.Contraction.of(x, kept, 5, "ieee", CHIPS[90])))
    ways = {(p.sweep, p.outer, p.splits): p for p in every}.values()
    assert len(ways) > 3
    for p in ways:
        check(x, kept, 5, way=p)
    assert {p.sweep for p in ways} == {"outer", "inner"}
    assert {p.splits > 1 for p in ways} == {True, False}


def test_the_same_bits_every_time():
    x = normal((5, 300, 40), torch.float32)
    factors = {n: normal((x.shape[n], 8), torch.float32, n) for n in (1, 2)}
    results = [contraction.contract(x, factors, x.new_empty(5, 8)) for _ in range(2)]
    assert torch.equal(*results)


@pytest.mark.usefixtures("small_tiles", "wide")
def test_offsets_of_64_bits():
    x = normal((6, 8, 5, 9), torch.float32)
    for view in (x, x.permute(2, 0, 3, 1), x[:1].expand(4, 8, 5, 9)):
        for kept in [(0,), (2,), (3,), (1, 2)]:
            check(view, kept, 5)
