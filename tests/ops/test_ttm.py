"""The n-mode products against the literal formula in double precision."""

import itertools
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

from .common import implementations, native, normal, wide

pytestmark = pytest.mark.usefixtures("poisoned")

CASES = [
    *(pytest.param((n,), 3, 0, id=f"vector{n}-mode0") for n in (1, 7)),
    *(
        pytest.param(p.shape, p.rank, n, id=f"{p}-mode{n}")
        for p in PROBLEMS
        for n in range(len(p.shape))
    ),
]


def assert_ttm(
    actual: Any, x: Any, matrix: Any, mode: int, transpose: bool = False, **how: Any
) -> None:
    x, a = wide(x), wide(matrix)
    exact = reference.ttm(x, a, mode, transpose)
    scale = reference.ttm(x.abs(), a.abs(), mode, transpose)
    got = actual if isinstance(actual, Tensor) else native(actual)
    # One rounding a product and one a sum.
    assert_close(got, exact, scale, x.shape[mode] + 1, **how)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "rows", "mode"), CASES)
def test_equals_the_formula(shape, rows, mode, dtype):
    x = normal(*shape, dtype=dtype)
    for impl, transpose in itertools.product(implementations(dtype), (False, True)):
        size = (shape[mode], rows) if transpose else (rows, shape[mode])
        matrix = normal(*size, dtype=dtype, seed=1)
        out = tf.ttm(x, matrix, mode, transpose=transpose, impl=impl)
        assert out.shape == (*shape[:mode], rows, *shape[mode + 1 :])
        assert out.dtype == compute_dtype(dtype)
        assert out.is_contiguous()
        assert_ttm(out, x, matrix, mode, transpose)


@pytest.mark.parametrize(("shape", "rows", "mode"), CASES)
def test_unfolded_it_is_a_matrix_product(shape, rows, mode):
    x, matrix = (normal(*size, dtype=torch.complex128) for size in (shape, (rows, shape[mode])))
    out = tf.ttm(x, matrix, mode - len(shape))
    product = matrix @ tf.unfold(x, mode)
    torch.testing.assert_close(tf.unfold(out, mode), product, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transpose", [False, True], ids=["v", "conj v"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("mode", [0, 1, 2, -1])
def test_a_vector_contracts_the_mode_away(mode, dtype, transpose):
    x, v = normal(3, 5, 4, dtype=dtype), normal((3, 5, 4)[mode], dtype=dtype, seed=1)
    out = tf.ttm(x, v, mode, transpose=transpose)
    used = wide(v).conj() if transpose else wide(v)
    exact = torch.tensordot(wide(x), used, dims=([mode], [0]))
    scale = torch.tensordot(wide(x).abs(), used.abs(), dims=([mode], [0]))
    assert out.shape == exact.shape
    assert_close(out, exact, scale, v.shape[0] + 1)


def test_a_vector_against_a_vector_is_a_number():
    x, v = torch.tensor([1 + 1j, 2]), torch.tensor([1j, 3])
    assert tf.ttm(x, v, 0).item() == 5 + 1j
    assert tf.ttm(x, v, 0, transpose=True).item() == 7 - 1j


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16),
        (torch.float32, torch.complex64),
        (torch.complex64, torch.float64),
        (torch.float16, torch.complex128),
    ],
    ids=str,
)
def test_types_are_promoted(left, right, impl):
    x, matrix = normal(3, 4, 5, dtype=left), normal(2, 4, dtype=right, seed=1)
    out = tf.ttm(x, matrix, 1, impl=impl)
    assert out.dtype == torch.promote_types(compute_dtype(left), compute_dtype(right))
    assert_ttm(out, x, matrix, 1)


@pytest.mark.parametrize("shape", [(5, 4, 6), (3, 4, 2, 5)], ids=str)
def test_any_layout_gives_the_same_and_is_left_alone(layout, shape):
    x = layout(normal(*shape))
    before = wide(x)
    for mode, size in enumerate(shape):
        matrix = layout(normal(3, size, seed=1))
        out = tf.ttm(x, matrix, mode)
        assert type(out) is type(x)
        assert_ttm(out, x, matrix, mode)
    assert torch.equal(wide(x), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64], ids=str)
