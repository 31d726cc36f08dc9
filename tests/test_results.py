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


def infos(count):
    statuses = ("converged", "max_iter", "precision_limit")
    return [
        tf.ConvergenceInfo(
            n, (0.5, 0.1 * n), 1 - 0.1 * n, n % 3 != 1, statuses[n % 3], f"Message {n}."
        )
        for n in range(count)
    ]


def test_batch_info_is_indexed_by_position():
    info = tf.BatchInfo(infos(6), (2, 3))
    assert len(info) == 6
    assert list(info) == infos(6)
    assert info[0, 0] is next(iter(info))
    assert info[1, 2] is info[-1, -1] is list(info)[5]
    flat = tf.BatchInfo(infos(6), (6,))
    assert flat[4] is flat[(4,)] is flat[-2]
    assert flat[np.int64(4)] is flat[4]
    for index in (0, (0,), (0, 3), (2, 0), (0, -4), (0, 0, 0)):
        with pytest.raises(IndexError, match="BatchInfo: index"):
            info[index]
    with pytest.raises(ValueError, match=r"got 5 infos for a batch of shape \(2, 3\)"):
        tf.BatchInfo(infos(5), (2, 3))


def test_batch_info_has_arrays_of_the_shape_of_the_batch():
    info = tf.BatchInfo(infos(6), (2, 3))
    assert np.array_equal(info.n_iter, [[0, 1, 2], [3, 4, 5]])
    assert np.allclose(info.rel_error, 0.1 * info.n_iter)
    assert np.array_equal(info.converged, [[True, False, True]] * 2)
    assert np.array_equal(info.status, [["converged", "max_iter", "precision_limit"]] * 2)
    assert [a.dtype.kind for a in (info.n_iter, info.rel_error, info.converged)] == ["i", "f", "b"]


def test_batch_info_is_told_in_short():
    info = tf.BatchInfo(infos(6), (2, 3))
    assert repr(info) == (
        "BatchInfo(shape=(2, 3), converged=4 of 6, n_iter=0 to 5, rel_error=0.000e+00 to 5.000e-01)"
    )
    assert info.message.startswith("4 of 6 converged, in all after 0 to 5 sweeps at relative")
    one = tf.BatchInfo(infos(2)[1:], (1,))
    assert repr(one).endswith("n_iter=1, rel_error=1.000e-01)")
    assert tf.BatchInfo([], (0, 2)).message == "The batch holds no tensor."


def test_batch_info_compares_and_survives_pickle():
    info = tf.BatchInfo(infos(6), (2, 3))
    assert info == tf.BatchInfo(infos(6), (2, 3))
    assert info != tf.BatchInfo(infos(6), (6,))
    assert info != infos(6)
    for other in (pickle.loads(pickle.dumps(info)), copy.deepcopy(info)):
        assert other == info


def test_a_batch_of_models():
    x = np.stack([X.numpy(), 2 * X.numpy()])[:, None]
    model = tf.cp_als(x, 2, batch_dims=2, seed=0, n_iter_max=5)
    weights, factors = model
    assert (len(model), model[0] is weights, model[1] is factors) == (2, True, True)
    assert (model.shape, model.rank, model.batch_shape) == ((6, 5, 4), 2, (2, 1))
    assert RESULTS["cp"].batch_shape == ()
    one = model.at((1, 0))
    assert one.info is model.info[1, 0]
    assert np.array_equal(one.factors[2], factors[2][1, 0])
    bare = tf.CPTensor(weights, factors).at((0, 0))
    assert bare.info is None
    for index in (0, (0, 0, 0)):
        with pytest.raises(IndexError, match=r"at\(.*in a batch of shape \(2, 1\)"):
            model.at(index)
    with pytest.raises(IndexError, match=r"in a batch of shape \(\)"):
        RESULTS["cp"].at(())
    full = tf.cp_to_tensor(model)
    assert type(full) is np.ndarray
    errors = tf.relative_error(x, model)
    assert errors.shape == (2, 1)
    for i in range(2):
        np.testing.assert_allclose(full[i, 0], tf.cp_to_tensor(model.at((i, 0))), rtol=1e-12)
        assert errors[i, 0] == tf.relative_error(x[i, 0], model.at((i, 0)))
    np.testing.assert_allclose(errors, model.info.rel_error, rtol=1e-6)
    plain = (None, [factors[0] * weights[..., None, :], *factors[1:]])
    np.testing.assert_allclose(tf.cp_to_tensor(plain), full, rtol=1e-12)
    np.testing.assert_allclose(tf.relative_error(x, plain), errors, rtol=1e-9)


