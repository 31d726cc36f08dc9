"""The distance to a model and the norm: orders, strides, types, ranks; how exact they are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from triton import knobs

from tensorfast.kernels import norm
from tensorfast.kernels import residual as kernels
from tensorfast.kernels.devices import CHIPS
from tensorfast.kernels.norm import squared_norm
from tensorfast.kernels.residual import residual
from tensorfast.precision import unit_roundoff
from tensorfast.testing import normal as drawn
from tensorfast.testing import planted

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

#: Orders 1 to 5: ragged, prime, aligned, of size 1.
SHAPES = [
    (70,),
    (1,),
    (37, 83),
    (1, 300),
    (300, 1),
    (19, 7, 40),
    (64, 2, 80),
    (1, 20, 1, 90),
    (5, 3, 6, 40),
    (2, 3, 1, 5, 30),
]


def normal(*arguments):
    return drawn(*arguments).to(DEVICE)


def compute_type(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def model_of(factors):
    letters = "abcdefgh"[: len(factors)]
    terms = ",".join(f"{letter}r" for letter in letters)
    return torch.einsum(f"{terms}->{letters}", *factors)


def rounding(rank, order):
    """Count the roundings that an entry of the model goes through at most, relative to its terms.

    One a factor, one a term of the sum; six products of parts leave out of each term as much as a
    rounding, and the difference is rounded once.
    """
    return rank + order + 2


def tolerance(x, factors, wide):
    """Bound the error of ``||x - m||^2`` for a model formed in the type ``wide``.

    ``2 ||d|| ||e|| + ||e||^2`` where an entry of the difference ``d`` errs by ``e`` at most; the
    squares are added in float64, ``numel(x)`` of them in a row at most.
    """
    exact, u = [f.double() for f in factors], unit_roundoff(wide)
    d = x.double() - model_of(exact)
    e = rounding(factors[0].shape[1], x.ndim) * u * model_of([f.abs() for f in exact])
    e += u * d.abs()
    error = float(2 * d.norm() * e.norm() + e.norm() ** 2)
    return error + unit_roundoff(torch.float64) * d.numel() * float(d.norm() ** 2)


def check(x, rank, double=False, factors=None, chip=None):
    """Hold a result to that of float64; it is float64 whatever went in."""
    if factors is None:
        factors = [normal((n, rank), compute_type(x.dtype), k + 1) for k, n in enumerate(x.shape)]
    found = residual(x, factors, double, chip)
    assert (found.shape, found.dtype, found.device) == ((), torch.float64, x.device)
    wide = torch.float64 if double else compute_type(x.dtype)
    expected = (x.double() - model_of([f.double() for f in factors])).square().sum()
    assert abs(float(found - expected)) <= tolerance(x, factors, wide)


def check_norm(x):
    found = squared_norm(x)
    assert (found.shape, found.dtype, found.device) == ((), torch.float64, x.device)
    expected = float(x.double().square().sum())
    assert abs(float(found) - expected) <= unit_roundoff(torch.float64) * x.numel() * expected


@pytest.fixture(params=["one block a program", "many blocks a program"])
def programs(request, monkeypatch):
    """Cut the smallest norm, too; let a program take one block of rows, or all, and of columns."""
    kernels._plan.cache_clear()
    monkeypatch.setattr(norm, "ROW", 512)
    monkeypatch.setattr(norm, "ROWS", 2)
    if request.param.startswith("many"):
        chip = replace(kernels.chip_of(torch.device(DEVICE)), multiprocessors=1)
        for module in (kernels, norm):
            monkeypatch.setattr(module, "chip_of", lambda device: chip)
            monkeypatch.setattr(module, "ROUNDS", 1)
        monkeypatch.setattr(kernels, "ACROSS", 2)
    yield
    kernels._plan.cache_clear()


@pytest.fixture
def _wide(wide):
    kernels._plan.cache_clear()
    yield
    kernels._plan.cache_clear()


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_order(shape):
    x = normal(shape)
    check(x, 5)
    check_norm(x)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("rank", [1, 16, 17, 33, 64, 70])
@pytest.mark.parametrize("shape", [(40, 150), (5, 31, 80)], ids=str)
def test_ranks(shape, rank):
    check(normal(shape), rank)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("rank", [5, 20])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(19, 7, 40), (64, 3, 128)], ids=str)
def test_types(shape, dtype, double, rank):
    x = normal(shape, dtype)
    check(x, rank, double)
    check_norm(x)


VIEWS = {
    "permuted": lambda x: x.permute(2, 0, 3, 1),
    "sliced": lambda x: x[::2, 1:, :, ::3],
    "permuted and sliced": lambda x: x.permute(3, 1, 0, 2)[:, ::2],
    "expanded": lambda x: x[:1].expand(4, 8, 5, 9),
    "expanded at the end": lambda x: x[..., :1].expand(6, 8, 5, 7),
    "all the same": lambda x: x[:1, :1, :1, :1].expand(6, 8, 5, 7),
    "one taken out": lambda x: x[:, :, 2],
    "overlapping": lambda x: torch.as_strided(x, (7, 7, 5), (9, 9, 1)),
    "a window that slides": lambda x: torch.as_strided(x, (40, 33), (1, 1)),
    "beginning anywhere": lambda x: x.flatten()[3 : 3 + 64 * 32].view(64, 32),
}


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_strides(view, dtype):
    x = VIEWS[view](normal((6, 8, 5, 9), dtype))
    check(x, 5)
    check_norm(x)


def test_factors_of_any_strides_and_of_float64():
    x = normal((19, 7, 40))
    factors = [normal((6, n)).t() for n in x.shape]
    check(x, 6, factors=factors)
    check(x, 6, double=True, factors=[f.double() for f in factors])


@pytest.mark.usefixtures("_wide")
def test_offsets_and_indices_of_64_bits():
    for view in ("permuted", "expanded", "overlapping", "beginning anywhere"):
        test_strides(view, torch.float32)
    check(normal((5, 31, 80)), 40)


def test_offsets_beyond_32_bits():
    """Strides fit into 32 bits, offsets do not; what lies between is never touched."""
    step = 2**30 + 2**20
    length = 2 * step + 2400
    if DEVICE == "cpu":
        whole = torch.from_numpy(np.zeros(length, np.float16))
    else:
        whole = torch.zeros(length, dtype=torch.float16, device=DEVICE)
    x = torch.as_strided(whole, (3, 40, 60), (step, 60, 1))
    x.copy_(normal(tuple(x.shape), torch.float16))
    check(x, 5)
    check_norm(x)


def test_a_cut_is_taken_that_keeps_indices_in_32_bits():
    shape, strides = (1 << 15, 1 << 10, 1 << 15), (1 << 25, 1 << 15, 1)
    way = kernels._plan(shape, strides, "float32", "float32", 16, CHIPS[90])
    assert (way.known["WIDE"], way.known["LONG"]) == (True, False)
    # Where one mode alone is too long, no cut helps.
    way = kernels._plan((4, 1 << 32), (1 << 32, 1), "float32", "float32", 16, CHIPS[90])
    assert way.known["LONG"]


def test_what_lies_side_by_side_is_known():
    """Of modes that repeat, or have length 1, whatever their strides, nothing else depends."""
    for shape, strides in [
        ((30, 64, 80), (64 * 80, 80, 1)),
        ((80, 30, 64), (1, 64 * 80, 80)),
        ((64, 80, 30, 1), (80, 1, 0, 1)),
    ]:
        way = kernels._plan(shape, strides, "float32", "float32", 16, CHIPS[90])
        assert (way.known["CONTIGUOUS"], way.known["UNIT"]) == (True, 4)
    way = kernels._plan((64, 80), (160, 2), "float32", "float32", 16, CHIPS[90])
    assert (way.known["CONTIGUOUS"], way.known["UNIT"]) == (False, 1)


@pytest.mark.parametrize("rank", [5, 20, 40])
@pytest.mark.parametrize("capability", CHIPS)
def test_the_ways_of_every_chip(capability, rank):
    x = normal((30, 9, 24))
    factors = [normal((n, rank), torch.float32, k + 1) for k, n in enumerate(x.shape)]
    for double in (False, True):
        check(x, rank, double, factors, CHIPS[capability])


@pytest.mark.parametrize("rank", [20, 40])
@pytest.mark.parametrize("capability", CHIPS)
def test_as_many_modes_as_there_may_be(capability, rank):
    x = normal((3, 2, 3, 2, 5, 3, 2, 3))
    factors = [normal((n, rank), torch.float32, k + 1) for k, n in enumerate(x.shape)]
    for double in (False, True):
        check(x, rank, double, factors, CHIPS[capability])


def test_many_modes_and_long_indices_leave_fewer_registers_for_the_tile():
    def tiles(*shape, rank=40, wide="float32"):
        strides = tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))
        ways = [kernels._plan(shape, strides, "float32", wide, rank, chip) for chip in chips]
        return [(way.tile.block_m, way.tile.warps, way.known["HELD"]) for way in ways]

    chips = CHIPS[80], CHIPS[90]
    assert tiles(9, 9, 9) == [(128, 8, False), (64, 4, True)]
    assert tiles(9, 9, 1 << 28) == tiles(*[3] * 6) == [(128, 8, False)] * 2
    assert tiles(9, 9, 9, 9, rank=20) == [(64, 8, True), (64, 4, True)]
    assert tiles(9, 9, 9, 16, rank=20) == [(64, 4, True)] * 2
    assert tiles(9, 9, 9, wide="float64") == [(64, 8, False)] * 2
    assert tiles(*[3] * 6, wide="float64") == [(32, 8, False)] * 2


@pytest.mark.parametrize("rank", [4, 40])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_exact_model_leaves_nothing(dtype, rank):
    """Whole numbers, few enough that every type holds the model and all parts of its sums."""
    generator = torch.Generator().manual_seed(0)
    signs = [torch.randint(-1, 2, (n, rank), generator=generator) for n in (19, 7, 40)]
    factors = [f.to(DEVICE, compute_type(dtype)) for f in signs]
    x = model_of(factors)
    assert float(x.abs().max()) > 2
    for double in (False, True):
        assert float(residual(x.to(dtype), factors, double)) == 0.0
    x[3, 2, 1] += 0.5
    assert float(residual(x.to(dtype), factors)) == 0.25


@pytest.mark.parametrize("rank", [8, 40])
@pytest.mark.parametrize("shape", [(20, 30, 40), (9, 10, 11, 24)], ids=str)
def test_a_residual_of_1e_4_has_its_digits(shape, rank):
    """In float32, where the formula of three scalars has none.

    Rounding ``e`` does not know of the noise ``d``: their inner product is that of a fixed and of
    a random direction, below ``6 ||d|| ||e|| / sqrt(n)`` but for one draw in 10^9. Products of one
    or three parts would be caught: theirs are 100 and 8 times the error, squared.
    """
    x, (weights, factors) = planted(shape, rank, noise=1e-4, dtype=torch.float32)
    factors = [(factors[0] * weights), *factors[1:]]
    exact = [f.double() for f in factors]
    d = x.double() - model_of(exact)
    assert 0.9e-4 < float(d.norm() / x.double().norm()) < 1.1e-4
    u = unit_roundoff(torch.float32)
    e = float((rounding(rank, len(shape)) * u * model_of([f.abs() for f in exact])).norm())
    norm = float(d.norm())
    bound = 12 * norm * e / math.sqrt(d.numel()) + e**2 + 2 * u * norm**2
    assert bound < 0.02 * norm**2
    x, factors = x.to(DEVICE), [f.to(DEVICE) for f in factors]
    assert abs(float(residual(x, factors)) - norm**2) <= bound
    bound = 1e-10 * norm**2
    assert abs(float(residual(x, factors, double=True)) - norm**2) <= bound


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_squares_of_float32_neither_overflow_nor_vanish(value):
    x = torch.full((30, 40), value, device=DEVICE)
    factors = [torch.zeros(n, 3, device=DEVICE) for n in x.shape]
    expected = 1200 * float(x[0, 0].double()) ** 2
    for found in (residual(x, factors), squared_norm(x)):
        assert abs(float(found) - expected) <= 1e-12 * expected


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_shows(value):
    x = normal((20, 30))
    x[7, 9] = value
    factors = [normal((n, 3)) for n in x.shape]
    assert not math.isfinite(residual(x, factors))
    assert not math.isfinite(squared_norm(x))
    factors[1][4, 2] = value
    assert not math.isfinite(residual(torch.zeros_like(x), factors))


@pytest.mark.usefixtures("programs")
def test_the_same_bits_every_time():
    x = normal((5, 600, 40))
    factors = [normal((n, 5), torch.float32, n) for n in x.shape]
    assert len({float(residual(x, factors)) for _ in range(4)}) == 1
    assert len({float(squared_norm(x)) for _ in range(4)}) == 1


def test_few_partial_sums_whatever_the_size():
    for shape in ((1 << 11,) * 3, (1 << 20, 4, 1 << 10), (4, 1 << 28), (1 << 28, 4)):
        strides = torch.empty(shape, device="meta").stride()
        for chip in CHIPS.values():
            way = kernels._plan(shape, strides, "float32", "float32", 16, chip)
            assert way.programs <= max(kernels.ACROSS, kernels.ROUNDS * chip.multiprocessors)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA GPU")
def test_a_cuda_graph_computes_anew():
    x = normal((64, 33, 80))
    factors = [normal((n, 17), torch.float32, n) for n in x.shape]
    expected = residual(x, factors) + squared_norm(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = residual(x, factors) + squared_norm(x)
    graph.replay()
    assert torch.equal(found, expected)
    x.mul_(2)
    graph.replay()
    assert torch.equal(found, residual(x, factors) + squared_norm(x))


def test_predictions():
    """Of an H200, as the kernel's page tells them."""
    shape, strides, chip = (512, 512, 512), (512 * 512, 512, 1), CHIPS[90]
    for rank, low, high in ((16, 1.4e-4, 1.7e-4), (64, 1.7e-4, 2.2e-4), (256, 6e-4, 8e-4)):
        flops, nbytes, seconds = kernels.cost(shape, strides, rank, "float32", False, chip)
        assert (flops, nbytes) == (2.0 * 512**3 * rank, 4.0 * 512**3)
        assert low < seconds < high
    flops, nbytes, seconds = norm.cost(shape, "float32", chip)
    assert (flops, nbytes) == (2.0 * 512**3, 4.0 * 512**3)
    assert 1.3e-4 < seconds < 1.5e-4
    assert kernels.cost((70,), (1,), 3, "float64", False, chip)[2] > 0
