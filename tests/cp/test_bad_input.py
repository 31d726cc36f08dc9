"""Bad arguments are refused before any work: what was given, what is required, what to do."""

import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast.testing import planted, random_cp

SHAPE = (4, 5, 6)


@pytest.fixture
def x() -> torch.Tensor:
    return planted(SHAPE, 2, noise=0.1)[0]


def start(shape=SHAPE, rank=2):
    return random_cp(shape, rank)


@pytest.mark.parametrize(("value", "count"), [("nan", 1), ("inf", 1), ("-inf", 2), ("nan", 7)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_non_finite_values_are_counted_and_the_first_is_named(x, value, count, dtype):
    x = x.to(dtype)
    # From (1, 2, 3) on in C order.
    x.view(-1)[45 : 45 + count] = float(value)
    with pytest.raises(ValueError, match="cp_als: x has") as caught:
        tf.cp_als(x, 2)
    message = str(caught.value)
    assert f"x has {count} non-finite value" in message
    assert "of 120" in message
    assert "the first at (1, 2, 3)" in message
    assert value in message
    assert "expected finite values" in message
    assert "check_finite=False" in message


def test_the_first_index_is_that_of_the_given_array(x):
    """Not of the order in which it lies in memory."""
    array = x.numpy().copy()
    array[3, 0, 1] = array[0, 4, 2] = np.nan
    for view in (array, np.asfortranarray(array)):
        with pytest.raises(
            ValueError, match=r"2 non-finite values of 120, the first at \(0, 4, 2\)"
        ):
            tf.cp_als(view, 2)
    with pytest.raises(ValueError, match=r"the first at \(1, 0, 3\)"):
        tf.cp_als(array.transpose(2, 1, 0), 2)
    with pytest.raises(ValueError, match=r"the first at \(0, 0, 1\)"):
        tf.cp_als(array[::-1], 2)


def test_the_check_can_be_left_out(x):
    checked = tf.cp_als(x, 2, seed=0, n_iter_max=3)
    unchecked = tf.cp_als(x, 2, seed=0, n_iter_max=3, check_finite=False)
    assert torch.equal(checked.weights, unchecked.weights)


def test_large_finite_values_are_not_taken_for_infinite():
    """Their squares overflow even in double precision."""
    x = planted(SHAPE, 1)[0] * 1e200
    model = tf.cp_als(x, 1, seed=0)
    assert all(torch.isfinite(f).all() for f in (model.weights, *model.factors))
    assert model.info.rel_errors[-1] < 1e-6


BAD_X = [
    ("string", "abc", TypeError, r"cp_als: x is str; expected an array"),
    ("bytes", b"abc", TypeError, r"cp_als: x is bytes; expected an array"),
    ("none", None, TypeError, r"cp_als: x is NoneType; expected an array"),
    ("object array", np.array([[1, None], [2, 3]]), TypeError, "x has dtype object; expected"),
    ("strings", np.array([["a", "b"]]), TypeError, r"cp_als: x has dtype <U1; expected a numeric"),
    ("dates", np.zeros((2, 2), "M8[s]"), TypeError, r"x has dtype datetime64\[s\]; expected"),
    ("ragged list", [[1.0, 2.0], [3.0]], TypeError, r"cp_als: x is not a rectangular array"),
    ("dict", {"a": 1}, TypeError, r"cp_als: x "),
    ("longdouble", np.zeros((2, 2), np.longdouble), TypeError, r"cp_als: x has dtype .*; expected"),
    ("masked", np.ma.masked_array(np.ones((2, 2))), TypeError, "masked array.*fill the masked"),
    ("sparse", torch.eye(3).to_sparse(), TypeError, r"x has layout torch.sparse_coo.*to_dense"),
    ("scalar", 3.0, ValueError, r"cp_als: x has 0 modes \(shape \(\)\); expected at least 2"),
    ("vector", np.ones(3), ValueError, r"x has 1 modes? \(shape \(3,\)\); expected at least 2"),
    ("empty first", np.ones((0, 2)), ValueError, r"cp_als: x.shape\[0\] is 0 \(shape \(0, 2\)\)"),
    ("empty last", np.ones((3, 2, 0)), ValueError, r"x.shape\[2\] is 0.*expected every mode"),
]


@pytest.mark.parametrize(
    ("value", "error", "text"), [pytest.param(*case[1:], id=case[0]) for case in BAD_X]
)
def test_what_is_no_tensor(value, error, text):
    with pytest.raises(error, match=text):
        tf.cp_als(value, 2)


def test_float8_is_refused_with_the_types_there_are():
    x = torch.ones(3, 4, 5).to(torch.float8_e4m3fn)
    with pytest.raises(
        TypeError, match=r"cp_als: x has dtype float8_e4m3fn; expected one of float16"
    ):
        tf.cp_als(x, 2)


BAD_ARGUMENTS = [
    ({"rank": 0}, ValueError, "rank is 0; expected at least 1"),
    ({"rank": -2}, ValueError, "rank is -2; expected at least 1"),
    ({"rank": True}, TypeError, r"rank is True \(bool\); expected one integer"),
    ({"rank": 2.0}, TypeError, r"rank is 2.0 \(float\); expected one integer"),
    ({"rank": 0.5}, TypeError, r"rank is 0.5 \(float\); expected one integer"),
    ({"rank": "2"}, TypeError, r"rank is '2' \(str\); expected one integer"),
    ({"rank": (2, 2, 2)}, TypeError, r"rank is \(2, 2, 2\) \(tuple\); expected one integer"),
    ({"rank": None}, TypeError, r"rank is None \(NoneType\); expected one integer"),
    ({"n_iter_max": 0}, ValueError, "n_iter_max is 0; expected at least 1"),
    ({"n_iter_max": 1.5}, TypeError, r"n_iter_max is 1.5 \(float\); expected an integer"),
    ({"tol": -1e-3}, ValueError, "tol is -0.001; expected a finite number of at least 0"),
    ({"tol": float("nan")}, ValueError, "tol is nan; expected a finite number"),
    ({"tol": "small"}, TypeError, r"tol is 'small' \(str\); expected a number"),
    ({"tol": None}, TypeError, r"tol is None \(NoneType\); expected a number"),
    ({"callback": 3}, TypeError, r"callback is 3 \(int\); expected a function"),
    ({"l2_reg": -1.0}, ValueError, "l2_reg is -1.0; expected a finite number of at least 0"),
    ({"l2_reg": float("inf")}, ValueError, "l2_reg is inf; expected a finite number"),
    ({"precision": "fp8"}, ValueError, r"precision is 'fp8'; expected one of .*'bf16'"),
    ({"n_init": 0}, ValueError, "n_init is 0; expected at least 1"),
    ({"n_init": 2.5}, TypeError, r"n_init is 2.5 \(float\); expected an integer"),
    ({"batch_dims": -1}, ValueError, "batch_dims is -1; expected at least 0"),
    ({"seed": -1}, ValueError, "seed is -1; expected at least 0"),
    ({"seed": 2**64}, ValueError, r"seed is 18446744073709551616; expected at most 2\*\*64 - 1"),
    ({"seed": "x", "init": start()}, TypeError, r"seed is 'x' \(str\); expected an integer"),
    ({"seed": "x"}, TypeError, r"seed is 'x' \(str\); expected an integer"),
    ({"init": "nvecs"}, ValueError, r"init is 'nvecs'; expected 'svd', 'random', a CPTensor or"),
    ({"init": None}, TypeError, r"init is NoneType; expected 'svd', 'random', a CPTensor or"),
    ({"init": 3}, TypeError, r"init is int; expected 'svd', 'random', a CPTensor or"),
    ({"fixed_modes": (3,)}, ValueError, "is 3 but x has 3 modes; expected -3 <= mode < 3"),
    ({"fixed_modes": (0, -3)}, ValueError, r"fixed_modes is \(0, -3\); expected each mode once"),
    ({"fixed_modes": 1}, TypeError, "fixed_modes is 1; expected a sequence of integers"),
    ({"fixed_modes": (0.0,)}, TypeError, r"0.0 \(float\); expected an integer"),
    ({"fixed_modes": (0,)}, ValueError, r"is \(0,\) but init is 'svd'; pass the factors"),
    ({"fixed_modes": range(3), "init": start()}, ValueError, "expected at least one mode"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [pytest.param(*case, id=str(case[0])[:30]) for case in BAD_ARGUMENTS],
)
def test_arguments(x, arguments, error, text):
    called = []
    arguments = {"rank": 2, "callback": lambda *_: called.append(1), **arguments}
    with pytest.raises(error, match=f"^cp_als: .*{text}"):
        tf.cp_als(x, **arguments)
    assert not called


BAD_INIT = {
    "too few": (
        lambda w, f: (w, f[:2]),
        ValueError,
        "got 2 factors but x has 3 modes; expected one a mode",
    ),
    "swapped": (
        lambda w, f: (w, [f[0], f[2], f[1]]),
        ValueError,
        r"factors\[1\] has shape \(6, 2\) but x.shape\[1\] is 5; expected \(5, 2\)",
    ),
    "other rank in one": (
        lambda w, f: (w, [f[0], f[1], f[2][:, :1]]),
        ValueError,
        r"factors\[2\] has shape \(6, 1\).*expected \(6, 2\)",
    ),
    "a vector": (
        lambda w, f: (w, [f[0], f[1], f[2][:, 0]]),
        ValueError,
        r"factors\[2\] has shape \(6,\); expected a matrix",
    ),
    "short weights": (
        lambda w, f: (w[:1], f),
        ValueError,
        r"weights has shape \(1,\); expected \(2,\)",
    ),
    "other rank": (
        lambda w, f: start(rank=3),
        ValueError,
        "init has rank 3 but rank is 2",
    ),
    "no pair": (
        lambda w, f: f,
        TypeError,
        r"init is list; expected 'svd', 'random', a CPTensor or \(weights, factors\)",
    ),
    "a string for factors": (
        lambda w, f: (w, "abc"),
        TypeError,
        "factors is str; expected a sequence of arrays",
    ),
    "a string for a factor": (
        lambda w, f: (w, [f[0], f[1], "abc"]),
        TypeError,
        r"factors\[2\] is str; expected an array",
    ),
    "NaN in a factor": (
        lambda w, f: (w, [f[0], torch.nan * f[1], f[2]]),
        ValueError,
        r"init factors\[1\].* 10 non-finite values",
    ),
    "Inf in weights": (
        lambda w, f: (torch.inf * w, f),
        ValueError,
        "weights.* non-finite",
    ),
    "complex factors": (
        lambda w, f: (w, [f[0] + 0j, *f[1:]]),
        TypeError,
        "init is complex but x is real",
    ),
    "complex weights": (
        lambda w, f: (w + 0j, f),
        TypeError,
        "init is complex but x is real",
    ),
}


@pytest.mark.parametrize(("change", "error", "text"), BAD_INIT.values(), ids=BAD_INIT)
def test_init(x, change, error, text):
    with pytest.raises(error, match=rf"^cp_als: .*{text}"):
        tf.cp_als(x, 2, init=change(*start()))


def test_a_generator_of_another_device_is_refused(x):
    class Elsewhere(torch.Generator):
        device = torch.device("cuda:0")

    with pytest.raises(ValueError, match="seed is a generator on cuda:0 but x is on cpu"):
        tf.cp_als(x, 2, seed=Elsewhere())


def test_factors_of_another_device_are_refused(x):
    weights, factors = start()
    factors[1] = factors[1].to("meta")
    with pytest.raises(ValueError, match=r"init factors\[1\] is on meta but x is on cpu"):
        tf.cp_als(x, 2, init=(weights, factors))


def test_whole_numbers_of_numpy_are_whole_numbers(x):
    one = tf.cp_als(x, np.int64(2), n_iter_max=np.int32(3), seed=np.uint8(1), tol=np.float32(0))
    two = tf.cp_als(x, 2, n_iter_max=3, seed=1, tol=0)
    assert torch.equal(one.weights, two.weights)
