"""What each operation says of bad input: who, what was given, what is expected."""

import re

import numpy as np
import pytest
import torch

import tensorfast as tf

X = torch.ones(3, 4, 5)
U = [torch.ones(n, 2) for n in X.shape]
A = torch.ones(6, 4)


def replaced(n, value):
    return [*U[:n], value, *U[n + 1 :]]


SHAPES = {
    "mttkrp: rows": (
        lambda: tf.mttkrp(torch.ones(40, 40, 41), [torch.ones(40, 8)] * 3, 0),
        "mttkrp: factors[2] has shape (40, 8) but x.shape[2] is 41; expected (41, 8)",
    ),
    "mttkrp: columns": (
        lambda: tf.mttkrp(X, replaced(2, torch.ones(5, 3)), 1),
        "mttkrp: factors[2] has shape (5, 3); expected (5, 2)",
    ),
    "mttkrp: a vector": (
        lambda: tf.mttkrp(X, replaced(1, torch.ones(4)), 0),
        "mttkrp: factors[1] has shape (4,); expected a matrix (I_1, R)",
    ),
    "mttkrp: too few factors": (
        lambda: tf.mttkrp(X, U[:2], 0),
        "mttkrp: got 2 factors but x has 3 modes; expected one a mode",
    ),
    "mttkrp: rank 0": (
        lambda: tf.mttkrp(X, [torch.ones(n, 0) for n in X.shape], 0),
        "mttkrp: the factors have 0 columns; expected rank 1 or more",
    ),
    "mttkrp: one mode": (
        lambda: tf.mttkrp(torch.ones(3), [torch.ones(3, 2)], 0),
        "mttkrp: x has 1 modes (shape (3,)); expected at least 2",
    ),
    "mttkrp: weights": (
        lambda: tf.mttkrp(X, U, 0, torch.ones(3)),
        "mttkrp: weights has shape (3,); expected (2,)",
    ),
    "mttkrp: mode": (
        lambda: tf.mttkrp(X, U, 3),
        "mttkrp: mode is 3 but x has 3 modes; expected -3 <= mode < 3",
    ),
    "mttkrp: precision": (
        lambda: tf.mttkrp(X, U, 0, precision="fp64"),
        "mttkrp: precision is 'fp64'; expected one of ('ieee', 'tf32', 'bf16') or None",
    ),
    "khatri_rao: columns": (
        lambda: tf.khatri_rao([U[0], torch.ones(4, 3)]),
        "khatri_rao: factors[1] has shape (4, 3); expected (4, 2)",
    ),
    "khatri_rao: a vector": (
        lambda: tf.khatri_rao([torch.ones(4)]),
        "khatri_rao: factors[0] has shape (4,); expected a matrix (I_0, R)",
    ),
    "khatri_rao: nothing": (
        lambda: tf.khatri_rao([]),
        "khatri_rao: no factor is left; expected at least one",
    ),
    "khatri_rao: nothing after skip": (
        lambda: tf.khatri_rao(U[:1], skip=0),
        "khatri_rao: no factor is left; expected at least one",
    ),
    "khatri_rao: names keep their positions": (
        lambda: tf.khatri_rao([U[0], U[1], torch.ones(4)], skip=0),
        "khatri_rao: factors[2] has shape (4,); expected a matrix (I_2, R)",
    ),
    "khatri_rao: skip": (
        lambda: tf.khatri_rao(U, skip=3),
        "khatri_rao: skip is 3 ",
    ),
    "khatri_rao: weights": (
        lambda: tf.khatri_rao(U, [1.0]),
        "khatri_rao: weights has shape (1,); expected (2,)",
    ),
    "ttm: columns": (
        lambda: tf.ttm(X, A, 2),
        "ttm: matrix has shape (6, 4) but x.shape[2] is 5; expected (J, 5) or (5,)",
    ),
    "ttm: rows of the transposed": (
        lambda: tf.ttm(X, A, 1, transpose=True),
        "ttm: matrix has shape (6, 4) but x.shape[1] is 4; expected (4, J) or (4,)",
    ),
    "ttm: a vector": (
        lambda: tf.ttm(X, torch.ones(4), 0),
        "ttm: matrix has shape (4,) but x.shape[0] is 3; expected (J, 3) or (3,)",
    ),
    "ttm: a tensor": (
        lambda: tf.ttm(X, torch.ones(2, 2, 4), 1),
        "ttm: matrix has shape (2, 2, 4); expected a matrix or a vector",
    ),
    "ttm: a number": (
        lambda: tf.ttm(X, 2.0, 1),
        "ttm: matrix has shape (); expected a matrix or a vector",
    ),
    "ttm: no mode": (
        lambda: tf.ttm(torch.tensor(1.0), A, 0),
        "ttm: x has 0 modes (shape ()); expected at least 1",
    ),
    "ttm: mode": (
        lambda: tf.ttm(X, A, -4),
        "ttm: mode is -4 but x has 3 modes; expected -3 <= mode < 3",
    ),
    "ttm: precision": (
        lambda: tf.ttm(X, A, 1, precision="high"),
        "ttm: precision is 'high'; expected one of ('ieee', 'tf32', 'bf16') or None",
    ),
    "multi_ttm: a matrix": (
        lambda: tf.multi_ttm(X, [A, A], modes=[1, 2]),
        "multi_ttm: matrices[1] has shape (6, 4) but x.shape[2] is 5; expected (J, 5) or (5,)",
    ),
    "multi_ttm: counts": (
        lambda: tf.multi_ttm(X, [A], modes=[0, 1]),
        "multi_ttm: got 1 matrices and 2 modes; expected one mode each",
    ),
    "multi_ttm: too many": (
        lambda: tf.multi_ttm(X, [A] * 4),
        "multi_ttm: got 4 matrices but x has 3 modes",
    ),
    "multi_ttm: a mode twice": (
        lambda: tf.multi_ttm(X, [A, A], modes=[1, -2]),
        "multi_ttm: modes is (1, -2); expected each mode once",
    ),
    "multi_ttm: skip": (
        lambda: tf.multi_ttm(X, U, skip=3, transpose=True),
        "multi_ttm: skip is 3 but x has 3 modes; expected -3 <= skip < 3",
    ),
    "multi_ttm: a mode": (
        lambda: tf.multi_ttm(X, [A], modes=[7]),
        "multi_ttm: mode is 7 but x has 3 modes; expected -3 <= mode < 3",
    ),
    "multi_ttm: precision": (
        lambda: tf.multi_ttm(X, [], precision="high"),
        "multi_ttm: precision is 'high'; expected one of ('ieee', 'tf32', 'bf16') or None",
    ),
    "gram: mode": (
        lambda: tf.gram(X, 3),
        "gram: mode is 3 but x has 3 modes; expected -3 <= mode < 3",
    ),
    "gram: no mode": (
        lambda: tf.gram(1.0, 0),
        "gram: x has 0 modes (shape ()); expected at least 1",
    ),
    "gram: precision": (
        lambda: tf.gram(X, 0, precision="tf64"),
        "gram: precision is 'tf64'; expected one of ('ieee', 'tf32', 'bf16') or None",
    ),
}

