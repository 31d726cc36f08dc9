"""Unfolding is moveaxis and reshape, in views where strides allow; folding undoes it."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import tensorfast as tf
from tensorfast.precision import STORAGE_DTYPES
from tensorfast.testing import PROBLEMS

SHAPES = sorted({p.shape for p in PROBLEMS} | {(7,), (1,)})
CASES = [pytest.param(s, n, id=f"{s}-mode{n}") for s in SHAPES for n in range(len(s))]


def counted(shape, dtype=torch.float32):
    return torch.arange(1, math.prod(shape) + 1).reshape(shape).to(dtype)


@pytest.mark.parametrize(("shape", "mode"), CASES)
def test_columns_run_over_the_other_modes_in_c_order(shape, mode):
    x = counted(shape).numpy()
    expected = np.moveaxis(x, mode, 0).reshape(shape[mode], -1)
    for n in (mode, mode - len(shape)):
        out = tf.unfold(x, n)
        assert isinstance(out, np.ndarray)
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out, expected)
        folded = tf.fold(out, n, shape)
        assert isinstance(folded, np.ndarray)
        np.testing.assert_array_equal(folded, x)


def test_an_entry_stands_where_the_definition_puts_it():
    shape = (2, 3, 4, 5)
    x = counted(shape)
    for index in itertools.product(*map(range, shape)):
        i, j, k, m = index
        assert tf.unfold(x, 1)[j, (i * 4 + k) * 5 + m] == x[index]
        assert tf.unfold(x, -1)[m, (i * 3 + j) * 4 + k] == x[index]


@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
def test_types_are_kept(dtype):
    x = counted((2, 3, 4), dtype)
    out = tf.unfold(x, 1)
    assert out.dtype == dtype
    assert torch.equal(out, x.movedim(1, 0).reshape(3, -1))
    assert torch.equal(tf.fold(out, 1, x.shape), x)


@pytest.mark.parametrize(
    "as_kind", [torch.Tensor.numpy, torch.Tensor.clone], ids=["numpy", "torch"]
)
def test_is_a_view_where_strides_allow(as_kind):
    x = as_kind(counted((3, 4, 5)))

    def shares(a, b):
        return np.shares_memory(np.asarray(a), np.asarray(b))

    assert shares(tf.unfold(x, 0), x)
    assert not shares(tf.unfold(x, 1), x)
    assert shares(tf.unfold(x[0], 1), x)
    matrix = tf.unfold(x, 1)
    assert shares(tf.fold(matrix, 1, (3, 4, 5)), matrix)
    # What one writes into a view is seen in the array.
    tf.unfold(x, 0)[2, 19] = -1.0
    assert x[2, 3, 4] == -1.0


def test_a_permuted_array_is_a_view_where_its_strides_allow():
    x = np.asfortranarray(counted((3, 4, 5)).numpy())
    assert np.shares_memory(tf.unfold(x.transpose(2, 1, 0), 0), x)


def test_read_only_arrays_give_read_only_views_and_free_copies():
    x = counted((3, 4, 5)).numpy()
    x.flags.writeable = False
    view, copy = tf.unfold(x, 0), tf.unfold(x, 1)
    assert np.shares_memory(view, x)
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 5.0
    assert not np.shares_memory(copy, x)
    copy[0, 0] = 5.0
    assert x[0, 0, 0] == 1.0
    copy.flags.writeable = False
    assert not tf.fold(copy, 1, (3, 4, 5)).flags.writeable


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::-1, :, ::-1],
        lambda x: x[:, ::2, 1::2],
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x.astype(">f4"),
        lambda x: x.transpose(1, 2, 0),
        lambda x: x[:, 1:1],
    ],
    ids=["reversed", "sliced", "broadcast", "big-endian", "permuted", "empty"],
)
def test_any_view_unfolds_and_is_left_alone(view):
    x = view(counted((4, 5, 6)).numpy())
    before = x.copy()
    for mode, size in enumerate(x.shape):
        rest = math.prod(x.shape[:mode] + x.shape[mode + 1 :])
        expected = np.moveaxis(x, mode, 0).reshape(size, rest)
        np.testing.assert_array_equal(tf.unfold(x, mode), expected)
        np.testing.assert_array_equal(tf.fold(tf.unfold(x, mode), mode, x.shape), x)
    np.testing.assert_array_equal(x, before)


def test_gradients_flow():
    x = counted((3, 4, 5), torch.float64).requires_grad_()
    weights = counted((4, 15), torch.float64)
    (tf.unfold(x, 1) * weights).sum().backward()
    assert torch.equal(x.grad, tf.fold(weights, 1, x.shape))


def test_lists_and_integers_become_the_default_type():
    out = tf.unfold([[1, 2], [3, 4]], 1)
    assert isinstance(out, torch.Tensor)
    assert out.dtype == torch.float32
    assert out.tolist() == [[1, 3], [2, 4]]
    assert tf.unfold(np.arange(4).reshape(2, 2), 0).dtype == np.float32
    assert tf.fold(torch.tensor([[True, False]]), 0, (1, 2)).dtype == torch.float32


@hypothesis.given(st.data())
def test_fold_undoes_unfold(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5)))
    mode = data.draw(st.integers(-len(shape), len(shape) - 1))
    order = data.draw(st.permutations(range(len(shape))))
    x = counted(shape).permute(order)
    out = tf.unfold(x, mode)
    assert out.ndim == 2
    assert torch.equal(tf.fold(out, mode, x.shape), x)


@hypothesis.given(st.data())
def test_permuting_the_other_modes_permutes_the_columns(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    others = data.draw(st.permutations(range(1, len(shape))))
    x = counted(shape)
    columns = counted((1, *shape[1:])).long().sub(1)
    permuted = tf.unfold(x.permute(0, *others), 0)
    order = tf.unfold(columns.permute(0, *others), 0)[0].long()
    assert torch.equal(permuted, tf.unfold(x, 0)[:, order])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: tf.unfold(np.ones((2, 3)), 2),
            ValueError,
            r"unfold: mode is 2 but x has 2 modes; expected -2 <= mode < 2",
        ),
        (
            lambda: tf.unfold(np.ones((2, 3)), -3),
            ValueError,
            r"unfold: mode is -3 but x has 2 modes; expected -2 <= mode < 2",
        ),
        (
            lambda: tf.unfold(np.ones(()), 0),
            ValueError,
            r"unfold: x has 0 modes.*; expected at least 1",
        ),
        (
            lambda: tf.unfold(np.ones((2, 3)), "0"),
            TypeError,
            r"unfold: mode is '0' \(str\); expected an integer",
        ),
        (
            lambda: tf.unfold(np.ones((2, 3)), None),
            TypeError,
            r"unfold: mode is None \(NoneType\); expected an integer",
        ),
        (lambda: tf.unfold("abc", 0), TypeError, r"unfold: x is str; expected an array"),
        (
            lambda: tf.unfold(torch.ones(2, 2).to(torch.float8_e5m2), 0),
            TypeError,
            r"unfold: x has dtype float8_e5m2; expected one of float16, .*complex128",
        ),
        (
            lambda: tf.fold(np.ones((3, 4)), 1, (2, 3, 3)),
            ValueError,
            r"fold: m has shape \(3, 4\); expected \(3, 6\) for mode 1 of a tensor of shape",
        ),
        (
            lambda: tf.fold(np.ones(6), 0, (2, 3)),
            ValueError,
            r"fold: m has shape \(6,\); expected \(2, 3\)",
        ),
        (
            lambda: tf.fold(np.ones((2, 3)), 2, (2, 3)),
            ValueError,
            r"fold: mode is 2 but .* 2 modes; expected -2 <= mode < 2",
        ),
        (
            lambda: tf.fold(np.ones((2, 3)), 0, (2, -1)),
            ValueError,
            r"fold: shape\[1\] is -1; expected at least 0",
        ),
        (
            lambda: tf.fold(np.ones((2, 3)), 0, (2, 3.0)),
            TypeError,
            r"fold: shape\[1\] is 3\.0 \(float\); expected an integer",
        ),
        (
            lambda: tf.fold(np.ones((2, 3)), 0, 6),
            TypeError,
            r"fold: shape is 6; expected a sequence of integers",
        ),
        (
            lambda: tf.fold(torch.ones(2, 3).to_sparse(), 0, (2, 3)),
            TypeError,
            r"fold: m has layout torch.sparse_coo; expected a dense tensor; use .to_dense\(\)",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
