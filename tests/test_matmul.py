"""Products of a wide and a narrow operand: right by every route, whatever the layout."""

import pytest
import torch
from torch import Tensor

from tensorfast import matmul
from tensorfast.testing import assert_close

#: Rows, terms and columns: large enough for oneDNN, too small, and narrow.
LARGE = [(600, 300, 40), (5, 40_000, 8), (40_000, 5, 20), (3000, 700, 1)]
SMALL = [(50, 30, 16), (700, 200, 3)]


def uniform(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layouts(a: Tensor) -> dict[str, Tensor]:
    """Return ``a`` row-major, column-major, at an odd address, as every second column."""
    odd = torch.empty(a.numel() + 1, dtype=a.dtype)[1:].view(a.shape).copy_(a)
    wide = torch.empty(a.shape[0], 2 * a.shape[1], dtype=a.dtype)[:, ::2].copy_(a)
    return {"rows": a, "columns": a.t().contiguous().t(), "odd": odd, "strided": wide}


@pytest.fixture(params=["this CPU's way", "without oneDNN"])
def way(request, monkeypatch):
    if request.param == "without oneDNN":
        monkeypatch.setattr(matmul, "_onednn", lambda: None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("in_place", [False, True], ids=["new", "in place"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [*LARGE, *SMALL], ids=str)
def test_product(size, dtype, in_place):
    rows, length, columns = size
    a, b = uniform(rows, length, dtype=dtype) - 0.5, uniform(length, columns, dtype=dtype, seed=1)
    exact, scale = a.double() @ b.double(), a.double().abs() @ b.double()
    for narrow in layouts(b.t()).values():
        for wide in layouts(a.t()).values():
            assert_close(matmul.product(narrow, wide), exact.t(), scale.t(), length + 3)
    for wide in layouts(a).values():
        for narrow in layouts(b).values():
            out = torch.full((rows, columns), torch.nan, dtype=dtype) if in_place else None
            result = matmul.product(wide, narrow, out)
            assert_close(result, exact, scale, length + 3)
            # By columns a narrow product is as quick to form anew as to copy.
            assert out is None or columns < matmul.NARROW or result.data_ptr() == out.data_ptr()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("columns", [1, 5, 20])
@pytest.mark.parametrize("rows", [2, 70])
def test_rounding_of_long_sums_of_positive_terms(rows, columns):
    for length in (matmul.LONG_INNER, matmul.LONG_INNER + 100):
        a, b = uniform(rows, length), uniform(length, columns, seed=1)
        exact = a.double() @ b.double()
        for name, wide in layouts(a).items():
            if name == "strided":
                continue
            error = ((matmul.product(wide, b).double() - exact) / exact).abs().max()
            # A sum of so many terms one after another is off by thousands of roundings.
            assert error < 64 * 2.0**-24


def test_only_dense_operands_go_to_onednn(monkeypatch):
    taken = []

    def inner(a: Tensor, b: Tensor, *_: object) -> Tensor:
        taken.append((tuple(a.shape), tuple(b.shape)))
        return a @ b.t()

    monkeypatch.setattr(matmul, "_onednn", lambda: inner)
    a, b = uniform(600, 300), uniform(300, 40)
    for wide in layouts(a).values():
        matmul.product(wide, b)
    assert taken == [((600, 300), (40, 300)), ((40, 300), (600, 300)), ((600, 300), (40, 300))]
    for wide in layouts(a.t()).values():
        matmul.product(b.t(), wide)
    assert taken[3:] == [((40, 300), (600, 300))] * 3
    taken.clear()
    for x, y in [(a.double(), b.double()), (a[:20], b[:, :2]), (a.to(torch.complex64), b + 0j)]:
        matmul.product(x, y)
    assert not taken
