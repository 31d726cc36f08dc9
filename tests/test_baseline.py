"""The building blocks of the plain-torch formulation: cuts, blocks, and what is never formed."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tensorfast import baseline, matmul, reference, unfold
from tensorfast.blocks import by_stride
from tensorfast.precision import compute_dtype, solve_dtype
from tensorfast.testing import assert_close, normal, poisoned_memory

SHAPES = [(7, 5, 6, 4), (1, 5, 1, 4), (30, 2, 3, 2), (2, 3, 2, 30)]
GROUPS = [(lo, hi) for lo, hi in itertools.combinations(range(5), 2) if hi - lo < 4]


@pytest.fixture(autouse=True)
def _poisoned():
    with poisoned_memory():
        yield


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """Run small problems as if memory were small too, so that each is cut many times."""
    if request.param == "many blocks":
        monkeypatch.setattr(baseline, "SLAB", 60)
        monkeypatch.setattr(matmul, "LONG", 4)
        for module in (baseline, matmul):
            monkeypatch.setattr(module, "BLOCK", 40)


def every_second(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0
) -> Tensor:
    whole = normal([2 * n for n in shape], dtype, seed)
    return whole[(slice(None, None, 2),) * len(shape)]


def inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def against_formula(call, formula, *operands: Tensor, length: int) -> None:
    wide = [t.to(solve_dtype(t.dtype)) for t in operands]
    exact, scale = formula(*wide), formula(*(t.abs() for t in wide))
    assert_close(call(*operands), exact, scale, length + 3)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "sliced"])
@pytest.mark.parametrize(("lo", "hi"), GROUPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract_data(shape, lo, hi, sliced, dtype):
    x = (every_second if sliced else normal)(shape, dtype=dtype)
    group = math.prod(shape[lo:hi])
    k = normal((group, 3), seed=1)

    def formula(x, k):
        moved = x.movedim(tuple(range(lo, hi)), tuple(range(4 - hi + lo, 4)))
        return moved.reshape(*shape[:lo], *shape[hi:], group) @ k

    against_formula(lambda x, k: baseline.contract_data(x, lo, hi, k), formula, x, k, length=group)
    # What is contracted next is seen as [left, group, right].
    assert baseline.contract_data(x, lo, hi, k).is_contiguous()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("lo", "hi"), GROUPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract_partial(shape, lo, hi):
    group = math.prod(shape[lo:hi])
    p, k = normal((*shape, 3)), normal((group, 3), seed=1)

    def formula(p, k):
        rows = k.reshape(*shape[lo:hi], *[1] * (4 - hi), 3)
        return (p * rows).sum(tuple(range(lo, hi)))

    against_formula(
        lambda p, k: baseline.contract_partial(p, lo, hi, k), formula, p, k, length=group
    )


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "sliced"])
@pytest.mark.parametrize(("lo", "hi"), [(1, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract_sides(shape, lo, hi, sliced, dtype):
    left, right = math.prod(shape[:lo]), math.prod(shape[hi:])
    x = (every_second if sliced else normal)(shape, dtype=dtype)
    operands = x, normal((left, 3), seed=1), normal((right, 3), seed=2)

    def formula(x, a, b):
        flat = x.reshape(left, -1, right)
        return torch.einsum("lmr,lk,rk->mk", flat, a, b).reshape(*shape[lo:hi], 3)

    against_formula(
        lambda x, a, b: baseline.contract_sides(x, lo, hi, a, b),
        formula,
        *operands,
        length=left * right,
    )


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_operation_in_blocks(shape, order, dtype):
    x = normal(shape, dtype=dtype).permute(order)
    factors = [normal((n, 3), seed=n) for n in x.shape]
    for mode, size in enumerate(x.shape):
        others = [u for n, u in enumerate(factors) if n != mode]
        against_formula(
            lambda x, *u, n=mode: baseline.mttkrp(x, u, n),
            lambda x, *u, n=mode: reference.mttkrp(x, u, n),
            x,
            *others,
            length=x.numel() // size,
        )
        against_formula(
            lambda x, a, n=mode: baseline.ttm(x, a, n, True),
            lambda x, a, n=mode: reference.ttm(x, a, n, True),
            x,
            factors[mode],
            length=size,
        )
        against_formula(
            lambda x, n=mode: baseline.gram(x, n),
            lambda x, n=mode: reference.gram(x, n),
            x,
            length=x.numel() // size,
        )


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "sliced"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross(shape, order, sliced, dtype):
    x = (every_second if sliced else normal)(shape, dtype=dtype).permute(order)
    for mode, size in enumerate(x.shape):
        sizes = [2 if n == mode else s for n, s in enumerate(x.shape)]
        y = normal(sizes, dtype=compute_dtype(dtype), seed=1)
        # Its own order of memory, and that of ``x``.
        as_x = y.permute(by_stride(x)).contiguous().permute(inverse(by_stride(x)))
        for laid in (y, as_x):
            against_formula(
                lambda x, y, n=mode: baseline.cross(x, y, n),
                lambda x, y, n=mode: unfold(x, n) @ unfold(y, n).mH,
                x,
                laid,
                length=x.numel() // size,
            )


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128],
    ids=str,
)
def test_scalars_and_grams_of_factors_are_in_double_precision(dtype):
    wide = torch.promote_types(dtype, torch.float64)
    parts = normal((40, 6)), normal((40, 6), seed=1)
    factor = torch.complex(*parts).to(dtype) if dtype.is_complex else parts[0].to(dtype)
    for laid in (factor, factor.t().contiguous().t(), factor[::2], factor[:, 1:]):
        gram = baseline.gram_of_columns(laid)
        assert gram.dtype == wide
        exact = laid.to(wide).mH @ laid.to(wide)
        torch.testing.assert_close(gram, exact, rtol=1e-13, atol=1e-13)
        squares = baseline.sum_of_squares(laid.reshape(-1, 2, 3) if laid is factor else laid)
        assert squares.dtype == torch.float64
        assert float(squares) == pytest.approx(float(laid.to(wide).abs().square().sum()), rel=1e-7)


def test_the_squared_norm_of_float32_is_summed_in_double_precision():
    x = torch.full((3000, 1000), 0.1)
    exact = 3e6 * float(x[0, 0]) ** 2
    for laid in (x, x.t(), x.expand(2, 3000, 1000)[0, ::1]):
        assert float(baseline.sum_of_squares(laid)) == pytest.approx(exact, rel=1e-9)
    assert float(baseline.sum_of_squares(torch.full((9,), 1e30))) == pytest.approx(9e60, rel=1e-6)


def test_by_stride_is_the_order_of_memory():
    x = torch.empty(2, 3, 4, 5)
    for order in itertools.permutations(range(4)):
        assert x.permute(order).permute(by_stride(x.permute(order))).is_contiguous()
    assert by_stride(x[:1].expand(9, 3, 4, 5)) == [1, 2, 3, 0]


class Largest(TorchDispatchMode):
    """Note the most elements that any operation allocated at once."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {
            t.untyped_storage().data_ptr()
            for t in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(t, Tensor)
        }
        if isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in given:
            self.elements = max(self.elements, out.untyped_storage().nbytes() // out.itemsize)
        return out


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 2, 1)], ids=str)
def test_mttkrp_copies_no_tensor_and_forms_one_side_at_a_time(mode, order, monkeypatch):
    monkeypatch.setattr(baseline, "BLOCK", 1000)
    shape, rank = (12, 13, 14, 15), 4
    x = normal(shape).permute(order)
    others = [normal((n, rank), seed=n) for m, n in enumerate(x.shape) if m != mode]
    with Largest() as largest:
        baseline.mttkrp(x, others, mode)
    at = by_stride(x).index(mode)
    sides = max(math.prod(shape[:at]), math.prod(shape[at + 1 :])) * rank
    # One side of the Khatri-Rao product, or a block.
    assert largest.elements <= max(sides, 1000) < x.numel() / 2