TYPES = {
    "mttkrp: x is None": (
        lambda: tf.mttkrp(None, U, 0),
        "mttkrp: x is NoneType; expected an array",
    ),
    "mttkrp: a factor is None": (
        lambda: tf.mttkrp(X, replaced(1, None), 0),
        "mttkrp: factors[1] is NoneType; expected an array",
    ),
    "mttkrp: factors is one array": (
        lambda: tf.mttkrp(X, torch.ones(3, 4, 2), 0),
        "mttkrp: factors is Tensor; expected a sequence of arrays",
    ),
    "mttkrp: factors is None": (
        lambda: tf.mttkrp(X, None, 0),
        "mttkrp: factors is NoneType; expected a sequence of arrays",
    ),
    "mttkrp: mode is a float": (
        lambda: tf.mttkrp(X, U, 1.0),
        "mttkrp: mode is 1.0 (float); expected an integer",
    ),
    "mttkrp: mode is bool": (
        lambda: tf.mttkrp(X, U, True),
        "mttkrp: mode is True (bool); expected an integer",
    ),
    "mttkrp: a sparse factor": (
        lambda: tf.mttkrp(X, replaced(1, U[1].to_sparse()), 0),
        "mttkrp: factors[1] has layout torch.sparse_coo; expected a dense tensor; use .to_dense()",
    ),
    "mttkrp: float8": (
        lambda: tf.mttkrp(X.to(torch.float8_e4m3fn), U, 0),
        "mttkrp: x has dtype float8_e4m3fn; expected one of float16, bfloat16, float32, float64, "
        "complex64, complex128",
    ),
    "mttkrp: weights are float8": (
        lambda: tf.mttkrp(X, U, 0, torch.ones(2).to(torch.float8_e4m3fn)),
        "mttkrp: weights has dtype float8_e4m3fn; expected one of float16",
    ),
    "khatri_rao: a string": (
        lambda: tf.khatri_rao("ab"),
        "khatri_rao: factors is str; expected a sequence of arrays",
    ),
    "khatri_rao: float8": (
        lambda: tf.khatri_rao([U[0].to(torch.float8_e5m2)]),
        "khatri_rao: factors[0] has dtype float8_e5m2; expected one of float16",
    ),
    "khatri_rao: skip is a float": (
        lambda: tf.khatri_rao(U, skip=0.5),
        "khatri_rao: skip is 0.5 (float); expected an integer",
    ),
    "ttm: matrix is None": (
        lambda: tf.ttm(X, None, 0),
        "ttm: matrix is NoneType; expected an array",
    ),
    "ttm: matrix is float8": (
        lambda: tf.ttm(X, A.to(torch.float8_e5m2), 1),
        "ttm: matrix has dtype float8_e5m2; expected one of float16",
    ),
    "multi_ttm: matrices is None": (
        lambda: tf.multi_ttm(X, None),
        "multi_ttm: matrices is NoneType; expected a sequence of arrays",
    ),
    "multi_ttm: matrices is one array": (
        lambda: tf.multi_ttm(X, np.ones((3, 4))),
        "multi_ttm: matrices is ndarray; expected a sequence of arrays",
    ),
    "multi_ttm: modes is an integer": (
        lambda: tf.multi_ttm(X, [A], modes=1),
        "multi_ttm: modes is 1; expected a sequence of integers",
    ),
    "multi_ttm: a matrix is None": (
        lambda: tf.multi_ttm(X, [A, None], modes=[1, 2]),
        "multi_ttm: matrices[1] is NoneType; expected an array",
    ),
    "gram: a string": (lambda: tf.gram("x", 0), "gram: x is str; expected an array"),
    "gram: objects": (
        lambda: tf.gram(np.array([[None]]), 0),
        "gram: x has dtype object; expected a numeric array",
    ),
    "gram: mode is None": (
        lambda: tf.gram(X, None),
        "gram: mode is None (NoneType); expected an integer",
    ),
}


