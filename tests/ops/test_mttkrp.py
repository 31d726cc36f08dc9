"""MTTKRP against the literal formula in double precision."""

import math
from collections.abc import Sequence
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
from tensorfast.testing import PROBLEMS, Problem, assert_close, random_cp

from .common import implementations, native, normal, wide

pytestmark = pytest.mark.usefixtures("poisoned")

CASES = [pytest.param(p, n, id=f"{p}-mode{n}") for p in PROBLEMS for n in range(len(p.shape))]
SMALL = Problem("small", (4, 3, 5), 2)


def operands(
    problem: Problem, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, list[Tensor]]:
    x, *factors = (
        normal(*shape, dtype=dtype, seed=10 * seed + n)
        for n, shape in enumerate([problem.shape, *((n, problem.rank) for n in problem.shape)])
    )
    return x, factors


def assert_mttkrp(
    actual: Any, x: Any, factors: Sequence[Any], mode: int, weights: Any = None, **how: Any
) -> None:
    x, others = wide(x), [wide(u) for n, u in enumerate(factors) if n != mode]
    w = None if weights is None else wide(weights)
    exact = reference.mttkrp(x, others, mode, w)
    scale = reference.mttkrp(
        x.abs(), [u.abs() for u in others], mode, None if w is None else w.abs()
    )
    # Each term is rounded once a factor, and then in its sum.
    length = math.prod(x.shape) // max(1, x.shape[mode]) + x.ndim
    got = actual if isinstance(actual, Tensor) else native(actual)
    assert_close(got, exact, scale, length, **how)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
@pytest.mark.parametrize(("problem", "mode"), CASES)
def test_equals_the_formula(problem, mode, dtype):
    x, factors = operands(problem, dtype)
    for impl in implementations(dtype):
        out = tf.mttkrp(x, factors, mode, impl=impl)
        assert out.shape == (problem.shape[mode], problem.rank)
        assert out.dtype == compute_dtype(dtype)
        assert_mttkrp(out, x, factors, mode)


@pytest.mark.parametrize(("problem", "mode"), CASES)
def test_a_negative_mode_counts_from_the_end(problem, mode):
    x, factors = operands(problem)
    expected = tf.mttkrp(x, factors, mode)
    assert torch.equal(tf.mttkrp(x, factors, mode - x.ndim), expected)


@pytest.mark.parametrize(("problem", "mode"), CASES)
def test_equals_the_unfolding_times_the_khatri_rao_product(problem, mode):
    x, factors = operands(problem, torch.complex128)
    for weights in (None, normal(problem.rank, dtype=torch.complex128, seed=9)):
        product = tf.unfold(x, mode) @ tf.khatri_rao(factors, weights, skip=mode).conj()
        for impl in ("torch", "reference"):
            out = tf.mttkrp(x, factors, mode, weights, impl=impl)
            torch.testing.assert_close(out, product, rtol=0, atol=1e-11)


@pytest.mark.parametrize("mode", range(3))
def test_equals_tensorly_weights_and_conjugate_included(mode):
    tensorly = pytest.importorskip("tensorly")
    x, factors = (
        t.numpy() if isinstance(t, Tensor) else [u.numpy() for u in t]
        for t in operands(SMALL, torch.complex128)
    )
    weights = normal(SMALL.rank, dtype=torch.complex128, seed=9).numpy()
    with tensorly.backend_context("numpy"):
        theirs = tensorly.tenalg.unfolding_dot_khatri_rao(x, (weights, factors), mode)
    np.testing.assert_allclose(tf.mttkrp(x, factors, mode, weights), theirs, rtol=1e-12)


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize(
    "types",
    [
        pytest.param((torch.float32, torch.float32, torch.float32), id="f32"),
        pytest.param((torch.complex64, torch.complex64, torch.complex64), id="c64"),
        pytest.param((torch.float32, torch.float32, torch.float64), id="wide weights"),
        pytest.param((torch.float32, torch.float32, torch.complex64), id="complex weights"),
        pytest.param((torch.bfloat16, torch.bfloat16, torch.float32), id="half"),
        pytest.param((torch.float16, torch.float64, torch.float64), id="half and double"),
        pytest.param((torch.float32, torch.complex64, torch.float32), id="real x"),
        pytest.param((torch.complex64, torch.float32, torch.float32), id="complex x"),
        pytest.param((torch.float64, torch.float32, torch.float32), id="wide x"),
    ],
)
def test_weights_scale_columns_and_types_are_promoted(types, mode, impl):
    problem = Problem("", (7, 5, 6), 4)
    (x, _), (_, factors) = operands(problem, types[0]), operands(problem, types[1], seed=1)
    weights = torch.tensor([2.0, -0.5, 0.0, 3.0]).to(types[2]) * (1j if types[2].is_complex else 1)
    out = tf.mttkrp(x, factors, mode, weights, impl=impl)
    promoted = torch.promote_types(compute_dtype(types[0]), compute_dtype(types[1]))
    # Weights of another precision do not widen the result; complex ones make it complex.
    assert out.dtype == (promoted.to_complex() if types[2].is_complex else promoted)
    assert_mttkrp(out, x, factors, mode, weights, dtype=torch.float32)