@pytest.mark.parametrize("lay", [normal, every_second], ids=["half", "sliced"])
@pytest.mark.parametrize("shape", [(40, 40, 8), (8, 40, 40), (2, 40, 160)], ids=str)
def test_the_intermediate_of_two_sides_never_exists(shape, lay, monkeypatch):
    monkeypatch.setattr(baseline, "BLOCK", 1000)
    monkeypatch.setattr(baseline, "SLAB", 1000)
    # What is short is copied.
    monkeypatch.setattr(baseline, "SHORT", 0)
    rank = 16
    x = lay(shape, dtype=torch.float16 if lay is normal else torch.float32)
    sides = normal((shape[0], rank), seed=1), normal((shape[2], rank), seed=2)
    with Largest() as largest:
        baseline.contract_sides(x, 1, 2, *sides)
    assert largest.elements <= 1000


LIFTED = {
    "contract_data": lambda x, n: baseline.contract_data(x, n, n + 1, normal((x.shape[n], 1))),
    "mttkrp": lambda x, n: baseline.mttkrp(x, [normal((s, 1)) for s in others(x, n)], n),
    "ttm": lambda x, n: baseline.ttm(x, normal((2, x.shape[n])), n),
    "cross": lambda x, n: baseline.cross(x, x.narrow(n, 0, 2).to(torch.float32), n),
    "sum_of_squares": lambda x, n: baseline.sum_of_squares(x),
}