def test_a_batch_of_tucker_models():
    x = np.stack([X.numpy(), 2 * X.numpy()])[:, None]
    model = tf.sthosvd(x, (2, 3, 2), batch_dims=2)
    core, factors = model
    assert (len(model), model[0] is core, model[1] is factors) == (2, True, True)
    assert (model.shape, model.rank, model.batch_shape) == ((6, 5, 4), (2, 3, 2), (2, 1))
    assert RESULTS["tucker"].batch_shape == ()
    one = model.at((1, 0))
    assert type(one) is tf.TuckerTensor
    assert one.info is model.info[1, 0]
    assert np.array_equal(one.core, core[1, 0])
    assert np.array_equal(one.factors[2], factors[2][1, 0])
    assert tf.TuckerTensor(core, factors).at((0, 0)).info is None
    for index in (0, (0, 0, 0)):
        with pytest.raises(IndexError, match=r"^TuckerTensor: at\(.*in a batch of shape \(2, 1\)"):
            model.at(index)
    full, errors = tf.tucker_to_tensor(model), tf.relative_error(x, model)
    assert type(full) is np.ndarray
    assert full.shape == x.shape
    assert errors.shape == (2, 1)
    for i in range(2):
        alone = tf.tucker_to_tensor(model.at((i, 0)))
        # Sums of 2, 3 and 2 terms, in float64.
        np.testing.assert_allclose(full[i, 0], alone, rtol=0, atol=1e-14 * np.abs(alone).max())
        assert errors[i, 0] == tf.relative_error(x[i, 0], model.at((i, 0)))
    np.testing.assert_allclose(errors, model.info.rel_error, rtol=1e-6)
    np.testing.assert_allclose(tf.relative_error(x, (core, factors)), errors)
    with pytest.raises(ValueError, match=r"batch axes \(2, 1\) but x has shape \(1, 1, 6, 5, 4\)"):
        tf.relative_error(x[:1], model)
    for bad, text in (
        ((core[0], factors), r"3 factors but the core has 2 modes beside .* \(2, 1\)"),
        ((core, [factors[0][0], *factors[1:]]), "3 factors but the core has 4 modes beside"),
        ((core, [factors[0], factors[1][..., :2], factors[2]]), r"expected \(2, 1, I_1, 3\)"),
    ):
        with pytest.raises(ValueError, match=f"^tucker_to_tensor: .*{text}"):
            tf.tucker_to_tensor(bad)


def test_what_takes_one_model_refuses_a_batch():
    x = np.stack([X.numpy()] * 3)
    model = tf.cp_als(x, 2, batch_dims=1, seed=0, n_iter_max=2)
    text = r"factors\[0\] has shape \(3, 6, 2\); expected a matrix .*one model after another"
    for call in (
        lambda: tf.congruence(model, model),
        lambda: tf.factor_match_score(model, model),
        lambda: tf.core_consistency(x, model),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(ValueError, match=r"batch axes \(3,\) but x has shape \(2, 6, 5, 4\)"):
        tf.relative_error(x[:2], model)
    with pytest.raises(ValueError, match=r"weights has shape \(2,\); expected \(3, 2\)"):
        tf.cp_to_tensor((model.weights[0], model.factors))
