"""The slab pass: every place of its modes in memory, types, precisions; and ALS by passes."""

import math
from dataclasses import replace

import pytest
import torch
from triton import knobs

from tensorfast import baseline, reference
from tensorfast.cp import slab as schedule
from tensorfast.cp.stopping import hadamard
from tensorfast.kernels import slab, slab_plan
from tensorfast.kernels.configs import Tile
from tensorfast.kernels.devices import CHIPS
from tensorfast.kernels.plan import Contraction
from tensorfast.precision import unit_roundoff
from tensorfast.testing import assert_close, planted
from tensorfast.testing import normal as drawn

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
PAIRS = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]


def normal(*arguments):
    return drawn(*arguments).to(DEVICE)


def compute_type(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def by_stride(x):
    return sorted(range(x.ndim), key=lambda n: (-x.stride(n), n))


def cut(x, mode, group, rank, precision="ieee", programs=2, stretch=32, block_r=16):
    """Return a plan that cuts a small problem many times."""
    p = next(slab_plan.candidates(Contraction.of(x, (mode, *group), rank, precision, CHIPS[90])))
    tile = Tile(16, 16, block_r, 4, 1)
    programs = min(programs, -(-x.shape[mode] // p.together))
    return replace(p, tile=tile, programs=programs, stretch=stretch)


def problem(x, rank, mode):
    """Return factors, and a well-conditioned inverse."""
    wide = compute_type(x.dtype)
    factors = [normal((n, rank), wide, n + 1) for n in x.shape]
    h = normal((rank, rank), torch.float64, 9) / rank**0.5
    return factors, torch.linalg.inv(h + 4 * torch.eye(rank, device=DEVICE))


def contraction(x, given):
    """Contract with the factors ``given`` by mode; the modes left in memory order."""
    letters = "abcdef"[: x.ndim]
    terms = ",".join([letters, *(letters[n] + "r" for n in given)])
    kept = "".join(letters[n] for n in by_stride(x) if n not in given)
    return torch.einsum(f"{terms}->{kept}r", x, *given.values())


def check(x, mode, group, rank=5, shifted=False, precision="ieee", way=None):
    """Hold the three results to those of float64, each from the one before as it came out."""
    wide, (factors, inverse) = compute_type(x.dtype), problem(x, rank, mode)
    shift = normal((rank,), torch.float64, 10).abs() if shifted else None
    found = slab.slab_pass(x, factors, mode, group, inverse, shift, precision, way=way)
    assert {found.factor.dtype, found.mttkrp.dtype, found.partial.dtype} == {wide}
    exact, x = {n: f.double() for n, f in enumerate(factors)}, x.double()

    others = {n: f for n, f in exact.items() if n != mode}
    scale = contraction(x.abs(), {n: f.abs() for n, f in others.items()})
    terms = math.prod(x.shape[n] for n in others) + x.ndim
    tolerance = {"dtype": wide, "precision": precision}
    assert_close(found.mttkrp, contraction(x, others), scale, terms, **tolerance)

    right = found.mttkrp.double() + (0 if shift is None else shift * exact[mode])
    solved, scale = right @ inverse, right.abs() @ inverse.abs()
    # In float64, and rounded once.
    terms, scale = (rank, scale) if wide == torch.float64 else (1, solved.abs() + 1e-8 * scale)
    assert_close(found.factor, solved, scale, terms, dtype=wide, c=1.0)

    given = {n: f for n, f in exact.items() if n not in group}
    given[mode] = found.factor.double()
    scale = contraction(x.abs(), {n: f.abs() for n, f in given.items()})
    terms = math.prod(x.shape[n] for n in given) + x.ndim
    assert_close(found.partial, contraction(x, given), scale, terms, **tolerance)
    return found


@pytest.mark.parametrize("shape", [(8, 16, 20), (6, 17, 19)], ids=["aligned", "ragged"])
@pytest.mark.parametrize(("mode", "other"), PAIRS)
def test_every_mode_and_group(mode, other, shape):
    x = normal(shape)
    check(x, mode, [other], way=cut(x, mode, [other], 5))


@pytest.mark.parametrize(("mode", "other"), PAIRS)
def test_every_order_in_memory_with_the_plan_of_the_heuristic(mode, other):
    check(normal((9, 5, 70)).permute(1, 2, 0), mode, [other], rank=20, shifted=True)


@pytest.mark.parametrize(
    ("shape", "mode", "group"),
    [
        ((4, 3, 5, 6), 0, (2, 1)),
        ((4, 3, 5, 6), 1, (0, 3)),
        ((4, 3, 5, 6), 1, (3, 0)),
        ((4, 3, 5, 6), 3, (1,)),
        ((4, 3, 5, 6), 2, (3,)),
        ((3, 2, 4, 2, 3), 1, (0, 3)),
        ((3, 2, 4, 2, 3), 4, (2,)),
        ((3, 2, 4, 2, 3), 2, (4, 0, 1)),
        ((2, 3, 4, 2, 3), 0, (3,)),
    ],
    ids=str,
)
def test_higher_orders(shape, mode, group):
    x = normal(shape).movedim(1, 0)
    check(x, mode, group, way=cut(x, mode, group, 5))


@pytest.mark.parametrize("block_r", [16, 32])
@pytest.mark.parametrize(("mode", "group"), [(0, (1,)), (2, (1,))], ids=str)
def test_more_columns_than_a_tile_and_more_terms_than_a_stretch(mode, group, block_r):
    x = normal((5, 18, 70) if mode == 0 else (70, 18, 5))
    check(x, mode, group, 40, shifted=True, way=cut(x, mode, group, 40, block_r=block_r))


@pytest.mark.parametrize("rank", [1, 16, 70, 130])
def test_ranks_with_the_plan_of_the_heuristic(rank):
    check(normal((3, 20, 40)), 0, (1,), rank)


@pytest.mark.parametrize("programs", [1, 2, 3, 7])
@pytest.mark.parametrize("slabs", [1, 7])
@pytest.mark.parametrize("place", [0, 2])
def test_slabs_are_shared_out_whole(place, slabs, programs):
    x = normal((slabs, 5, 18)).movedim(0, place).contiguous()
    way = cut(x, place, (1,), 5, programs=programs)
    assert way.together == (4 if place == 2 and slabs > 1 else 1)
    check(x, place, (1,), way=way)


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types_and_precisions(dtype, precision):
    x = normal((9, 6, 40), dtype)
    for mode, other in [(0, 1), (0, 2), (2, 0)]:
        check(x, mode, (other,), 7, precision=precision)


@pytest.mark.parametrize("shape", [(1, 7, 5), (6, 1, 9), (5, 8, 1), (1, 1, 3), (1, 1, 1)], ids=str)
def test_modes_of_length_one(shape):
    x = normal(shape)
    for mode, other in PAIRS:
        check(x, mode, (other,), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_strides(dtype):
    x = normal((6, 8, 5, 9), dtype)
    views = [
        # An odd offset in memory; gaps; runs that are not aligned.
        x.flatten()[7:].as_strided((5, 6, 16), (130, 17, 1)),
        x[::2, 1:, 2],
        x[1:, :, :, 3].permute(2, 0, 1),
        # The same memory again and again.
        x[0, :1].expand(4, 5, 9),
        x.as_strided((7, 7, 5), (9, 9, 1)),
    ]
    for view in views:
        for mode, other in [(0, 1), (1, 2), (2, 0)]:
            check(view, mode, (other,), way=cut(view, mode, (other,), 5))


@pytest.mark.parametrize(("mode", "other"), PAIRS)
def test_nothing_outside_is_read(mode, other):
    around = torch.full((7, 8, 20), torch.nan, device=DEVICE)
    x = around[1:6, 2:7, 1:18].copy_(normal((5, 5, 17)))
    check(x, mode, (other,), way=cut(x, mode, (other,), 5))


@pytest.mark.usefixtures("wide")
def test_offsets_of_64_bits():
    for mode, other in [(0, 1), (2, 0)]:
        check(normal((5, 6, 17)), mode, (other,))


def test_factors_of_any_strides_and_types():
    x, wanted = normal((4, 6, 9)), []
    factors, inverse = problem(x, 5, 0)
    for u in (factors, [f.double() for f in factors], [f.t().contiguous().t() for f in factors]):
        wanted.append(slab.slab_pass(x, u, 0, (1,), inverse))
    for found in wanted[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, wanted[0], strict=True))


def test_the_same_bits_every_time():
    x = normal((7, 10, 30))
    factors, inverse = problem(x, 8, 0)
    way = cut(x, 0, (1,), 8, programs=3)
    first, second = (slab.slab_pass(x, factors, 0, (1,), inverse, way=way) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("group", [(1,), (3,), (1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 0, 1), (1, 3, 2, 0)], ids=str)
def test_the_schedule_in_torch_gives_the_same(order, group):
    x = normal((9, 4, 3, 6), torch.float64)
    x = x.permute(order).contiguous().permute([order.index(n) for n in range(4)])
    factors, inverse = problem(x, 3, 0)
    shift = normal((3,), torch.float64, 10).abs()
    found = slab.slab_pass(x, factors, 0, group, inverse, shift)

    def solve(product, current):
        return (product + shift * current) @ inverse

    same = schedule.slab_pass(x, factors, 0, group, solve, elements=200)
    for a, b in zip(found, same, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("dtype", "order"),
    [(torch.float32, (0, 1, 2)), (torch.float32, (2, 0, 1)), (torch.float64, (1, 2, 0))],
    ids=str,
)
def test_three_passes_make_two_sweeps_of_plain_als(dtype, order):
    x, (_, start) = planted((8, 9, 10), 3, noise=0.1, dtype=torch.float64)
    stored = x.permute(order).contiguous().permute([order.index(n) for n in range(3)])
    stored = stored.to(DEVICE, dtype)
    plain, passed = list(start), [f.to(DEVICE, dtype) for f in start]
    conditions = []
    for mode in [0, 1, 2] * 2:
        h = normal_matrix(plain, mode)
        conditions.append(float(torch.linalg.cond(h)))
        others = [f for n, f in enumerate(plain) if n != mode]
        plain[mode] = reference.mttkrp(x, others, mode) @ torch.linalg.inv(h)
    for mode, other in [(0, 1), (2, 0), (1, 2)]:
        inverse = torch.linalg.inv(normal_matrix(passed, mode))
        found = slab.slab_pass(stored, passed, mode, (other,), inverse)
        passed[mode] = found.factor
        inverse = torch.linalg.inv(normal_matrix(passed, other))
        passed[other] = (found.partial.double() @ inverse).to(dtype)
    # Of each update, the rounding of sums of 90 terms at most, as the solve makes it larger.
    bound = 1e-12 if dtype == torch.float64 else unit_roundoff(dtype) * 90 * sum(conditions)
    for a, b in zip(passed, plain, strict=True):
        assert torch.linalg.norm(a.cpu() - b) <= bound * torch.linalg.norm(b)


def normal_matrix(factors, mode):
    grams = [baseline.gram_of_columns(f) for n, f in enumerate(factors) if n != mode]
    return hadamard(grams)
