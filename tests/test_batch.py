"""What all batches share: contractions against the reference, scales, and who is named."""

import pytest
import torch

from tensorfast import reference
from tensorfast.batch import Stack, named_index, norms, scales_of
from tensorfast.batch.contract import expand, gram, ttm
from tensorfast.precision import safe_scale
from tensorfast.testing import assert_close, normal

SHAPES = [(5,), (4, 7), (3, 1, 6), (2, 5, 3, 4), (2, 3, 1, 2, 3), (1, 9000)]
dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str
)


@dtypes
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_those_of_one(shape, rows, dtype):
    x = normal((3, *shape), dtype)
    for n, size in enumerate(shape):
        columns = normal((3, size, rows), dtype, seed=n + 1)
        for matrices in (columns.mT, columns.mT.contiguous(), columns.mH):
            found = ttm(x, matrices, n)
            for i in range(3):
                wide = matrices[i].to(torch.complex128 if dtype.is_complex else torch.float64)
                exact = reference.ttm(x[i].to(wide.dtype), wide, n)
                scale = reference.ttm(x[i].abs().double(), matrices[i].abs().double(), n)
                assert_close(found[i], exact, length=size, scale=scale)


@dtypes
@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_gram_matrices_are_in_double_precision(shape, dtype):
    x = normal((3, *shape), dtype)
    for n in range(len(shape)):
        found = gram(x, n)
        for i in range(3):
            exact = reference.gram(x[i].to(found.dtype), n)
            scale = reference.gram(x[i].abs().double(), n)
            assert_close(found[i], exact, length=x[i].numel(), scale=scale)


def test_models_are_expanded_whichever_mode_goes_first():
    core = normal((2, 2, 3, 2), torch.float64)
    for sizes in ((4, 3, 9), (9, 3, 4), (2, 8, 2)):
        factors = {
            n: normal((2, size, (2, 3, 2)[n]), torch.float64) for n, size in enumerate(sizes)
        }
        full = expand(core, factors)
        for i in range(2):
            exact = reference.tucker_to_tensor(core[i], [f[i] for f in factors.values()])
            torch.testing.assert_close(full[i], exact)


@pytest.mark.parametrize(
    ("dtype", "magnitudes"),
    [
        (torch.float32, [1.0, 1e-3, 1e-20, 1e20, 3e38, 1e-38, 1e-44, 0.0]),
        (torch.float64, [1.0, 1e-59, 1e-70, 1e70, 1e200, 1e-200, 1e300, 0.0]),
        (torch.float16, [1.0, 6e4, 6e-8, 0.0]),
    ],
    ids=str,
)
def test_scales_are_those_of_one(dtype, magnitudes):
    x = torch.stack([(normal((2, 3), torch.float64) * m / 3).to(dtype) for m in magnitudes])
    scales, odd = scales_of("op", Stack(x, 1), "fill them")
    for one, scale in zip(x, scales.tolist(), strict=True):
        squared = float(one.double().square().sum())
        assert scale == safe_scale(one.to(torch.promote_types(dtype, torch.float32)), squared)
    # Squares that overflow in double precision are no reason to refuse a tensor.
    assert odd == []


@dtypes
@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 3, 4), (7, 1000, 100), (2, 600, 500)], ids=str)
def test_norms_are_in_double_precision(shape, dtype):
    x = normal(shape, dtype) + 100
    exact = torch.linalg.vector_norm(x.flatten(1).to(torch.complex128), dim=1)
    found = norms(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=0)
    torch.testing.assert_close(norms(x.mT), exact, rtol=1e-13, atol=0)


def test_what_is_not_finite_is_told_or_refused():
    x = torch.ones(2, 2, 3)
    x[0, 1, 2], x[1, 0, 0] = torch.nan, torch.inf
    scales, odd = scales_of("op", Stack(x.view(2, 1, 2, 3), 2), None)
    assert odd == [0, 1]
    assert scales.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"^op: x has 2 non-finite .*fill; they are in 2 of 2"):
        scales_of("op", Stack(x, 1), "fill")


def test_an_index_is_written_as_it_is_used():
    assert named_index(5, (7,)) == "5"
    assert named_index(5, (2, 3)) == "(1, 2)"