@pytest.mark.parametrize(("call", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_wrong_values_and_shapes(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(("call", "message"), TYPES.values(), ids=TYPES.keys())
def test_wrong_types(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


AWAY = torch.ones(3, 4, 5, device="meta")
DEVICES = {
    "mttkrp x": (
        lambda: tf.mttkrp(AWAY, U, 0),
        "mttkrp: factors[1] is on cpu but x is on meta; expected the same device",
    ),
    "mttkrp factor": (
        lambda: tf.mttkrp(X, [*U[:2], AWAY[0, 0, :, None].expand(5, 2)], 0),
        "mttkrp: factors[2] is on meta but x is on cpu; expected the same device",
    ),
    "mttkrp weights": (
        lambda: tf.mttkrp(X, U, 0, AWAY[0, 0, :2]),
        "mttkrp: weights is on meta but x is on cpu; expected the same device",
    ),
    "ttm x": (
        lambda: tf.ttm(AWAY, A, 1),
        "ttm: matrix is on cpu but x is on meta; expected the same device",
    ),
    "ttm vector": (
        lambda: tf.ttm(X, AWAY[0, 0], 2),
        "ttm: matrix is on meta but x is on cpu; expected the same device",
    ),
    "multi_ttm": (
        lambda: tf.multi_ttm(X, [A, AWAY[0]], modes=[1, 2]),
        "multi_ttm: matrices[1] is on meta but x is on cpu; expected the same device",
    ),
    "khatri_rao": (
        lambda: tf.khatri_rao([U[0], U[1], AWAY[0, 0, :, None].expand(5, 2)], skip=0),
        "khatri_rao: factors[2] is on meta but factors[1] is on cpu; expected the same device",
    ),
    "khatri_rao weights": (
        lambda: tf.khatri_rao(U, AWAY[0, 0, :2]),
        "khatri_rao: weights is on meta but factors[0] is on cpu; expected the same device",
    ),
}


@pytest.mark.parametrize(("call", "message"), DEVICES.values(), ids=DEVICES.keys())
def test_operands_on_two_devices(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
