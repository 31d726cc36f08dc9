"""The checks of arguments: what they let through, what they return, and what they say."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from tensorfast import _check

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)], ids=type)
def test_whole_numbers_of_any_integer_type_become_int(value):
    for found in (
        _check.whole_number("op", "n", value, 3),
        _check.cp_rank("op", value),
        _check.mode("op", value, 4),
    ):
        assert type(found) is int
        assert found == 3


@pytest.mark.parametrize("value", [0, 2.5, np.float32(2.5), Fraction(5, 2)], ids=type)
def test_numbers_of_any_real_type_become_float(value):
    assert type(_check.number("op", "tol", value)) is float
    assert _check.number("op", "tol", value) == value


def test_modes_come_back_counted_from_the_front_and_in_the_order_given():
    assert [_check.mode("op", n, 3) for n in (0, 2, -1, -3)] == [0, 2, 2, 0]
    assert _check.modes("op", [2, -3], 3) == (2, 0)
    assert _check.modes("op", range(3), 3) == (0, 1, 2)
    assert set(_check.modes("op", {0, 1}, 3)) == {0, 1}
    assert _check.modes("op", (), 3) == ()
    assert _check.modes("op", np.array([2, 0]), 3) == (2, 0)
    assert _check.modes("op", torch.tensor([2, 0]), 3) == (2, 0)


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (3, (3, 3, 2)),
        (np.int32(3), (3, 3, 2)),
        ((1, 2, 2), (1, 2, 2)),
        ([9, 9, 9], (4, 5, 2)),
        (0.5, (2, 3, 1)),
        (1.0, (4, 5, 2)),
        (1e-9, (1, 1, 1)),
        (np.float64(0.26), (2, 2, 1)),
        (np.array([1, 2, 2]), (1, 2, 2)),
    ],
    ids=repr,
)
def test_tucker_ranks_are_one_a_mode_and_at_most_its_length(rank, expected):
    assert _check.tucker_rank("op", rank, (4, 5, 2)) == expected


@pytest.mark.parametrize(
    ("ratio", "size", "expected"),
    [(0.07, 100, 7), (0.28, 25, 7), (0.14, 50, 7), (np.float32(0.07), 100, 7), (0.071, 100, 8)],
)
def test_a_ratio_that_gives_a_whole_rank_is_not_rounded_past_it(ratio, size, expected):
    assert _check.tucker_rank("op", ratio, (size,)) == (expected,)


def test_what_is_right_passes():
    x = torch.ones(2, 3)
    _check.finite("op", x)
    _check.finite("op", torch.ones(2, dtype=torch.complex64))
    _check.finite("op", torch.empty(0, 3))
    _check.nonempty("op", x)
    _check.modes_at_least("op", x, 2)
    _check.one_device("op", {"x": x, "y": None, "z": x})
    _check.only("op", "n_init", 1, 1)
    _check.only("op", "batch_dims", 0, 0)
    for value in (None, 0, np.int64(3), 2**64 - 1, torch.Generator()):
        _check.seed("op", value)
    for value in ("ieee", "tf32", "bf16", None):
        _check.precision("op", value)
    assert _check.factors("op", [x, torch.ones(5, 3)]) == 3
    assert _check.factors("op", [x, None, torch.ones(5, 3)], (2, 9, 5), skip=1) == 3


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_first_non_finite_value_is_named_and_all_are_counted(value, dtype):
    x = torch.ones(3, 4, 5, dtype=dtype)
    x[1, 2, 3] = x[1, 3, 0] = x[2, 0, 0] = value
    message = (
        f"op: x has 3 non-finite values of 60, the first at (1, 2, 3) ({value}); expected finite "
        "values; fill or drop them"
    )
    for laid in (x, x.permute(2, 1, 0).contiguous().permute(2, 1, 0)):
        with pytest.raises(ValueError, match=re.escape(message)):
            _check.finite("op", laid)


def test_non_finite_values_are_named_whatever_the_default_device():
    x = torch.ones(3, 4)
    x[2, 1] = NAN
    message = r"op: x has 1 non-finite values of 12, the first at \(2, 1\)"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        _check.finite("op", x)


def test_a_complex_number_is_finite_only_if_both_its_parts_are():
    x = torch.ones(2, 2, dtype=torch.complex64)
    x[1, 0] = complex(0, INF)
    with pytest.raises(
        ValueError, match=r"op: x has 1 non-finite values of 4, the first at \(1, 0\)"
    ):
        _check.finite("op", x)


ERRORS = {
    "whole_number float": (
        lambda: _check.whole_number("op", "n", 3.0, 1),
        TypeError,
        "op: n is 3.0 (float); expected an integer",
    ),
    "whole_number bool": (
        lambda: _check.whole_number("op", "n", True, 1),
        TypeError,
        "op: n is True (bool); expected an integer",
    ),
    "whole_number small": (
        lambda: _check.whole_number("op", "n", 0, 1),
        ValueError,
        "op: n is 0; expected at least 1",
    ),
    "number str": (
        lambda: _check.number("op", "tol", "1"),
        TypeError,
        "op: tol is '1' (str); expected a number",
    ),
    "number bool": (
        lambda: _check.number("op", "tol", False),
        TypeError,
        "op: tol is False (bool); expected a number",
    ),
    "number complex": (
        lambda: _check.number("op", "tol", 1j),
        TypeError,
        "op: tol is 1j (complex); expected a number",
    ),
    "number negative": (
        lambda: _check.number("op", "tol", -1e-9),
        ValueError,
        "op: tol is -1e-09; expected a finite number of at least 0.0",
    ),
    "number nan": (
        lambda: _check.number("op", "tol", NAN),
        ValueError,
        "op: tol is nan; expected a finite number of at least 0.0",
    ),
    "number inf": (
        lambda: _check.number("op", "tol", INF, 1.0),
        ValueError,
        "op: tol is inf; expected a finite number of at least 1.0",
    ),
    "only": (
        lambda: _check.only("op", "n_init", 3, 1),
        NotImplementedError,
        "op: n_init is 3; this version supports n_init=1 only; loop over the calls",
    ),
    "only type": (
        lambda: _check.only("op", "n_init", 1.5, 1),
        TypeError,
        "op: n_init is 1.5 (float); expected an integer",
    ),
    "only range": (
        lambda: _check.only("op", "batch_dims", -1, 0),
        ValueError,
        "op: batch_dims is -1; expected at least 0",
    ),
    "batch_dims": (
        lambda: _check.batch_dims("op", 2, torch.ones(2, 3, 4), 2),
        ValueError,
        "op: batch_dims is 2 but x has 3 axes (shape (2, 3, 4)); expected at least 2 modes beside "
        "those of the batch",
    ),
    "batch_dims none": (
        lambda: _check.batch_dims("op", 0, torch.ones(2), 2),
        ValueError,
        "op: x has 1 modes (shape (2,)); expected at least 2",
    ),
    "one_device": (
        lambda: _check.one_device("op", {"x": torch.ones(2), "u": torch.ones(2, device="meta")}),
        ValueError,
        "op: u is on meta but x is on cpu; expected the same device",
    ),
    "mode named": (
        lambda: _check.mode("op", 2, 2, "skip", "there are {} factors"),
        ValueError,
        "op: skip is 2 but there are 2 factors; expected -2 <= skip < 2",
    ),
    "mode high": (
        lambda: _check.mode("op", 3, 3),
        ValueError,
        "op: mode is 3 but x has 3 modes; expected -3 <= mode < 3",
    ),
    "mode low": (
        lambda: _check.mode("op", -4, 3),
        ValueError,
        "op: mode is -4 but x has 3 modes; expected -3 <= mode < 3",
    ),
    "mode bool": (
        lambda: _check.mode("op", False, 3),
        TypeError,
        "op: mode is False (bool); expected an integer",
    ),
    "modes twice": (
        lambda: _check.modes("op", [0, -3], 3, "fixed_modes"),
        ValueError,
        "op: fixed_modes is (0, -3); expected each mode once",
    ),
    "modes integer": (
        lambda: _check.modes("op", 1, 3, "fixed_modes"),
        TypeError,
        "op: fixed_modes is 1; expected a sequence of integers",
    ),
    "modes None": (
        lambda: _check.modes("op", None, 3),
        TypeError,
        "op: modes is None; expected a sequence of integers",
    ),
    "storage": (
        lambda: _check.storage("op", "x", torch.int32),
        TypeError,
        "op: x has dtype int32; expected one of float16, bfloat16, float32, float64, complex64, "
        "complex128",
    ),
    "precision": (
        lambda: _check.precision("op", "fp16"),
        ValueError,
        "op: precision is 'fp16'; expected one of ('ieee', 'tf32', 'bf16') or None",
    ),
    "seed text": (
        lambda: _check.seed("op", "abc"),
        TypeError,
        "op: seed is 'abc' (str); expected an integer",
    ),
    "seed negative": (
        lambda: _check.seed("op", -1),
        ValueError,
        "op: seed is -1; expected at least 0",
    ),
    "seed large": (
        lambda: _check.seed("op", 2**64),
        ValueError,
        "op: seed is 18446744073709551616; expected at most 2**64 - 1",
    ),
    "modes_at_least": (
        lambda: _check.modes_at_least("op", torch.ones(3), 2),
        ValueError,
        "op: x has 1 modes (shape (3,)); expected at least 2",
    ),
    "nonempty": (
        lambda: _check.nonempty("op", torch.ones(3, 0, 2)),
        ValueError,
        "op: x.shape[1] is 0 (shape (3, 0, 2)); expected every mode to have length 1 or more",
    ),
    "cp_rank float": (
        lambda: _check.cp_rank("op", 2.0),
        TypeError,
        "op: rank is 2.0 (float); expected one integer, the number of components",
    ),
    "cp_rank tuple": (
        lambda: _check.cp_rank("op", (2, 2)),
        TypeError,
        "op: rank is (2, 2) (tuple); expected one integer, the number of components",
    ),
    "cp_rank zero": (
        lambda: _check.cp_rank("op", 0),
        ValueError,
        "op: rank is 0; expected at least 1",
    ),
    "tucker_rank ratio": (
        lambda: _check.tucker_rank("op", 1.5, (3, 4)),
        ValueError,
        "op: rank is 1.5; expected a ratio in (0, 1], or integers",
    ),
    "tucker_rank zero ratio": (
        lambda: _check.tucker_rank("op", 0.0, (3, 4)),
        ValueError,
        "op: rank is 0.0; expected a ratio in (0, 1], or integers",
    ),
    "tucker_rank nan": (
        lambda: _check.tucker_rank("op", NAN, (3, 4)),
        ValueError,
        "op: rank is nan; expected a ratio in (0, 1], or integers",
    ),
    "tucker_rank zero": (
        lambda: _check.tucker_rank("op", (2, 0), (3, 4)),
        ValueError,
        "op: rank[1] is 0; expected at least 1",
    ),
    "callback": (
        lambda: _check.callback("op", 3),
        TypeError,
        "op: callback is 3 (int); expected a function of sweep, error and factors, or None",
    ),
    "tucker_rank float entry": (
        lambda: _check.tucker_rank("op", (2, 0.5), (3, 4)),
        TypeError,
        "op: rank[1] is 0.5 (float); expected an integer",
    ),
    "tucker_rank count": (
        lambda: _check.tucker_rank("op", (2, 2, 2), (3, 4)),
        ValueError,
        "op: rank has 3 entries but x has 2 modes; expected one a mode",
    ),
    "tucker_rank bool": (
        lambda: _check.tucker_rank("op", True, (3, 4)),
        TypeError,
        "op: rank is True; expected an integer, one integer per mode, or a ratio in (0, 1]",
    ),
    "tucker_rank text": (
        lambda: _check.tucker_rank("op", "22", (3, 4)),
        TypeError,
        "op: rank is '22'; expected an integer, one integer per mode, or a ratio in (0, 1]",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_what_is_wrong_is_said(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()


def test_every_check_has_its_error_tested():
    tested = {name.split()[0] for name in ERRORS}
    # Those two have tests of their own, above and with the operations.
    assert set(_check.__all__) - tested == {"factors", "finite"}