@pytest.mark.parametrize("shape", [(5, 4, 6), (3, 4, 2, 5)], ids=str)
def test_any_layout_gives_the_same_and_is_left_alone(layout, shape):
    problem = Problem("", shape, 3)
    x, factors = operands(problem)
    laid, others = layout(x), [layout(u) for u in factors]
    before = [wide(a).clone() for a in (laid, *others)]
    for mode in range(len(shape)):
        out = tf.mttkrp(laid, others, mode)
        assert type(out) is type(laid)
        assert_mttkrp(out, laid, others, mode)
    for array, kept in zip((laid, *others), before, strict=True):
        assert torch.equal(wide(array), kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64], ids=str)
def test_layouts_of_other_types(torch_layout, dtype):
    x, factors = operands(Problem("", (5, 4, 6), 3), dtype)
    laid = torch_layout(x)
    before = laid.clone()
    for mode in range(3):
        assert_mttkrp(tf.mttkrp(laid, factors, mode), laid, factors, mode, dtype=dtype)
    assert torch.equal(laid, before)


@pytest.mark.parametrize("mode", range(3))
def test_a_lazily_conjugated_tensor_is_what_it_says(mode):
    x, factors = operands(SMALL, torch.complex64)
    lazy = x.conj(), [u.conj() for u in factors]
    assert lazy[0].is_conj()
    assert_mttkrp(tf.mttkrp(*lazy, mode), *lazy, mode)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1200, 31, 40), (31, 40, 1200), (3, 1200, 400)], ids=str)
def test_tensors_of_several_blocks(shape, dtype):
    problem = Problem("", shape, 5)
    x, factors = operands(problem, dtype)
    laid = x if dtype == torch.float32 else x.transpose(0, 1).contiguous().transpose(0, 1)
    for mode in range(3):
        assert_mttkrp(tf.mttkrp(laid, factors, mode), x, factors, mode)


@pytest.mark.parametrize("mode", range(3))
@pytest.mark.parametrize("shape", [(210_001, 5, 2), (5, 210_001, 2), (2, 5, 210_001)], ids=str)
def test_long_sums_stay_at_float32_grade(shape, mode):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator)
    factors = [torch.rand(n, 3, generator=generator) for n in shape]
    exact = reference.mttkrp(
        x.double(), [u.double() for n, u in enumerate(factors) if n != mode], mode
    )
    relative = ((tf.mttkrp(x, factors, mode).double() - exact) / exact).abs().max()
    # One term after another, these sums of positive terms reach 400 roundings.
    assert relative < 64 * 2.0**-24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0), (2, 0, 3, 0)], ids=str)
def test_a_sum_over_nothing_is_zero(shape, dtype):
    x, factors = torch.ones(shape, dtype=dtype), [torch.ones(n, 2) for n in shape]
    for mode, size in enumerate(shape):
        assert torch.equal(tf.mttkrp(x, factors, mode), torch.zeros(size, 2))


