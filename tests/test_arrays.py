"""Arrays of every kind come in without a copy where one can do without, and leave as they came."""

import array as stdlib_array
import warnings

import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast.arrays import as_tensor, as_tensors, in_kind


def bring(value):
    return as_tensor("op", "x", value)


FLOATS = ["float16", "float32", "float64", "complex64", "complex128"]
INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.fixture
def double_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", FLOATS)
def test_numpy_floats_share_memory_both_ways(name):
    array = np.arange(6).reshape(2, 3).astype(name)
    tensor = bring(array)
    assert tensor.dtype == getattr(torch, name)
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.tolist() == array.tolist()
    back = in_kind(tensor, array)
    assert np.shares_memory(back, array)
    assert back.dtype == array.dtype


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_and_bool_become_the_default_float(name):
    array = np.array([[0, 1], [1, 0]]).astype(name)
    tensor = bring(array)
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == [[0, 1], [1, 0]]
    if name in ("bool", "int8", "uint8", "int16", "int32", "int64"):
        assert torch.equal(bring(torch.from_numpy(array)), tensor)


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize("value", [[1, 2], [1.0, 2.0], (True, False), 3, 2.5], ids=repr)
def test_lists_and_numbers_take_the_default_type(value):
    assert bring(value).dtype == torch.float64
    assert bring(value).tolist() == (list(value) if isinstance(value, list | tuple) else value)


@pytest.mark.usefixtures("double_by_default")
def test_integers_take_a_changed_default_type():
    assert bring(np.array([1, 2])).dtype == torch.float64
    assert bring(torch.tensor([1, 2])).dtype == torch.float64
    assert bring(np.array([1, 2], dtype=np.float32)).dtype == torch.float32


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_precision_default_is_followed(default):
    torch.set_default_dtype(default)
    try:
        found = [bring(v).dtype for v in ([1, 2], [1.5], np.array([1]), torch.tensor([True]))]
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == [default] * 4


def test_a_list_of_floats_keeps_the_values_of_the_default_type():
    assert bring([0.1]).item() == np.float32(0.1)
    assert bring([[1 + 2j]]).item() == 1 + 2j


def test_torch_tensors_pass_through():
    tensor = torch.randn(3, 4).t()
    assert bring(tensor) is tensor
    assert in_kind(tensor, tensor) is tensor
    parameter = torch.nn.Parameter(torch.randn(2, 2))
    assert bring(parameter) is parameter


@pytest.mark.parametrize(
    ("view", "shared"),
    [
        (lambda a: a, True),
        (lambda a: a.T, True),
        (lambda a: a[::2, 1:], True),
        (lambda a: np.broadcast_to(a[:1], a.shape), True),
        (lambda a: a[::-1], False),
        (lambda a: a.astype(">f8"), False),
        (lambda a: a[:0], True),
    ],
    ids=["C", "Fortran", "sliced", "broadcast", "reversed", "big-endian", "empty"],
)
def test_numpy_views_keep_their_values_and_share_memory_where_torch_can(view, shared):
    array = view(np.arange(12.0).reshape(4, 3))
    tensor = bring(array)
    assert tensor.dtype == torch.float64
    assert tensor.tolist() == array.tolist()
    if array.size:
        assert np.may_share_memory(tensor.numpy(), array) == shared


def test_read_only_memory_is_shared_without_a_warning_and_comes_back_read_only():
    array = np.arange(12.0).reshape(3, 4)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = bring(array)
    assert tensor.data_ptr() == array.ctypes.data
    view = in_kind(tensor[1:], array)
    assert np.shares_memory(view, array)
    assert not view.flags.writeable
    assert in_kind(tensor + 1, array).flags.writeable


def test_a_shared_tensor_keeps_its_memory_alive():
    array = np.arange(1000.0)
    array.flags.writeable = False
    tensor = bring(array)
    del array
    _trash = [np.full(1000, -1.0) for _ in range(50)]
    assert torch.equal(tensor, torch.arange(1000.0, dtype=torch.float64))


def test_a_view_of_a_subclass_is_a_plain_array_again():
    class Labelled(np.ndarray):
        pass

    assert type(tf.unfold(np.ones((2, 3)).view(Labelled), 0)) is np.ndarray


def test_anything_with_the_array_interface_is_answered_with_numpy():
    class Wrapper:
        def __init__(self, values):
            self._values = values

        def __array__(self, dtype=None, copy=None):
            return self._values

    out = tf.ttm(Wrapper(np.ones((2, 3))), np.ones((4, 3)), 1)
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(out, np.full((2, 4), 3.0))


@pytest.mark.parametrize("value", [[[1.0, 2.0]], ((1, 2),), [np.array([1.0, 2.0])]], ids=repr)
def test_lists_are_answered_with_torch(value):
    assert tf.unfold(value, 0).tolist() == [[1, 2]]
    assert isinstance(tf.unfold(value, 0), torch.Tensor)


def test_a_buffer_is_an_array():
    values = stdlib_array.array("d", [1.0, 2.0])
    assert bring(values).tolist() == [1, 2]


def test_a_numpy_scalar_is_an_array_of_no_modes():
    assert bring(np.float32(2.5)).shape == ()
    assert isinstance(in_kind(torch.tensor(1.0), np.float32(2.5)), np.ndarray)


def test_gradients_are_dropped_where_numpy_has_none():
    weights = torch.ones(4, 3, requires_grad=True)
    out = tf.ttm(np.ones((2, 3), dtype=np.float32), weights, 1)
    assert isinstance(out, np.ndarray)


