"""What decompositions return: two items, frozen, and understood by TensorLy."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import tensorly as tl
import torch

import tensorfast as tf
from tensorfast.testing import planted

X = planted((6, 5, 4), 2, noise=0.1)[0]
RESULTS = {"cp": tf.cp_als(X.numpy(), 2, seed=0, n_iter_max=5), "tucker": tf.sthosvd(X.numpy(), 2)}
both = pytest.mark.parametrize("name", RESULTS)


@both
def test_is_two_items(name):
    result = RESULTS[name]
    first, factors = result
    assert len(result) == 2
    assert first is result[0] is result[-2]
    assert factors is result[1] is result[-1] is result.factors
    assert first is (result.weights if name == "cp" else result.core)
    assert list(result)[1] is factors
    assert isinstance(factors, list)
    with pytest.raises(IndexError):
        result[2]


@both
def test_is_frozen(name):
    result = RESULTS[name]
    for field in dataclasses.fields(result):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field.name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.info.status = "better"
    with pytest.raises(TypeError):
        result[0] = None


def test_shape_and_rank():
    cp, tucker = RESULTS["cp"], RESULTS["tucker"]
    assert cp.shape == tucker.shape == (6, 5, 4)
    assert cp.rank == 2
    assert tucker.rank == (2, 2, 2)


@both
def test_repr_is_short(name):
    text = repr(RESULTS[name])
    assert "shape=(6, 5, 4)" in text
    assert "rank=" in text
    assert "status='" in text
    assert len(text) < 200


def test_repr_before_any_sweep():
    info = tf.ConvergenceInfo(0, (), 0.0, False, "stopped", "")
    assert "rel_error=none" in repr(info)
    assert "info=None" in repr(tf.CPTensor(np.ones(1), [np.ones((3, 1))]))


def test_info():
    info = RESULTS["cp"].info
    assert info.n_iter == len(info.rel_errors) == 5
    assert isinstance(info.rel_errors, tuple)
    assert all(type(e) is float for e in info.rel_errors)
    assert info.fit == 1 - info.rel_errors[-1]
    assert info.status == "max_iter"
    assert info.message.endswith(".")
    assert info == dataclasses.replace(info)


@both
def test_survives_pickle_and_copy(name):
    result = RESULTS[name]
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert np.array_equal(other[0], result[0])
        assert other.info == result.info


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_tensorly_understands(backend):
    before = tl.get_backend()
    tl.set_backend(backend)
    try:
        x = X.numpy() if backend == "numpy" else X
        cp = tf.cp_als(x, 2, seed=0, n_iter_max=5)
        tucker = tf.hooi(x, 2)
        for model, full, ours in (
            (cp, tl.cp_to_tensor(cp), tf.cp_to_tensor(cp)),
            (tucker, tl.tucker_to_tensor(tucker), tf.tucker_to_tensor(tucker)),
        ):
            assert type(full) is type(x)
            np.testing.assert_allclose(full, ours, atol=1e-12)
            error = float(np.linalg.norm(np.asarray(full) - X.numpy()) / np.linalg.norm(X.numpy()))
            assert error == pytest.approx(model.info.rel_errors[-1], rel=1e-6)
        # And what TensorLy returns, we understand.
        theirs = tl.cp_tensor.CPTensor(tuple(cp))
        np.testing.assert_allclose(tf.cp_to_tensor(theirs), tf.cp_to_tensor(cp))
        assert tf.relative_error(x, theirs) == pytest.approx(cp.info.rel_errors[-1], rel=1e-6)
        assert tf.cp_als(x, 2, init=theirs, n_iter_max=1).info.n_iter == 1
        theirs = tl.tucker_tensor.TuckerTensor(tuple(tucker))
        assert tf.hooi(x, 2, init=theirs, n_iter_max=1).info.n_iter == 1
    finally:
        tl.set_backend(before)


def test_can_be_made_by_hand():
    weights, factors = torch.ones(2), [torch.ones(3, 2), torch.ones(4, 2)]
    assert tf.cp_to_tensor(tf.CPTensor(weights, factors)).shape == (3, 4)
    assert tf.tucker_to_tensor(tf.TuckerTensor(torch.ones(2, 2), factors)).shape == (3, 4)
