"""The same answers from a CUDA device as from the CPU; nothing here has run without one."""

import pytest
import torch

import tensorfast
from tensorfast.testing import planted

pytestmark = pytest.mark.gpu


def on_cuda(model):
    weights, factors = model
    return weights.cuda(), [f.cuda() for f in factors]


def test_mttkrp_equals_the_cpu_result():
    x, (_, factors) = planted((7, 8, 9), 3, noise=0.1)
    for mode in range(3):
        there = tensorfast.mttkrp(x.cuda(), [f.cuda() for f in factors], mode)
        torch.testing.assert_close(there.cpu(), tensorfast.mttkrp(x, factors, mode))


def test_cp_als_takes_the_same_iterates_as_on_the_cpu():
    x, start = planted((7, 8, 9), 3, noise=0.1)
    here = tensorfast.cp_als(x, 3, init=start, n_iter_max=5, tol=0)
    there = tensorfast.cp_als(x.cuda(), 3, init=on_cuda(start), n_iter_max=5, tol=0)
    assert all(f.is_cuda for f in there.factors)
    for a, b in zip(here.factors, there.factors, strict=True):
        torch.testing.assert_close(b.cpu(), a)


def test_sthosvd_meets_its_bound_on_a_cuda_tensor():
    x, _ = planted((9, 10, 11), 3, noise=0.2)
    model = tensorfast.sthosvd(x.cuda(), tol=0.3)
    assert tensorfast.relative_error(x.cuda(), model) <= 0.3


def test_cupy_arrays_come_back_as_cupy_arrays():
    cupy = pytest.importorskip("cupy")
    x, _ = planted((7, 8, 9), 3)
    weights, factors = tensorfast.cp_als(cupy.asarray(x.numpy()), 3, seed=0)
    assert isinstance(weights, cupy.ndarray)
    assert all(isinstance(f, cupy.ndarray) for f in factors)