def test_a_lazy_conjugate_is_resolved_for_numpy():
    tensor = torch.tensor([1 + 2j]).conj()
    assert tensor.is_conj()
    assert in_kind(tensor, np.ones(1)).tolist() == [1 - 2j]


class TestJax:
    @pytest.fixture
    def jnp(self):
        return pytest.importorskip("jax.numpy")

    @pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "complex64"])
    def test_comes_in_and_leaves_sharing_memory(self, jnp, name):
        x = jnp.arange(12).reshape(3, 4).astype(name)
        tensor = bring(x)
        assert tensor.dtype == getattr(torch, name)
        assert tensor.data_ptr() == x.unsafe_buffer_pointer()
        back = in_kind(tensor, x)
        assert type(back) is type(x)
        assert back.dtype == x.dtype
        assert (back == x).all()

    def test_operations_answer_with_jax(self, jnp):
        x = jnp.arange(24.0).reshape(2, 3, 4)
        factors = [jnp.ones((n, 2)) for n in x.shape]
        for out in (
            tf.mttkrp(x, factors, 1),
            tf.ttm(x, np.ones((5, 3)), 1),
            tf.multi_ttm(x, factors, transpose=True),
            tf.gram(x, 2),
            tf.unfold(x, 1),
            tf.fold(tf.unfold(x, 2), 2, x.shape),
            tf.khatri_rao(factors),
        ):
            assert type(out) is type(x)
        assert tf.mttkrp(x, factors, 1)[2, 0] == float(x[:, 2].sum())

    def test_integers_become_the_default_float(self, jnp):
        out = tf.gram(jnp.array([[1, 2]]), 1)
        assert out.dtype == jnp.float32
        assert out.tolist() == [[1, 2], [2, 4]]
        assert tf.gram(jnp.array([[True, False]]), 1).tolist() == [[1, 0], [0, 0]]

    def test_the_kind_of_x_decides(self, jnp):
        assert isinstance(tf.ttm(np.ones((2, 3)), jnp.ones((4, 3)), 1), np.ndarray)
        assert isinstance(tf.ttm(torch.ones(2, 3), jnp.ones((4, 3)), 1), torch.Tensor)


@pytest.mark.gpu
def test_cuda_memory_is_shared_with_cupy():
    cupy = pytest.importorskip("cupy")
    x = cupy.arange(12, dtype=cupy.float32).reshape(3, 4)
    tensor = bring(x)
    assert tensor.data_ptr() == x.data.ptr
    assert isinstance(tf.gram(x, 0), cupy.ndarray)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(None, r"op: x is NoneType; expected an array", id="None"),
        pytest.param("1, 2", r"op: x is str; expected an array", id="str"),
        pytest.param(b"12", r"op: x is bytes; expected an array", id="bytes"),
        pytest.param(
            np.ma.masked_array([1.0, 2.0], [True, False]),
            r"op: x is a masked array; expected a plain one; fill the masked entries first",
            id="masked",
        ),
        pytest.param(
            np.array([1, None]), r"op: x has dtype object; expected a numeric array", id="object"
        ),
        pytest.param(
            np.array(["a", "b"]), r"op: x has dtype <U1; expected a numeric array", id="text"
        ),
        pytest.param(["a", "b"], r"op: x has dtype <U1; expected a numeric", id="list of str"),
        pytest.param([1.0, None], r"op: x has dtype object; expected a numeric", id="list of None"),
        pytest.param(
            np.array(["2020"], dtype="M8[D]"),
            r"op: x has dtype datetime64\[D\]; expected a numeric array",
            id="dates",
        ),
        pytest.param(
            np.zeros(2, dtype=[("a", "f4")]),
            r"op: x has dtype \[.*; expected a numeric",
            id="records",
        ),
        pytest.param([[1.0], [1.0, 2.0]], r"op: x is not a rectangular array: ", id="ragged list"),
        pytest.param({"a": 1}, r"op: x has dtype object; expected a numeric array", id="dict"),
        pytest.param(
            torch.eye(2).to_sparse(),
            r"op: x has layout torch.sparse_coo; expected a dense tensor; use .to_dense\(\)",
            id="COO",
        ),
    ],
)
def test_what_is_no_dense_numeric_array_is_refused_by_name(value, message):
    with pytest.raises(TypeError, match=message):
        bring(value)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant == 52, reason="long double is double here")
@pytest.mark.parametrize("name", ["longdouble", "clongdouble"])
def test_extended_precision_is_refused(name):
    value = np.ones(2, dtype=name)
    with pytest.raises(TypeError, match=rf"op: x has dtype {value.dtype}; expected"):
        bring(value)


def test_a_sequence_of_arrays_is_named_by_position():
    tensors = as_tensors("op", "factors", (np.ones(2), [1.0], torch.ones(3)))
    assert [t.shape for t in tensors] == [(2,), (1,), (3,)]
    with pytest.raises(TypeError, match=r"op: factors\[1\] is NoneType; expected an array"):
        as_tensors("op", "factors", [np.ones(2), None])
    assert len(as_tensors("op", "factors", [np.ones(2), None], skip=1)) == 2


@pytest.mark.parametrize("values", [None, 3, np.ones((2, 2)), torch.ones(2, 2), "ab"], ids=type)
def test_what_is_no_sequence_of_arrays_is_refused(values):
    kind = type(values).__name__
    with pytest.raises(TypeError, match=f"op: factors is {kind}; expected a sequence of arrays"):
        as_tensors("op", "factors", values)


def test_jax_is_no_sequence_of_arrays():
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(TypeError, match=r"op: factors is .*; expected a sequence of arrays"):
        as_tensors("op", "factors", jnp.ones((2, 2, 2)))
