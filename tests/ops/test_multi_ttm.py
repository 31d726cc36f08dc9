"""The n-mode products along several modes, against a literal chain in double precision."""

import functools
import itertools
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
from tensorfast.testing import PROBLEMS, assert_close

from .common import native, normal, wide

pytestmark = pytest.mark.usefixtures("poisoned")


def matrices_for(
    shape: Sequence[int], rows: int, dtype: torch.dtype = torch.float32, transpose: bool = False
) -> list[Tensor]:
    """One matrix a mode; their numbers of rows differ."""
    sizes = [((rows + n) % 5 + 1, size) for n, size in enumerate(shape)]
    return [
        normal(*(size[::-1] if transpose else size), dtype=dtype, seed=n + 1)
        for n, size in enumerate(sizes)
    ]


def chain(x: Tensor, matrices: Sequence[Tensor], modes: Sequence[int], transpose: bool) -> Tensor:
    pairs = zip(matrices, modes, strict=True)
    return functools.reduce(lambda y, pair: reference.ttm(y, *pair, transpose), pairs, x)


def assert_multi_ttm(
    actual: Any,
    x: Any,
    matrices: Sequence[Any],
    modes: Sequence[int] | None = None,
    transpose: bool = False,
) -> None:
    x, matrices = wide(x), [wide(a) for a in matrices]
    modes = range(x.ndim) if modes is None else modes
    exact = chain(x, matrices, modes, transpose)
    scale = chain(x.abs(), [a.abs() for a in matrices], modes, transpose)
    got = actual if isinstance(actual, Tensor) else native(actual)
    # The errors of the steps add up.
    assert_close(got, exact, scale, sum(x.shape[n] + 1 for n in modes))


@pytest.mark.parametrize("transpose", [False, True], ids=["A", "A^H"])
@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_equals_the_chain(problem, dtype, transpose):
    x = normal(*problem.shape, dtype=dtype)
    matrices = matrices_for(problem.shape, problem.rank, dtype, transpose)
    out = tf.multi_ttm(x, matrices, transpose=transpose)
    assert out.dtype == compute_dtype(dtype)
    assert_multi_ttm(out, x, matrices, transpose=transpose)


@pytest.mark.parametrize("modes", [[0], [2, 0], [-1, 1], (1, -4, 3, 2), range(4)], ids=str)
def test_each_matrix_goes_to_its_mode(modes):
    x = normal(3, 4, 5, 6)
    all_matrices = matrices_for(x.shape, 2)
    matrices = [all_matrices[n] for n in modes]
    out = tf.multi_ttm(x, matrices, modes)
    assert_multi_ttm(out, x, matrices, [n % 4 for n in modes])


def test_fewer_matrices_than_modes_go_to_the_first_modes():
    x = normal(3, 4, 5)
    matrices = matrices_for(x.shape, 2)[:2]
    assert_multi_ttm(tf.multi_ttm(x, matrices), x, matrices, [0, 1])


@pytest.mark.parametrize("skip", [0, 1, 2, -1])
@pytest.mark.parametrize("transpose", [False, True], ids=["A", "A^H"])
def test_skip_is_a_mode_whose_matrix_is_not_looked_at(skip, transpose):
    x = normal(3, 4, 5, dtype=torch.complex64)
    matrices = matrices_for(x.shape, 2, torch.complex64, transpose)
    rest = [n for n in range(3) if n != skip % 3]
    matrices[skip] = None
    out = tf.multi_ttm(x, matrices, skip=skip, transpose=transpose)
    assert_multi_ttm(out, x, [matrices[n] for n in rest], rest, transpose)


def test_skip_is_not_a_position_among_the_matrices():
    x = normal(3, 4, 5)
    _, b, c = matrices_for(x.shape, 2)
    assert_multi_ttm(tf.multi_ttm(x, [c, b], modes=[2, 1], skip=2), x, [b], [1])
    assert_multi_ttm(tf.multi_ttm(x, [c, b], modes=[2, 1], skip=0), x, [c, b], [2, 1])


