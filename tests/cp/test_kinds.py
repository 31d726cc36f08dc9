"""Arrays of every kind, type and layout: the right result, of its kind, and nothing changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast.testing import planted

SHAPE = (6, 5, 7)
OPTIONS = {"seed": 0, "n_iter_max": 10, "tol": 0}


def expected(x: torch.Tensor, dtype: torch.dtype = torch.float64) -> tf.CPTensor:
    return tf.cp_als(x.to(dtype).contiguous(), 3, **OPTIONS)


def assert_same_model(model, other) -> None:
    """Up to rounding, which depends on where in memory an array begins."""
    single = str(np.asarray(other[1][0]).dtype) in ("float32", "complex64")
    relative = 1e-3 if single else 1e-9
    for a, b in zip((model[0], *model[1]), (other[0], *other[1]), strict=True):
        a, b = np.asarray(a, dtype=complex), np.asarray(b, dtype=complex)
        assert np.abs(a - b).max() <= relative * max(np.abs(b).max(), 1e-30)


@pytest.fixture
def x() -> torch.Tensor:
    return planted(SHAPE, 3, noise=0.1)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_numpy_in_and_out(x, dtype):
    array = x.numpy().astype(dtype)
    before = array.copy()
    model = tf.cp_als(array, 3, **OPTIONS)
    assert all(type(a) is np.ndarray for a in (model.weights, *model.factors))
    assert all(f.dtype == dtype for f in model.factors)
    assert model.weights.dtype == np.empty(0, dtype).real.dtype
    assert np.array_equal(array, before)
    assert_same_model(model, expected(torch.from_numpy(before), torch.from_numpy(before).dtype))
    # The result is the caller's own, to write to.
    model.factors[0][:] = 0


def test_jax_in_and_out(x):
    array = jnp.asarray(x.numpy(), dtype=jnp.float32)
    model = tf.cp_als(array, 3, **OPTIONS)
    assert all(isinstance(a, jax.Array) for a in (model.weights, *model.factors))
    assert_same_model(model, expected(torch.from_numpy(np.array(array)), torch.float32))
    again = tf.cp_als(array, 3, init=model, n_iter_max=1)
    assert again.info.rel_errors[0] <= model.info.rel_errors[-1] * (1 + 1e-6)


def test_the_callback_sees_the_kind_of_x(x):
    kinds = set()

    def callback(sweep, error, factors):
        kinds.update(type(f) for f in factors)
        return False

    tf.cp_als(x.numpy(), 3, **OPTIONS, callback=callback)
    assert kinds == {np.ndarray}


def test_lists_are_answered_with_tensors():
    data = [[[1.0, 2.0], [3.0, 4.0]], [[2.0, 4.0], [6.0, 8.0]]]
    model = tf.cp_als(data, 2, seed=0, n_iter_max=200)
    assert all(isinstance(f, torch.Tensor) for f in model.factors)
    assert model.weights.dtype == torch.get_default_dtype()
    assert model.info.rel_errors[-1] < 1e-5


@pytest.mark.parametrize("source", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "bool"])
def test_whole_numbers_become_the_default_float_type(source, dtype):
    g = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 2 if dtype == "bool" else 100, SHAPE, generator=g)
    array = whole.to(getattr(torch, dtype))
    given = array.numpy() if source == "numpy" else array
    before = array.clone()
    model = tf.cp_als(given, 3, **OPTIONS)
    assert torch.equal(array, before)
    assert str(model.factors[0].dtype).removeprefix("torch.") == "float32"
    assert_same_model(model, expected(whole, torch.float32))


def test_the_default_float_type_is_torchs(x):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = tf.cp_als(x.mul(10).long(), 3, **OPTIONS)
    finally:
        torch.set_default_dtype(before)
    assert model.factors[0].dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_single(x, dtype):
    half = x.to(dtype)
    before = half.clone()
    model = tf.cp_als(half, 3, **OPTIONS)
    assert torch.equal(half, before)
    assert {f.dtype for f in (model.weights, *model.factors)} == {torch.float32}
    # The values are exact in single precision: only the order of sums may differ.
    assert_same_model(model, expected(half, torch.float32))


def test_numpy_half_precision(x):
    array = x.numpy().astype(np.float16)
    model = tf.cp_als(array, 3, **OPTIONS)
    assert model.factors[0].dtype == np.float32
    assert_same_model(model, expected(torch.from_numpy(array), torch.float32))


def unaligned(array: np.ndarray) -> np.ndarray:
    data = np.frombuffer(b"\0" + array.tobytes(), np.uint8)
    return data[1:].view(array.dtype).reshape(array.shape)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "sliced": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 2)[::2, :, ::3],
    "negative stride": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "permuted": lambda a: np.ascontiguousarray(a.transpose(1, 2, 0)).transpose(2, 0, 1),
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "unaligned": unaligned,
    "in a record": lambda a: np.rec.fromarrays([a, a.astype(np.int8)]).f0,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_layouts(x, layout, dtype):
    plain = x.numpy().astype(dtype)
    array = LAYOUTS[layout](plain)
    before = array.copy()
    model = tf.cp_als(array, 3, **OPTIONS)
    assert np.array_equal(array, before)
    assert_same_model(model, expected(torch.from_numpy(plain), torch.from_numpy(plain).dtype))


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_pass_without_a_warning(x):
    array = x.numpy().copy()
    array.flags.writeable = False
    model = tf.cp_als(array, 3, **OPTIONS)
    assert not array.flags.writeable
    assert_same_model(model, expected(x))
    assert all(f.flags.writeable for f in model.factors)


@pytest.mark.parametrize("layout", ["permuted", "sliced", "expanded", "offset"])
def test_torch_layouts(x, layout):
    if layout == "expanded":
        x = x[:, :1].repeat(1, 5, 1)
    other = {
        "permuted": lambda: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        "sliced": lambda: torch.zeros(12, 5, 14, dtype=x.dtype)[::2, :, 1::2].copy_(x),
        "expanded": lambda: x[:, :1].expand(SHAPE),
        "offset": lambda: torch.cat([torch.zeros_like(x), x])[6:],
    }[layout]()
    model = tf.cp_als(other, 3, **OPTIONS)
    truth = expected(x)
    gap = tf.cp_to_tensor(model) - tf.cp_to_tensor(truth)
    assert float(gap.abs().max()) < 1e-8


def test_conjugate_and_negative_views():
    x = planted(SHAPE, 3, noise=0.1, dtype=torch.complex128)[0]
    assert x.conj().is_conj()
    model = tf.cp_als(x.conj(), 3, **OPTIONS)
    assert_same_model(model, tf.cp_als(x.conj().resolve_conj(), 3, **OPTIONS))
    imaginary = x.conj().imag
    assert imaginary.is_neg()
    model = tf.cp_als(imaginary, 3, **OPTIONS)
    assert_same_model(model, tf.cp_als(-x.imag, 3, **OPTIONS))


def test_tensors_that_require_grad_are_detached(x):
    x.requires_grad_()
    model = tf.cp_als(x, 3, **OPTIONS)
    assert x.grad is None
    assert not any(t.requires_grad for t in (model.weights, *model.factors))
    assert_same_model(model, expected(x.detach()))
    start = model.weights, [f.requires_grad_() for f in model.factors]
    again = tf.cp_als(x, 3, init=start, n_iter_max=1)
    assert not again.factors[0].requires_grad


def test_results_take_part_in_autograd(x):
    """They are ordinary tensors, to be made leaves of whatever is optimised next."""
    model = tf.cp_als(x, 3, **OPTIONS)
    factors = [f.requires_grad_() for f in model.factors]
    (tf.cp_to_tensor((model.weights, factors)) - x).square().sum().backward()
    assert all(torch.isfinite(f.grad).all() for f in factors)
    model.factors[0].data.mul_(2.0)


def test_inside_no_grad_and_inference_mode(x):
    plain = expected(x)
    with torch.no_grad():
        assert_same_model(tf.cp_als(x, 3, **OPTIONS), plain)
    with torch.inference_mode():
        assert_same_model(tf.cp_als(x * 1.0, 3, **OPTIONS), plain)


def test_parameters_are_tensors_too(x):
    model = tf.cp_als(torch.nn.Parameter(x), 3, **OPTIONS)
    assert type(model.factors[0]) is torch.Tensor
