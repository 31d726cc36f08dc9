"""The singular value decomposition that TensorLy's functions are given."""

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import parafac, tucker
from tensorly.tenalg import svd_interface

import tensorfast.backends.tensorly as backend
from tensorfast import svd as own
from tensorfast.testing import planted

KINDS = {"numpy": np.asarray, "pytorch": torch.as_tensor}


@pytest.fixture(params=KINDS)
def kind(request):
    with tensorly.backend_context(request.param, local_threadsafe=True):
        yield KINDS[request.param]


def low_rank(m, n, rank, dtype=np.float64, noise=1e-6):
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    return (exact + noise * rng.standard_normal((m, n))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(8, 900), (300, 40), (70, 5000), (600, 700)])
def test_it_is_the_truncated_svd(kind, shape, dtype):
    a = low_rank(*shape, 6, dtype)
    u, s, v = svd_interface(kind(a), method=backend.svd, n_eigenvecs=5)
    assert type(u) is type(kind(a))
    wide = a.astype(np.float64)
    exact = np.linalg.svd(wide, compute_uv=False)
    u, s, v = (np.asarray(part, np.float64) for part in (u, s, v))
    eps = np.finfo(dtype).eps
    # What noise is left of after two power steps is (1e-6)^5 of the least singular value.
    assert np.abs(s - exact[:5]).max() <= 100 * eps * exact[0]
    best = np.sqrt((exact[5:] ** 2).sum())
    assert np.linalg.norm(wide - u * s @ v) <= best + 100 * eps * exact[0]
    for vectors in (u.T @ u, v @ v.T):
        assert np.abs(vectors - np.eye(5)).max() <= 100 * eps
    # Signs are resolved: the largest entry of each column is positive.
    assert (u[np.abs(u).argmax(0), np.arange(5)] > 0).all()


def test_more_than_there_are_are_cut_with_a_warning(kind):
    with pytest.warns(UserWarning, match="n_eigenvecs is 9 but the shape .5, 7.; 5 are returned"):
        u, s, v = backend.svd(kind(low_rank(5, 7, 5)), n_eigenvecs=9)
    assert (u.shape, s.shape, v.shape) == ((5, 5), (5,), (5, 7))


def test_all_of_them_by_default(kind):
    a = low_rank(6, 9, 6)
    u, s, v = backend.svd(kind(a))
    assert np.allclose(np.asarray(u) * np.asarray(s) @ np.asarray(v), a)


@pytest.mark.parametrize("state", [3, np.random.RandomState(3), np.random.default_rng(3)])
def test_the_sketch_is_drawn_from_the_state_given(state):
    a = np.random.default_rng(0).standard_normal((600, 700))
    again = type(state)(3) if isinstance(state, int) else None
    first = backend.svd(a, 5, random_state=state)[1]
    other = backend.svd(a, 5, random_state=4)[1]
    assert not np.array_equal(first, other)
    if again is not None:
        assert np.array_equal(first, backend.svd(a, 5, random_state=again)[1])


def test_no_full_svd_of_a_long_unfolding(monkeypatch):
    seen = []
    whole = torch.linalg.svd

    def watched(a, **options):
        seen.append(tuple(a.shape))
        return whole(a, **options)

    monkeypatch.setattr(torch.linalg, "svd", watched)
    for shape in ((8, 40000), (300, 40000), (600, 3000)):
        backend.svd(np.random.default_rng(0).standard_normal(shape), 5)
    assert seen
    assert all(max(shape) < own.NARROW * min(shape) for shape in seen), seen


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(kind, bad):
    a = low_rank(20, 30, 3)
    a[2, 3] = bad
    with pytest.raises(ValueError, match="1 non-finite values of 600"):
        backend.svd(kind(a), 3)


def test_a_tensor_is_refused(kind):
    with pytest.raises(ValueError, match="3 modes; expected a matrix"):
        backend.svd(kind(np.ones((2, 2, 2))))


def test_gradients_and_other_types_are_tensorlys(kind):
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        a = torch.as_tensor(low_rank(6, 9, 6)).requires_grad_()
        backend.svd(a, 3)[1].sum().backward()
        assert a.grad is not None
    with tensorly.backend_context("numpy", local_threadsafe=True):
        assert backend.svd(np.arange(12).reshape(3, 4), 2)[1].shape == (2,)


def test_decompositions_take_it(kind):
    x = kind(planted((20, 25, 30), 4, noise=0.01)[0].numpy())
    for fit in (
        parafac(x, 4, svd=backend.svd, n_iter_max=20),
        tucker(x, (4, 4, 4), svd=backend.svd, n_iter_max=5),
    ):
        whole = tensorly.cp_to_tensor if len(fit[0].shape) == 1 else tensorly.tucker_to_tensor
        error = tensorly.norm(whole(fit) - x) / tensorly.norm(x)
        assert float(error) == pytest.approx(0.01, rel=0.1)