@pytest.mark.parametrize("transpose", [False, True], ids=["v", "conj v"])
@pytest.mark.parametrize("kinds", list(itertools.product("vm", repeat=3)), ids="".join)
def test_vectors_contract_their_modes_away(kinds, transpose):
    x = normal(3, 4, 5, dtype=torch.complex64)
    matrices = matrices_for(x.shape, 2, torch.complex64, transpose)
    given = [
        (a[:, 0] if transpose else a[0]) if kind == "v" else a
        for kind, a in zip(kinds, matrices, strict=True)
    ]
    full = [(v[:, None] if transpose else v[None]) if v.ndim == 1 else v for v in given]
    for order in ([0, 1, 2], [2, 0, 1]):
        out = tf.multi_ttm(x, [given[n] for n in order], modes=order, transpose=transpose)
        kept = [n for n, kind in enumerate(kinds) if kind == "m"]
        assert out.ndim == len(kept)
        # As one-row matrices they leave modes of length 1 behind.
        expanded = out.reshape([a.shape[1 if transpose else 0] for a in full])
        assert_multi_ttm(expanded, x, full, transpose=transpose)


def test_any_layout_gives_the_same_and_is_left_alone(layout):
    x = layout(normal(3, 4, 5))
    matrices = [layout(a) for a in matrices_for(x.shape, 2)]
    before = wide(x)
    out = tf.multi_ttm(x, matrices)
    assert type(out) is type(x)
    assert_multi_ttm(out, x, matrices)
    assert torch.equal(wide(x), before)


def test_types_are_promoted_and_lists_taken():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    out = tf.multi_ttm(x, [[[1, 1]], np.ones((2, 3)) * 1j])
    assert out.dtype == np.complex128
    assert out.tolist() == [[15j, 15j]]


@pytest.mark.parametrize(
    "nothing",
    [
        pytest.param(lambda x: tf.multi_ttm(x, [], []), id="no matrices"),
        pytest.param(lambda x: tf.multi_ttm(x, [None], skip=0), id="all skipped"),
    ],
)
@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
def test_without_a_matrix_the_result_is_a_copy_in_the_type_that_computes(nothing, dtype):
    x = normal(3, 4, 5, dtype=dtype).transpose(0, 1)
    out = nothing(x)
    assert out.dtype == compute_dtype(dtype)
    assert torch.equal(out, x.to(out.dtype))
    assert out.is_contiguous()
    assert out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_without_a_matrix_other_kinds_of_arrays_are_copied_too(layout):
    x = layout(normal(3, 4, 5))
    out = tf.multi_ttm(x, [])
    assert type(out) is type(x)
    assert torch.equal(wide(out), wide(x))
    assert not isinstance(x, np.ndarray) or not np.may_share_memory(out, x)
    assert not isinstance(x, Tensor) or out.data_ptr() != x.data_ptr()


def test_without_a_matrix_the_tensor_is_checked_all_the_same():
    with pytest.raises(TypeError, match="multi_ttm: x"):
        tf.multi_ttm(torch.ones(2, 2).to(torch.float8_e4m3fn), [])
    with pytest.raises(ValueError, match="multi_ttm: x"):
        tf.multi_ttm(torch.tensor(1.0), [])


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16", None])
def test_every_precision_is_served(precision):
    x = normal(8, 9, 10)
    matrices = matrices_for(x.shape, 3)
    # A CPU computes each of them in full.
    assert_multi_ttm(tf.multi_ttm(x, matrices, precision=precision), x, matrices)


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.data())
def test_permuting_the_modes_permutes_the_result(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    order = data.draw(st.permutations(range(len(shape))))
    x = normal(*shape, dtype=torch.float64)
    matrices = matrices_for(shape, data.draw(st.integers(0, 4)), torch.float64)
    out = tf.multi_ttm(x.permute(order), [matrices[n] for n in order])
    expected = tf.multi_ttm(x, matrices).permute(order)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.data())
def test_unfolded_it_is_a_product_with_a_kronecker_product(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    mode = data.draw(st.integers(0, len(shape) - 1))
    x = normal(*shape, dtype=torch.complex128)
    matrices = matrices_for(shape, data.draw(st.integers(0, 4)), torch.complex128)
    rest = functools.reduce(torch.kron, [a for n, a in enumerate(matrices) if n != mode])
    expected = matrices[mode] @ tf.unfold(x, mode) @ rest.T
    out = tf.unfold(tf.multi_ttm(x, matrices), mode)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)
