"""Norms of data on a GPU: who serves them, and what they are there."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tensorfast import baseline, reconstruct
from tensorfast.kernels import norm, residual
from tensorfast.ops import norms
from tensorfast.testing import planted

SHAPE, RANK = (30, 40, 50), 7


def data(dtype=torch.float32, device="cpu", shape=SHAPE):
    factors = [torch.empty(n, RANK, device=device) for n in shape]
    return torch.empty(shape, dtype=dtype, device=device), factors


def test_a_cpu_has_ways_of_its_own():
    x, factors = data()
    x.fill_(0.1)
    assert norms.squared_residual(x, factors) is None
    assert torch.equal(norms.squared_norm(x), baseline.sum_of_squares(x))


@pytest.fixture
def asked(monkeypatch):
    """Note what the kernels are asked for."""
    calls = []
    monkeypatch.setattr(residual, "residual", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(norm, "squared_norm", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_gpu_has_the_kernels(asked, dtype):
    with FakeTensorMode():
        x, factors = data(dtype, "cuda")
        norms.squared_residual(x, factors, double=True)
        norms.squared_norm(x)
    assert asked == [(x, factors, True), (x,)]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.complex64, SHAPE),
        (torch.float32, (2,) * 9),
        (torch.float32, (3, 0, 4)),
    ],
    ids=str,
)
def test_what_the_kernels_cannot_serve(asked, dtype, shape):
    with FakeTensorMode():
        x, factors = data(dtype, "cuda", shape)
        assert norms.squared_residual(x, factors) is None
        norms.squared_norm(x)
    assert not asked


def test_complex_factors_are_not_for_the_kernels(asked):
    with FakeTensorMode():
        x, factors = data(torch.float32, "cuda")
        assert norms.squared_residual(x, [f.to(torch.complex64) for f in factors]) is None
    assert not asked


@pytest.mark.gpu
@pytest.mark.parametrize("double", [False, True])
def test_the_same_as_on_the_cpu(double):
    x, (weights, factors) = planted(SHAPE, RANK, noise=0.01, dtype=torch.float32)
    factors = [factors[0] * weights, *factors[1:]]
    there = norms.squared_residual(x.cuda(), [f.cuda() for f in factors], double)
    here = reconstruct.cp_residual_norm(x, factors, double=True)
    assert math.sqrt(there) == pytest.approx(here, rel=1e-9 if double else 1e-4)
    assert float(norms.squared_norm(x.cuda())) == pytest.approx(
        float(baseline.sum_of_squares(x)), rel=1e-12
    )