def test_layouts_of_other_types(torch_layout, dtype):
    x = torch_layout(normal(5, 4, 6, dtype=dtype))
    before = x.clone()
    for mode, size in enumerate(x.shape):
        matrix = torch_layout(normal(size, 3, dtype=dtype, seed=1))
        assert_ttm(tf.ttm(x, matrix, mode, transpose=True), x, matrix, mode, True)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2500, 31, 20), (31, 2500, 20), (1_600_000,)], ids=str)
def test_tensors_of_several_blocks(shape, dtype):
    x = normal(*shape, dtype=dtype)
    for mode, size in enumerate(shape):
        matrix = normal(2, size, seed=1)
        assert_ttm(tf.ttm(x, matrix, mode), x, matrix, mode)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(210_001, 5, 2), (5, 210_001, 2), (2, 5, 210_001)], ids=str)
def test_long_sums_stay_at_float32_grade(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator).to(dtype)
    mode = shape.index(210_001)
    matrix = torch.rand(3, 210_001, generator=generator)
    exact = reference.ttm(x.double(), matrix.double(), mode)
    relative = ((tf.ttm(x, matrix, mode).double() - exact) / exact).abs().max()
    # One term after another, these sums of positive terms reach 400 roundings.
    assert relative < 64 * 2.0**-24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0,)], ids=str)
def test_a_sum_over_nothing_is_zero(shape, dtype):
    x = torch.ones(shape, dtype=dtype)
    for mode, size in enumerate(shape):
        out = tf.ttm(x, torch.ones(2, size), mode)
        assert torch.equal(out, torch.zeros(*shape[:mode], 2, *shape[mode + 1 :]))
        assert tf.ttm(x, torch.ones(0, size), mode).numel() == 0


def test_lists_and_integers_become_the_default_type():
    for x in ([[1, 2], [3, 4]], torch.tensor([[1, 2], [3, 4]])):
        out = tf.ttm(x, [[1, 1]], 0)
        assert out.dtype == torch.float32
        assert out.tolist() == [[4, 6]]


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16", None])
def test_every_precision_meets_its_own_bound(precision):
    x, matrix = normal(40, 30, 20), normal(8, 30, seed=1)
    out = tf.ttm(x, matrix, 1, precision=precision)
    assert_ttm(out, x, matrix, 1, precision=precision or "ieee")


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.data())
def test_commutes_across_modes_and_composes_along_one(data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    m, n = data.draw(st.permutations(range(len(shape))))[:2]
    rows = data.draw(st.integers(1, 5))
    x = normal(*shape, dtype=torch.float64)
    a, b = (normal(rows, shape[k], dtype=torch.float64, seed=k + 1) for k in (m, n))
    torch.testing.assert_close(
        tf.ttm(tf.ttm(x, a, m), b, n), tf.ttm(tf.ttm(x, b, n), a, m), rtol=0, atol=1e-12
    )
    c = normal(3, rows, dtype=torch.float64, seed=9)
    torch.testing.assert_close(
        tf.ttm(tf.ttm(x, a, m), c, m), tf.ttm(x, c @ a, m), rtol=0, atol=1e-12
    )


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.data())
def test_the_transpose_is_the_adjoint(data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    mode = data.draw(st.integers(0, len(shape) - 1))
    x = normal(*shape, dtype=torch.complex128)
    matrix = normal(data.draw(st.integers(1, 5)), shape[mode], dtype=torch.complex128, seed=1)
    image = tf.ttm(x, matrix, mode)
    y = normal(*image.shape, dtype=torch.complex128, seed=2)
    back = tf.ttm(y, matrix, mode, transpose=True)
    torch.testing.assert_close((y.conj() * image).sum(), (back.conj() * x).sum())


@pytest.mark.slow
@pytest.mark.parametrize("mode", range(3))
def test_more_elements_than_a_32_bit_index_counts(mode):
    shape = (1 << 11, (1 << 10) + 1, 1 << 10)
    x = torch.ones(1, 1, 1).expand(shape)
    out = tf.ttm(x, torch.ones(1, shape[mode]), mode)
    assert out.numel() == math.prod(shape) // shape[mode]
    assert bool((out == shape[mode]).all())


def test_answers_numpy_with_numpy_whatever_the_matrix_is():
    x = np.ones((2, 3))
    assert isinstance(tf.ttm(x, torch.ones(4, 3), 1), np.ndarray)
    assert isinstance(tf.ttm(torch.ones(2, 3), np.ones((4, 3)), 1), Tensor)
