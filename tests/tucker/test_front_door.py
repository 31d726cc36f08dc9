"""`tucker`, kinds of arrays, and errors of all Tucker decompositions."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast.testing import planted

METHODS = {"hooi": tf.hooi, "sthosvd": tf.sthosvd, "hosvd": tf.hosvd}
every = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def x() -> torch.Tensor:
    return planted((8, 7, 6), 5, noise=0.3)[0]


def same(a, b) -> bool:
    return all(torch.equal(f, g) for f, g in zip((a[0], *a[1]), (b[0], *b[1]), strict=True))


def error_of(x: torch.Tensor, model) -> float:
    core, factors = torch.as_tensor(np.asarray(model[0])), model[1]
    full = tf.tucker_to_tensor((core, [torch.as_tensor(np.asarray(f)) for f in factors]))
    return float(torch.linalg.vector_norm(x - full) / torch.linalg.vector_norm(x))


@every
def test_tucker_by_rank_is_the_method(x, method):
    assert same(tf.tucker(x, (3, 4, 2), method=method), METHODS[method](x, (3, 4, 2)))


def test_hooi_is_the_default(x):
    assert same(tf.tucker(x, 3), tf.hooi(x, 3))


@every
def test_tucker_by_tolerance(x, method):
    model = tf.tucker(x, tol=0.35, method=method)
    assert error_of(x, model) <= 0.35
    if method != "hooi":
        assert same(model, METHODS[method](x, tol=0.35))
        return
    start = tf.sthosvd(x, tol=0.35)
    assert model.rank == start.rank
    assert model.info.rel_errors[-1] <= start.info.rel_errors[-1]


@every
def test_numpy_in_and_out(x, method):
    array = x.numpy().copy()
    array.flags.writeable = False
    core, factors = METHODS[method](array, 3)
    assert all(type(a) is np.ndarray for a in (core, *factors))
    plain = METHODS[method](x, 3)
    np.testing.assert_allclose(core, plain.core, atol=1e-9)
    assert np.array_equal(array, x.numpy())


@every
def test_jax_in_and_out(x, method):
    core, factors = METHODS[method](jnp.asarray(x.numpy()), 3)
    assert all(isinstance(a, jax.Array) for a in (core, *factors))


@every
@pytest.mark.parametrize("layout", ["fortran", "sliced", "negative", "integer", "list"])
def test_layouts_and_types(x, method, layout):
    whole = x.mul(20).round()
    array = whole.numpy()
    given = {
        "fortran": np.asfortranarray(array),
        "sliced": np.repeat(array, 2, axis=1)[:, ::2],
        "negative": array[::-1, :, ::-1].copy()[::-1, :, ::-1],
        "integer": array.astype(np.int16),
        "list": array.tolist(),
    }[layout]
    model = METHODS[method](given, 3)
    expected = METHODS[method](whole, 3).info.rel_errors[-1]
    assert model.info.rel_errors[-1] == pytest.approx(expected, rel=1e-4)
    assert error_of(whole, model) == pytest.approx(expected, rel=1e-4)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_single(x, method, dtype):
    half = x.to(dtype)
    before = half.clone()
    for rank in (3, (8, 7, 6), (8, 3, 6)):
        model = METHODS[method](half, rank)
        assert {t.dtype for t in (model.core, *model.factors)} == {torch.float32}
        expected = METHODS[method](half.double(), rank).info.rel_errors[-1]
        assert model.info.rel_errors[-1] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert torch.equal(half, before)


@every
def test_tensors_that_require_grad_are_detached(x, method):
    model = METHODS[method](x.requires_grad_(), 3)
    assert not model.core.requires_grad
    core = model.core.clone().requires_grad_()
    tf.tucker_to_tensor((core, model.factors)).sum().backward()
    assert core.grad is not None


@every
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values(x, method, value):
    x[1, 2, 3] = value
    text = rf"{method}: x has 1 non-finite value.* of 336, the first at \(1, 2, 3\)"
    with pytest.raises(ValueError, match=text) as caught:
        METHODS[method](x, 3)
    # What is advised has to exist.
    assert "check_finite" not in str(caught.value)


@every
@pytest.mark.parametrize(
    ("rank", "error", "text"),
    [
        (0, ValueError, "rank.* is 0; expected at least 1"),
        (-1, ValueError, "rank.* is -1; expected at least 1"),
        ((2, 0, 2), ValueError, r"rank\[1\] is 0; expected at least 1"),
        ((2, 2), ValueError, "rank has 2 entries but x has 3 modes; expected one a mode"),
        ((2, 2, 2.0), TypeError, r"rank\[2\] is 2.0 \(float\); expected an integer"),
        (True, TypeError, "rank is True; expected an integer, one integer per mode, or a ratio"),
        (0.0, ValueError, r"rank is 0.0; expected a ratio in \(0, 1\], or integers"),
        (1.5, ValueError, r"rank is 1.5; expected a ratio in \(0, 1\], or integers"),
        (float("nan"), ValueError, r"rank is nan; expected a ratio in \(0, 1\], or integers"),
        ("3", TypeError, "rank is '3'; expected an integer"),
        ({2, 3, 4}, TypeError, "rank is {2, 3, 4}; expected an integer"),
    ],
    ids=str,
)
def test_ranks(x, method, rank, error, text):
    with pytest.raises(error, match=f"^{method}: {text}"):
        METHODS[method](x, rank)


@every
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("abc", TypeError, "x is str; expected an array"),
        (np.array([[None, 1]]), TypeError, "x has dtype object; expected a numeric array"),
        (
            np.ones((3, 0, 2)),
            ValueError,
            r"x.shape\[1\] is 0.*expected every mode to have length 1",
        ),
        (3.0, ValueError, r"x has 0 modes \(shape \(\)\); expected at least"),
    ],
    ids=["string", "objects", "empty", "scalar"],
)
def test_what_is_no_tensor(method, value, error, text):
    with pytest.raises(error, match=f"^{method}: {text}"):
        METHODS[method](value, 1)


@pytest.mark.parametrize("call", [tf.sthosvd, tf.hosvd, tf.tucker])
def test_either_rank_or_tol(x, call):
    name = call.__name__
    with pytest.raises(ValueError, match=f"{name}: rank is 2 and tol is 0.1; expected exactly one"):
        call(x, 2, tol=0.1)
    text = f"{name}: rank is None and tol is None; expected exactly one"
    with pytest.raises(ValueError, match=text):
        call(x)


@pytest.mark.parametrize("call", [tf.sthosvd, tf.hosvd])
@pytest.mark.parametrize(
    ("tol", "error"), [(-0.1, ValueError), ("a", TypeError), (np.nan, ValueError)]
)
def test_tolerances(x, call, tol, error):
    with pytest.raises(error, match=f"{call.__name__}: tol is .*; expected a (finite )?number"):
        call(x, tol=tol)


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ((0, 1), r"mode_order is \(0, 1\); expected all 3 modes"),
        ((0, 1, 1), r"mode_order is \(0, 1, 1\); expected each mode once"),
        ((0, 1, 3), "is 3 but x has 3 modes; expected -3 <= mode < 3"),
    ],
)
def test_mode_orders(x, order, text):
    with pytest.raises(ValueError, match=f"^sthosvd: .*{text}"):
        tf.sthosvd(x, 2, mode_order=order)


def test_methods(x):
    text = "tucker: method is 'als'; expected 'hooi', 'sthosvd' or 'hosvd'"
    with pytest.raises(ValueError, match=text):
        tf.tucker(x, 2, method="als")


def given(x, *ranks):
    return tf.sthosvd(x, ranks)


BAD_HOOI = {
    "name": (lambda x: {"init": "svd"}, ValueError, "init is 'svd'; expected 'sthosvd', 'random'"),
    "kind": (lambda x: {"init": 3}, TypeError, "expected .*TuckerTensor"),
    "ranks": (
        lambda x: {"init": given(x, 2, 3, 2)},
        ValueError,
        r"init factors\[1\] has shape \(7, 3\); expected \(7, 2\)",
    ),
    "fewer modes": (
        lambda x: {"init": given(x[..., 0], 2, 2)},
        ValueError,
        "2 (factors|modes)",
    ),
    "more modes": (
        lambda x: {"init": given(x[..., None].repeat(1, 1, 1, 2), 2, 2, 2, 2)},
        ValueError,
        "4 (factors|modes)",
    ),
    "NaN": (
        lambda x: {"init": (torch.ones(2, 2, 2), [torch.nan * torch.ones(n, 2) for n in x.shape])},
        ValueError,
        r"init factors\[0\].* 16 non-finite",
    ),
    "complex": (
        lambda x: {"init": given(x + 0j, 2, 2, 2)},
        TypeError,
        "complex.* x is real",
    ),
    "sweeps": (lambda x: {"n_iter_max": 0}, ValueError, "n_iter_max is 0; expected at least 1"),
    "tol": (lambda x: {"tol": -1}, ValueError, "tol is -1; expected a finite number of at least 0"),
    "callback": (
        lambda x: {"callback": 3},
        TypeError,
        r"callback is 3 \(int\); expected a function",
    ),
    "seed": (lambda x: {"seed": 1.5}, TypeError, r"seed is 1.5 \(float\); expected an integer"),
    "batch_dims": (
        lambda x: {"batch_dims": 2},
        ValueError,
        "batch_dims is 2 but x has 3 axes .* expected at least 2 modes",
    ),
}


@pytest.mark.parametrize(("options", "error", "text"), BAD_HOOI.values(), ids=BAD_HOOI)
def test_hooi_arguments(x, options, error, text):
    with pytest.raises(error, match=re.compile(f"^hooi: .*{text}")):
        tf.hooi(x, 2, **options(x))


def test_hooi_needs_two_modes():
    with pytest.raises(
        ValueError, match=r"hooi: x has 1 modes? \(shape \(4,\)\); expected at least 2"
    ):
        tf.hooi(torch.ones(4), 1)
