"""Khatri-Rao product, second-level contraction, Gram matrix, slab pass."""

import itertools
import math

import pytest
import torch
from triton import knobs

from tensorfast import reference
from tensorfast.kernels import gram, khatri_rao, partial, slab
from tensorfast.testing import assert_close
from tensorfast.testing import normal as drawn

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def normal(*arguments):
    return drawn(*arguments).to(DEVICE)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("rank", [1, 5, 40])
@pytest.mark.parametrize("sizes", [(7,), (40, 3), (5, 1, 9), (2, 3, 4, 5)], ids=str)
def test_khatri_rao(sizes, rank, dtype):
    factors = [normal((n, rank), dtype, n) for n in sizes]
    found = khatri_rao.khatri_rao(factors)
    wide = [f.double() for f in factors]
    expected = reference.khatri_rao(wide)
    assert_close(found, expected, expected.abs(), len(sizes), dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("shape", [(3, 40, 4, 5), (1, 9, 33, 2), (50, 3, 1, 16), (2, 700, 1, 3)])
def test_contract_partial(shape, dtype, monkeypatch):
    monkeypatch.setattr(partial, "BLOCK_G", 2)
    p = normal(shape, dtype)
    for lo, hi in itertools.combinations(range(4), 2):
        if hi - lo == 3:
            continue
        factors = [normal((n, shape[-1]), dtype, n) for n in shape[lo:hi]]
        found = partial.contract_partial(p, lo, hi, factors)
        k = reference.khatri_rao([f.double() for f in factors])
        rows = k.reshape(*shape[lo:hi], *[1] * (3 - hi), shape[-1])
        expected, scale = (
            (a * b).sum(tuple(range(lo, hi)))
            for a, b in ((p.double(), rows), (p.double().abs(), rows.abs()))
        )
        assert_close(found, expected, scale, math.prod(shape[lo:hi]) + 2, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(70, 9, 40), (1, 5, 3), (17, 300), (4, 5, 3, 6)], ids=str)
def test_gram(shape, dtype, double):
    x = normal(shape, dtype)
    wide = torch.float64 if double or dtype == torch.float64 else torch.float32
    for view in (x, x.transpose(0, -1), x[..., ::2]):
        for mode in range(view.ndim):
            found = gram.gram(view, mode, wide)
            expected = reference.gram(view.double(), mode, torch.float64)
            scale = reference.gram(view.double().abs(), mode, torch.float64)
            length = view.numel() // view.shape[mode]
            assert_close(found, expected, scale, length, dtype=wide)
            assert torch.equal(found, found.t())


@pytest.mark.usefixtures("wide")
def test_offsets_of_64_bits(monkeypatch):
    test_khatri_rao((5, 1, 9), 5, torch.float32)
    test_contract_partial((3, 40, 4, 5), torch.float32, monkeypatch)
    test_gram((4, 5, 3, 6), torch.float32, double=False)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("order", "dtype"),
    [
        ((0, 1, 2), torch.float32),
        ((2, 0, 1), torch.float32),
        ((1, 2, 0), torch.float64),
        ((0, 2, 1), torch.bfloat16),
    ],
    ids=str,
)
def test_slab_pass(order, dtype, monkeypatch):
    monkeypatch.setattr(slab, "programs_for", lambda slabs, chip: min(slabs, 3))
    x = normal((19, 5, 18), dtype).permute(order)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    rank = 17
    factors = [normal((n, rank), wide, n) for n in x.shape]
    for mode in range(3):
        for group in ([n] for n in range(3) if n != mode):
            check_pass(x, factors, mode, group, wide)
        check_pass(x, factors, mode, [n for n in range(3) if n != mode][:1], wide, shifted=True)


@pytest.mark.usefixtures("small_tiles")
def test_slab_pass_of_higher_order():
    x = normal((5, 4, 3, 6), torch.float32)
    factors = [normal((n, 3), torch.float32, n) for n in x.shape]
    for mode in range(4):
        others = [n for n in range(4) if n != mode]
        for size in (1, 2):
            for group in itertools.combinations(others, size):
                check_pass(x, factors, mode, list(group), torch.float32)


def check_pass(x, factors, mode, group, wide, shifted=False):
    """Hold the three results to those of float64, each from the one before as it came out."""
    rank = factors[0].shape[1]
    inverse = torch.linalg.inv(
        normal((rank, rank), torch.float64, 9) + 8 * torch.eye(rank, device=DEVICE)
    )
    shift = normal((rank,), torch.float64, 10).abs() if shifted else None
    found = slab.slab_pass(x, factors, mode, group, inverse, shift)
    exact = [f.double() for f in factors]
    others = [f for n, f in enumerate(exact) if n != mode]
    product = reference.mttkrp(x.double(), others, mode)
    scale = reference.mttkrp(x.double().abs(), [f.abs() for f in others], mode)
    length = x.numel() // x.shape[mode]
    assert_close(found.mttkrp, product, scale, length, dtype=wide)
    right = found.mttkrp.double() + (0 if shift is None else shift * exact[mode])
    assert_close(found.factor, right @ inverse, right.abs() @ inverse.abs(), 2, dtype=wide)
    given = {n: exact[n] for n in range(x.ndim) if n not in (mode, *group)}
    given[mode] = found.factor.double()
    letters = "abcdef"[: x.ndim]
    terms = ",".join([letters, *(letters[n] + "r" for n in given)])
    equation = f"{terms}->{''.join(letters[n] for n in group)}r"
    partial_sum = torch.einsum(equation, x.double(), *given.values())
    scale = torch.einsum(equation, x.double().abs(), *(f.abs() for f in given.values()))
    assert_close(found.partial, partial_sum, scale, length * x.shape[mode], dtype=wide)