def others(x: Tensor, mode: int) -> list[int]:
    return [size for n, size in enumerate(x.shape) if n != mode]


@pytest.mark.parametrize("call", LIFTED.values(), ids=LIFTED.keys())
@pytest.mark.parametrize("lay", [normal, every_second], ids=["half", "sliced"])
@pytest.mark.parametrize("long", [(0, 1), (0, 2), (1, 2)], ids=str)
def test_what_is_lifted_is_small_whichever_modes_are_long(long, lay, call, monkeypatch):
    monkeypatch.setattr(baseline, "BLOCK", 400)
    monkeypatch.setattr(baseline, "SLAB", 200)
    shape = [60 if n in long else 1 for n in range(3)]
    x = lay(shape, dtype=torch.float16 if lay is normal else torch.float32)
    for mode in long:
        with Largest() as largest:
            call(x, mode)
        assert largest.elements <= 400 < x.numel() / 8


@pytest.mark.parametrize("mode", [0, 1])
def test_a_gram_matrix_is_summed_in_slabs_of_the_long_mode(mode, monkeypatch):
    monkeypatch.setattr(baseline, "SLAB", 200)
    for x in (normal((2, 3, 900), dtype=torch.float16), normal((1, 3, 900)), normal((3, 1, 900))):
        with Largest() as largest:
            baseline.gram(x, mode)
        assert largest.elements <= 400


@pytest.mark.parametrize("lay", [normal, every_second], ids=["half", "sliced"])
def test_data_that_is_lifted_is_not_promoted_whole(lay, monkeypatch):
    monkeypatch.setattr(baseline, "SLAB", 200)
    x = lay((60, 50, 1), dtype=torch.float16 if lay is normal else torch.float32)
    factors = [normal((n, 1), dtype=torch.float64) for n in (50, 1)]
    with Largest() as largest:
        assert baseline.mttkrp(x, factors, 0).dtype == torch.float64
    assert largest.elements <= 200


def test_largest_sees_a_copy():
    x = normal((4, 5))
    with Largest() as largest:
        x.t().reshape(-1)
    assert largest.elements == 20
    with Largest() as largest:
        x.view(-1).sum()
    assert largest.elements == 1


@pytest.mark.parametrize("mode", range(3))
def test_ttm_copies_no_tensor(mode):
    for x in (normal((20, 30, 40)), normal((40, 30, 20)).permute(2, 1, 0)):
        matrix = normal((2, x.shape[mode]), seed=1)
        with Largest() as largest:
            baseline.ttm(x, matrix, mode)
        assert largest.elements <= 2 * x.numel() // x.shape[mode]