@pytest.mark.parametrize(
    "placeholder", [None, "anything", np.ones(3)], ids=["None", "str", "array"]
)
def test_the_factor_at_the_mode_is_not_looked_at(placeholder):
    x, factors = operands(SMALL)
    expected = tf.mttkrp(x, factors, 1)
    factors[1] = placeholder
    assert torch.equal(tf.mttkrp(x, factors, 1), expected)


@pytest.mark.parametrize("kind", ["lists", "integers", "bool"])
def test_lists_integers_and_bool_become_the_default_type(kind):
    x = torch.arange(24).reshape(2, 3, 4) % 5
    factors = [torch.arange(2 * n).reshape(n, 2) - 2 for n in x.shape]
    if kind == "bool":
        x, factors = x > 2, [u > 0 for u in factors]
    x, factors = (x.numpy(), [u.numpy() for u in factors])
    exact = np.einsum(
        "abc,ar,cr->br", x.astype(int), factors[0].astype(int), factors[2].astype(int)
    )
    if kind == "lists":
        x, factors = x.tolist(), [u.tolist() for u in factors]
    out = tf.mttkrp(x, factors, 1)
    assert torch.as_tensor(out).dtype == torch.float32
    assert torch.as_tensor(out).tolist() == exact.tolist()


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16", None])
@pytest.mark.parametrize("mode", range(3))
def test_every_precision_meets_its_own_bound(mode, precision):
    x, factors = operands(Problem("", (40, 30, 20), 8))
    out = tf.mttkrp(x, factors, mode, precision=precision)
    assert_mttkrp(out, x, factors, mode, precision=precision or "ieee")


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.data())
def test_permuting_the_modes_permutes_the_result(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=5)))
    order = data.draw(st.permutations(range(len(shape))))
    mode = data.draw(st.integers(0, len(shape) - 1))
    x, factors = operands(Problem("", shape, data.draw(st.integers(1, 4))), torch.float64)
    out = tf.mttkrp(x.permute(order), [factors[n] for n in order], order.index(mode))
    torch.testing.assert_close(out, tf.mttkrp(x, factors, mode), rtol=0, atol=1e-11)


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    scalars=st.tuples(*[st.floats(-10, 10)] * 2),
    data=st.data(),
)
def test_is_linear_in_the_tensor_and_in_each_factor(shape, scalars, data):
    (x, factors), (y, others) = (
        operands(Problem("", tuple(shape), 2), torch.float64, seed) for seed in (1, 2)
    )
    a, b = scalars
    mode, which = data.draw(st.permutations(range(len(shape))))[:2]
    out = tf.mttkrp(a * x + b * y, factors, mode)
    parts = a * tf.mttkrp(x, factors, mode) + b * tf.mttkrp(y, factors, mode)
    torch.testing.assert_close(out, parts, rtol=1e-9, atol=1e-9)

    swapped = [*factors[:which], others[which], *factors[which + 1 :]]
    mixed = [*factors[:which], a * factors[which] + b * others[which], *factors[which + 1 :]]
    parts = a * tf.mttkrp(x, factors, mode) + b * tf.mttkrp(x, swapped, mode)
    torch.testing.assert_close(tf.mttkrp(x, mixed, mode), parts, rtol=1e-9, atol=1e-9)


def test_of_an_orthonormal_model_is_the_factor_times_the_weights():
    weights, factors = random_cp((9, 8, 7), 4, congruence=0.0)
    x = reference.cp_to_tensor(weights, factors)
    for mode, factor in enumerate(factors):
        torch.testing.assert_close(
            tf.mttkrp(x, factors, mode), factor * weights, rtol=0, atol=1e-14
        )


@pytest.mark.slow
@pytest.mark.parametrize("mode", range(3))
def test_more_elements_than_a_32_bit_index_counts(mode):
    shape = (1 << 11, (1 << 10) + 1, 1 << 10)
    x = torch.ones(1, 1, 1).expand(shape)
    out = tf.mttkrp(x, [torch.ones(n, 1) for n in shape], mode)
    assert torch.equal(out, torch.full((shape[mode], 1), float(math.prod(shape) // shape[mode])))
