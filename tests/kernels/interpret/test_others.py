"""Khatri-Rao product, second-level contraction, Gram matrix."""

import itertools
import math

import pytest
import torch
from triton import knobs

from tensorfast import reference
from tensorfast.kernels import gram, khatri_rao, partial
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
