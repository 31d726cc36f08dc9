"""The Gram matrix of an unfolding against the literal formula in double precision."""

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
from tensorfast.precision import STORAGE_DTYPES, compute_dtype, solve_dtype
from tensorfast.testing import PROBLEMS, assert_close

from .common import implementations, native, normal, wide

pytestmark = pytest.mark.usefixtures("poisoned")

CASES = [
    *(pytest.param((n,), 0, id=f"vector{n}-mode0") for n in (1, 7)),
    *(pytest.param(p.shape, n, id=f"{p}-mode{n}") for p in PROBLEMS for n in range(len(p.shape))),
]


def assert_gram(actual: Any, x: Any, mode: int, **how: Any) -> None:
    x = wide(x)
    exact, scale = reference.gram(x, mode), reference.gram(x.abs(), mode)
    got = actual if isinstance(actual, Tensor) else native(actual)
    length = x.numel() // max(1, x.shape[mode]) + 1
    assert_close(got, exact, scale, length, **how)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "mode"), CASES)
def test_equals_the_formula(shape, mode, dtype):
    x = normal(*shape, dtype=dtype)
    for impl in implementations(dtype):
        out = tf.gram(x, mode, impl=impl)
        assert out.dtype == compute_dtype(dtype)
        assert_gram(out, x, mode)
        double = tf.gram(x, mode, double=True, impl=impl)
        assert double.dtype == solve_dtype(dtype)
        assert_gram(double, x, mode)


@pytest.mark.parametrize(("shape", "mode"), CASES)
def test_is_the_unfolding_times_its_adjoint_and_hermitian(shape, mode):
    x = normal(*shape, dtype=torch.complex128)
    out = tf.gram(x, mode - x.ndim)
    unfolded = tf.unfold(x, mode)
    torch.testing.assert_close(out, unfolded @ unfolded.mH, rtol=0, atol=1e-11)
    torch.testing.assert_close(out, out.mH, rtol=0, atol=1e-11)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(5, 4, 6), (3, 4, 2, 5)], ids=str)
def test_any_layout_gives_the_same_and_is_left_alone(layout, shape, double):
    x = layout(normal(*shape))
    before = wide(x)
    for mode in range(len(shape)):
        out = tf.gram(x, mode, double=double)
        assert type(out) is type(x)
        assert_gram(out, x, mode)
    assert torch.equal(wide(x), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64], ids=str)
def test_layouts_of_other_types(torch_layout, dtype):
    x = torch_layout(normal(5, 4, 6, dtype=dtype))
    before = x.clone()
    for mode in range(3):
        assert_gram(tf.gram(x, mode), x, mode)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(40, 2000, 23), (2000, 40, 23), (23, 40, 2000)], ids=str)
def test_tensors_of_several_blocks(shape, dtype):
    x = normal(*shape, dtype=dtype)
    for mode in (n for n, size in enumerate(shape) if size < 2000):
        assert_gram(tf.gram(x, mode), x, mode)
        assert_gram(tf.gram(x, mode, double=True), x, mode)


@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize("shape", [(210_001, 5, 2), (5, 210_001, 2), (2, 5, 210_001)], ids=str)
def test_long_sums_stay_at_float32_grade(shape, mode):
    if shape[mode] > 5:
        pytest.skip("the Gram matrix of the long mode is too large")
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    exact = reference.gram(x.double(), mode)
    relative = ((tf.gram(x, mode).double() - exact) / exact).abs().max()
    # One term after another, these sums of positive terms reach 400 roundings.
    assert relative < 64 * 2.0**-24


@pytest.mark.parametrize("mode", range(3))
def test_double_keeps_the_singular_values_that_float32_loses(mode):
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(60, 3, generator=generator, dtype=torch.float64)).Q
    values = torch.tensor([1.0, 1e-2, 1e-6], dtype=torch.float64)
    x = (values[:, None] * q.T).reshape(3, 6, 10).movedim(0, mode).float()
    found = torch.linalg.eigvalsh(tf.gram(x, mode, double=True)).flip(0).sqrt()
    torch.testing.assert_close(found, values, rtol=1e-5, atol=0)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0,)], ids=str)
def test_a_sum_over_nothing_is_zero(shape, dtype, double):
    x = torch.ones(shape, dtype=dtype)
    for mode, size in enumerate(shape):
        out = tf.gram(x, mode, double=double)
        assert torch.equal(out, torch.zeros(size, size, dtype=out.dtype))


def test_lists_and_integers_become_the_default_type():
    for x in ([[1, 2], [3, 4]], torch.tensor([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]])):
        out = torch.as_tensor(tf.gram(x, 0))
        assert out.dtype == torch.float32
        assert out.tolist() == [[5, 11], [11, 25]]


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16", None])
def test_every_precision_meets_its_own_bound(precision):
    x = normal(40, 30, 20)
    assert_gram(tf.gram(x, 1, precision=precision), x, 1, precision=precision or "ieee")


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.data())
def test_is_positive_and_its_trace_is_the_squared_norm(data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    mode = data.draw(st.integers(0, len(shape) - 1))
    order = data.draw(st.permutations(range(len(shape))))
    x = normal(*shape, dtype=torch.float64, seed=data.draw(st.integers(0, 9)))
    out = tf.gram(x, mode)
    assert float(out.trace()) == pytest.approx(float((x * x).sum()), rel=1e-12)
    assert torch.linalg.eigvalsh(out).min() > -1e-12 * out.trace()
    same = tf.gram(x.permute(order), order.index(mode))
    torch.testing.assert_close(same, out, rtol=0, atol=1e-12 * float(out.trace()))


@pytest.mark.slow
@pytest.mark.parametrize("mode", range(3))
def test_more_elements_than_a_32_bit_index_counts(mode):
    shape = (1 << 15, 1 << 15, 3)
    x = torch.ones(1, 1, 1).expand(shape).movedim(2, mode)
    out = tf.gram(x, mode, double=True)
    assert torch.equal(out, torch.full((3, 3), float(math.prod(shape[:2])), dtype=out.dtype))
