"""The Khatri-Rao product against Kronecker products of its columns."""

import functools
import math
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import tensorfast as tf
from tensorfast import reference
from tensorfast.precision import STORAGE_DTYPES, compute_dtype
from tensorfast.testing import PROBLEMS, assert_close

from .common import native, normal, wide

pytestmark = pytest.mark.usefixtures("poisoned")


def matrices(
    sizes: tuple[int, ...], rank: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    return [normal(n, rank, dtype=dtype, seed=10 * seed + k) for k, n in enumerate(sizes)]


def kronecker_columns(factors: list[Tensor]) -> Tensor:
    """Give the definition: column r is the Kronecker product of the columns r."""
    columns = zip(*(wide(f).unbind(1) for f in factors), strict=True)
    return torch.stack([functools.reduce(torch.kron, column) for column in columns], 1)


def assert_khatri_rao(actual: Any, factors: list[Any], dtype: torch.dtype | None = None) -> None:
    exact = kronecker_columns(factors)
    got = actual if isinstance(actual, Tensor) else native(actual)
    assert_close(got, exact, exact.abs(), length=len(factors), dtype=dtype)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_equals_kronecker_products_of_columns(problem, dtype):
    factors = matrices(problem.shape, problem.rank, dtype)
    out = tf.khatri_rao(factors)
    assert out.shape == (math.prod(problem.shape), problem.rank)
    # Like every product of half precision it is computed, and returned, in float32.
    assert out.dtype == compute_dtype(dtype)
    assert_khatri_rao(out, factors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_reference_agrees(problem, dtype):
    factors = matrices(problem.shape, problem.rank, dtype)
    assert_khatri_rao(reference.khatri_rao(factors), factors)


def test_the_first_factor_varies_slowest():
    out = tf.khatri_rao([np.array([[1.0], [10.0]]), np.array([[1.0], [2.0], [3.0]])])
    assert out.ravel().tolist() == [1, 2, 3, 10, 20, 30]


@pytest.mark.parametrize("skip", [0, 1, 2, -1, -3])
def test_skip_leaves_one_factor_out(skip):
    factors = matrices((3, 4, 5), 2)
    rest = [f for n, f in enumerate(factors) if n != skip % 3]
    assert torch.equal(tf.khatri_rao(factors, skip=skip), tf.khatri_rao(rest))


@pytest.mark.parametrize("placeholder", [None, "anything"])
def test_the_skipped_factor_is_not_looked_at(placeholder):
    factors = matrices((3, 4), 2)
    assert torch.equal(
        tf.khatri_rao([factors[0], placeholder, factors[1]], skip=1), tf.khatri_rao(factors)
    )
    assert torch.equal(tf.khatri_rao([placeholder, *factors], skip=-3), tf.khatri_rao(factors))


@pytest.mark.parametrize(
    ("factor", "weight"),
    [
        pytest.param(torch.float32, torch.float32, id="f32"),
        pytest.param(torch.complex64, torch.complex64, id="c64"),
        pytest.param(torch.float32, torch.float64, id="wide weights"),
        pytest.param(torch.float32, torch.complex64, id="complex weights"),
        pytest.param(torch.bfloat16, torch.float64, id="half and double"),
    ],
)
def test_weights_scale_columns(factor, weight):
    factors = matrices((3, 4, 5), 3, factor)
    weights = torch.tensor([2.0, 0.0, -0.5]).to(weight) * (1j if weight.is_complex else 1)
    out = tf.khatri_rao(factors, weights)
    assert out.dtype == torch.promote_types(compute_dtype(factor), weight)
    exact = kronecker_columns(factors) * wide(weights)
    assert_close(out, exact, exact.abs(), length=4, dtype=torch.float32)


def test_types_are_promoted():
    mixed = [normal(3, 2, dtype=torch.float16), normal(4, 2, dtype=torch.complex64)]
    out = tf.khatri_rao([*mixed, normal(2, 2, dtype=torch.float64)])
    assert out.dtype == torch.complex128
    assert_khatri_rao(out, [*mixed, normal(2, 2, dtype=torch.float64)])


def test_any_layout_gives_the_same_and_is_left_alone(layout):
    factors = [layout(f) for f in matrices((3, 4, 5), 2)]
    before = [wide(f) for f in factors]
    out = tf.khatri_rao(factors)
    assert type(out) is type(factors[0])
    assert_khatri_rao(out, factors)
    assert all(torch.equal(wide(f), kept) for f, kept in zip(factors, before, strict=True))


def test_one_factor_is_copied_and_never_returned():
    (factor,) = matrices((4,), 3)
    for out in (tf.khatri_rao([factor]), tf.khatri_rao([factor, None], skip=1)):
        assert torch.equal(out, factor)
        assert out.data_ptr() != factor.data_ptr()


@pytest.mark.parametrize("sizes", [(0,), (0, 3), (3, 0, 2)], ids=str)
def test_an_empty_factor_gives_an_empty_product(sizes):
    assert tf.khatri_rao(matrices(sizes, 2)).shape == (0, 2)


def test_lists_and_integers_become_the_default_type():
    for out in (
        tf.khatri_rao([[[1, 2]], [[3, 4], [5, 6]]]),
        tf.khatri_rao([torch.tensor([[1, 2]]), torch.tensor([[3, 4], [5, 6]])], weights=[1, 1]),
    ):
        assert out.dtype == torch.float32
        assert out.tolist() == [[3, 8], [5, 12]]


@hypothesis.settings(max_examples=40)
@hypothesis.given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4), rank=st.integers(1, 4))
def test_is_associative(sizes, rank):
    first, *rest = matrices(tuple(sizes), rank, torch.float64)
    nested = tf.khatri_rao([first, tf.khatri_rao(rest)])
    torch.testing.assert_close(tf.khatri_rao([first, *rest]), nested, rtol=1e-13, atol=0)


@hypothesis.settings(max_examples=40)
@hypothesis.given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), rank=st.integers(1, 4))
def test_its_gram_is_the_hadamard_product_of_the_grams(sizes, rank):
    factors = matrices(tuple(sizes), rank, torch.complex128)
    product = tf.khatri_rao(factors)
    grams = functools.reduce(torch.mul, [f.mH @ f for f in factors])
    torch.testing.assert_close(product.mH @ product, grams, rtol=0, atol=1e-12 * grams.abs().max())
