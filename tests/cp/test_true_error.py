"""The error that is reported is the error that there is."""

import math

import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast import reference
from tensorfast.convergence import fast_relative_error
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.stopping import hadamard
from tensorfast.precision import explicit_residual_below, precision_floor
from tensorfast.testing import planted

SHAPES = [(30, 25, 20), (16, 12, 10, 8)]
SINGLE = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
DOUBLE = [*SINGLE, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12]


def exact_error(x: torch.Tensor, model) -> float:
    """Form the model and the residual in double precision."""
    wide = torch.complex128 if x.is_complex() else torch.float64
    weights, factors = model
    approximation = reference.cp_to_tensor(weights.to(wide), [f.to(wide) for f in factors])
    residual = x.to(wide) - approximation
    return float(torch.linalg.vector_norm(residual) / torch.linalg.vector_norm(x.to(wide)))


def hold(x: torch.Tensor, model: tf.CPTensor) -> None:
    truth = exact_error(x, model)
    assert model.info.rel_errors[-1] == pytest.approx(truth, rel=0.02)
    assert model.info.fit == 1 - model.info.rel_errors[-1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("noise", SINGLE)
@pytest.mark.parametrize("tol", [0, 1e-6])
def test_float32(shape, noise, tol):
    x, _ = planted(shape, 4, noise=noise, dtype=torch.float32)
    model = tf.cp_als(x, 4, seed=0, n_iter_max=60, tol=tol, normalize=False)
    hold(x, model)
    # The fit is as good as the planted model, unless rounding or ``tol`` ends it.
    least = 1.02 * math.hypot(noise, precision_floor(torch.float32)) + tol
    assert model.info.rel_errors[-1] <= least or model.info.status == "precision_limit"


@pytest.mark.parametrize("noise", [*SINGLE, 3e-7, 0.0])
def test_float32_from_the_planted_factors(noise):
    """Where ALS starts at the answer, nothing but rounding is left."""
    x, truth = planted((30, 25, 20), 4, noise=noise, dtype=torch.float32)
    model = tf.cp_als(x, 4, init=truth, n_iter_max=5, tol=0, normalize=False)
    hold(x, model)
    assert model.info.rel_errors[-1] < 1.02 * math.hypot(noise, precision_floor(torch.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_measured_against_what_is_stored(dtype):
    x, truth = planted((30, 25, 20), 4, dtype=torch.float64)
    x = x.to(dtype)
    model = tf.cp_als(x, 4, init=truth, n_iter_max=10, tol=0)
    assert model.factors[0].dtype == torch.float32
    hold(x, model)
    assert model.info.rel_errors[-1] < torch.finfo(dtype).eps


@pytest.mark.parametrize("noise", DOUBLE)
def test_float64(noise):
    x, truth = planted((16, 14, 12), 3, noise=noise)
    model = tf.cp_als(x, 3, init=truth, n_iter_max=5, tol=0, normalize=False)
    hold(x, model)
    assert 0.5 * noise < model.info.rel_errors[-1] <= noise * 1.0001


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-5])
def test_complex(dtype, noise):
    x, truth = planted((10, 9, 8), 3, noise=noise, dtype=dtype)
    model = tf.cp_als(x, 3, init=truth, n_iter_max=5, tol=0)
    hold(x, model)


@pytest.mark.parametrize("line_search", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_errors_never_increase_in_float64(seed, line_search):
    shape = [(8, 9, 7), (6, 5, 4, 7), (12, 3, 8)][seed % 3]
    x, _ = planted(shape, 4, noise=10.0 ** -(seed // 2), seed=seed)
    model = tf.cp_als(
        x, 3 + seed % 3, init="random", seed=seed, n_iter_max=80, tol=0, line_search=line_search
    )
    errors = np.array(model.info.rel_errors)
    # The formula's error in e^2 is a few eps, so that in e is that over 2 e.
    allowed = 50 * torch.finfo(torch.float64).eps / errors[1:]
    assert (np.diff(errors) <= allowed).all()


def test_every_sweep_is_reported_truly():
    """The factors that the callback sees have the error that it is told."""
    x, _ = planted((12, 10, 9), 3, noise=1e-4, dtype=torch.float32)
    seen = []

    def callback(sweep, error, factors):
        seen.append((error, exact_error(x, (torch.ones(3), factors))))
        return False

    info = tf.cp_als(x, 3, seed=1, n_iter_max=25, tol=0, callback=callback).info
    assert info.rel_errors == tuple(error for error, _ in seen)
    reported, exact = np.array(seen).T
    np.testing.assert_allclose(reported, exact, rtol=0.02)


@pytest.mark.parametrize("shape", [(300, 300), (30, 25, 20), (20, 20, 20, 20)], ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_formula_and_residual_meet_where_one_takes_over(dtype, seed, shape):
    """Just above the threshold the formula has lost less than 2 % to rounding."""
    limit = explicit_residual_below(dtype)
    for factor in (0.9, 1.02, 1.5, 3.0):
        noise = limit * factor
        x, (weights, factors) = planted(shape, 4, noise=noise, dtype=dtype, seed=seed)
        factors = [factors[0] * weights, *factors[1:]]
        truth = exact_error(x, (torch.ones(4), factors))
        operand = DenseOperand(x)
        norm = operand.squared_norm**0.5
        assert operand.residual_norm(factors) / norm == pytest.approx(truth, rel=2e-3)
        _, product = next(iter(operand.mttkrps((x.ndim - 1,), factors)))
        inner = float((product.double() * factors[-1].double()).sum())
        model = float(hadamard([f.double().T @ f.double() for f in factors]).sum())
        fast = fast_relative_error(operand.squared_norm, inner, model, dtype)
        assert fast is None if factor < 1 else fast == pytest.approx(truth, rel=0.02)


def test_the_formula_alone_would_be_wrong():
    """What the explicit residual is for: with scalars in float32, no digit is right."""
    x, truth = planted((30, 25, 20), 4, noise=2e-6, dtype=torch.float32)
    model = tf.cp_als(x, 4, init=truth, n_iter_max=3, tol=0, normalize=False)
    hold(x, model)
    norm = torch.linalg.vector_norm(x)
    mttkrp = tf.mttkrp(x, model.factors, 0)
    grams = [f.T @ f for f in model.factors]
    squared = (
        norm**2 + (grams[0] * grams[1] * grams[2]).sum() - 2 * (mttkrp * model.factors[0]).sum()
    )
    naive = float(squared.abs().sqrt() / norm)
    assert abs(naive - model.info.rel_errors[-1]) > 0.5 * model.info.rel_errors[-1]


@pytest.mark.parametrize("noise", [1e-2, 1e-3])
@pytest.mark.parametrize(
    ("dtype", "length", "rel"), [(torch.float32, 1e4, 0.06), (torch.float64, 1e5, 1e-6)], ids=str
)
def test_the_error_is_true_where_components_cancel(dtype, length, rel, noise):
    """Two components of ``length`` whose sum is of length 1: three scalars lose that many digits.

    In float32 the components themselves are rounded, by 6e-8 times ``length``.
    """
    g = torch.Generator().manual_seed(1)
    (a, b), (c, d), (e, f) = torch.randn(3, 2, 10, generator=g, dtype=torch.float64)
    x = sum(torch.einsum("i,j,k->ijk", *vectors) for vectors in ((a, c, f), (a, d, e), (b, c, e)))
    gaussian = torch.randn(x.shape, generator=g, dtype=x.dtype)
    x = (x + noise * x.norm() * gaussian / gaussian.norm()).to(dtype)
    pairs = (a + b / length, a), (c + d / length, c), ((e + f / length) * length, -e * length)
    start = [torch.stack(pair, 1).to(dtype) for pair in pairs]
    model = tf.cp_als(x, 2, init=(None, start), n_iter_max=1, tol=0, normalize=False)
    exact = tf.relative_error(x, model)
    assert model.info.rel_errors[-1] == pytest.approx(exact, rel=rel)
