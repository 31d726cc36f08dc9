"""Derivatives of the loss: where singular values coincide or vanish, twice, and under autocast."""

import math
import warnings
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tensorfast.nn import spectral_uniformity_loss

from .common import OF, embeddings, exact_gradient, numpy_share, relative, with_eigenvalues


@pytest.fixture(autouse=True)
def without_the_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(
    ("shape", "k"),
    [((9, 4), 1), ((9, 4), 2), ((4, 6), 2), ((5, 3), 3), ((4, 4), 2)],
    ids=str,
)
@pytest.mark.parametrize("of", OF)
def test_gradients(shape, k, center, log, of):
    z = embeddings(*shape).requires_grad_()
    loss = partial(spectral_uniformity_loss, k=k, center=center, log=log, of=of)
    assert gradcheck(loss, (z,), atol=1e-7)
    assert gradgradcheck(loss, (z,), atol=1e-6, check_batched_grad=True)


@pytest.mark.parametrize(
    ("values", "k", "of"),
    [
        # Within the leading ones, and within the rest.
        *(([4.0, 4.0, 1.0, 0.5], 2, of) for of in OF),
        *(([4.0, 1.0, 1.0, 1.0], 1, of) for of in OF),
        *(([3.0, 3.0, 1.0, 1.0], 2, of) for of in OF),
        # Where a singular value vanishes it has no derivative: its eigenvalue has.
        ([2.0, 2.0, 2.0, 0.0], 3, "eigenvalues"),
        ([2.0, 1.0, 0.0, 0.0], 1, "eigenvalues"),
    ],
)
def test_gradients_where_eigenvalues_coincide(values, k, of):
    z = with_eigenvalues(values).requires_grad_()
    loss = partial(spectral_uniformity_loss, k=k, of=of)
    assert gradcheck(loss, (z,), atol=1e-7)
    assert gradgradcheck(loss, (z,), atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(20, 4), (4, 4), (3, 8)])
@pytest.mark.parametrize("of", OF)
def test_gradients_are_finite_where_those_of_an_svd_are_not(n, d, of):
    """All eigenvalues coincide: the gradient is that of one leading direction among many."""
    z = torch.eye(max(n, d), dtype=torch.float64)[:n, :d].requires_grad_()
    loss = spectral_uniformity_loss(z, center=False, of=of)
    (gradient,) = torch.autograd.grad(loss, z)
    assert bool(gradient.isfinite().all())
    assert float(gradient.norm()) > 0.1
    u, s, vh = torch.linalg.svd(z, full_matrices=False)
    rival = (u[:, 0] * vh[0, 0]).sum() + s[0]
    assert not bool(torch.autograd.grad(rival, z)[0].isfinite().all())
    # A step along it makes the other directions the larger ones.
    with torch.no_grad():
        after = spectral_uniformity_loss(z + 1e-3 * gradient, center=False, of=of)
        assert after > loss


def test_a_small_direction_is_woken_by_singular_values_only():
    """The gradient of a singular value is as long for a small one; that of its square is not."""
    small = with_eigenvalues([1.0, 1.0, 1.0, 1e-8])
    _, _, directions = torch.linalg.svd(small)
    pushes = {}
    for of in OF:
        z = small.clone().requires_grad_()
        spectral_uniformity_loss(z, of=of).backward()
        pushes[of] = float((z.grad @ directions[3]).norm())
    assert pushes["singular_values"] == pytest.approx(1 / 3.0001, rel=1e-6)
    assert pushes["eigenvalues"] == pytest.approx(2e-4 / 3, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_that_is_nothing_but_rounding_is_given_no_gradient(dtype):
    """The third singular value is a zero that was rounded; the other two have theirs."""
    whole = embeddings(40, 2)
    turn = torch.linalg.qr(embeddings(3, 3)).Q
    z = torch.zeros(40, 3, dtype=dtype)
    z[:, :2] = whole.to(dtype)
    if dtype == torch.float64:
        z = z @ turn
    z.requires_grad_()
    spectral_uniformity_loss(z, of="singular_values").backward()
    found = z.grad.double() @ turn.t() if dtype == torch.float64 else z.grad.double()
    expected = exact_gradient(whole.to(dtype), of="singular_values")
    tolerance = 64 * torch.finfo(dtype).eps
    assert relative(found[:, :2], expected) < tolerance
    assert float(found[:, 2].norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("shape", [(200, 6), (6, 40)], ids=str)
@pytest.mark.parametrize("scale", [1e-25, 1e-5, 1.0, 1e5, 1e25])
@pytest.mark.parametrize("of", OF)
def test_gradients_of_float32_at_every_scale(shape, scale, of):
    z = (embeddings(*shape) * scale).float().requires_grad_()
    (found,) = torch.autograd.grad(spectral_uniformity_loss(z, k=2, of=of), z)
    exact = exact_gradient(z.detach().double() / scale, 2, of)
    assert relative(found.double() * scale, exact) < 40 * torch.finfo(torch.float32).eps


def test_small_singular_values_of_float32_are_found_to_its_rounding():
    """Their squares are below the rounding of the largest one's."""
    z = with_eigenvalues([1.0, 0.5, 1e-7, 2e-8], n=40).float().requires_grad_()
    eps = torch.finfo(torch.float32).eps
    loss = spectral_uniformity_loss(z, of="singular_values")
    expected = math.log(numpy_share(z.detach(), 1, True, "singular_values"))
    assert float(loss.detach()) == pytest.approx(expected, abs=4 * eps)
    (found,) = torch.autograd.grad(loss, z)
    # A left singular vector is as exact as its value is, relatively.
    tolerance = 4 * eps / math.sqrt(2e-8)
    assert relative(found, exact_gradient(z, of="singular_values")) < tolerance


def second(z, of):
    """Gradient of the gradient's square, both taken under autocast or not, as it is outside."""
    z = z.detach().requires_grad_()
    loss = spectral_uniformity_loss(z, k=2, of=of)
    (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
    with torch.autocast("cpu", enabled=False):
        square = gradient.square().sum()
    return torch.autograd.grad(square, z)[0]


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("shape", [(30, 5), (6, 9)], ids=str)
def test_second_derivatives_under_autocast_are_those_without(of, shape):
    z = embeddings(*shape)
    expected = second(z, of)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = second(z.float(), of)
    assert relative(found, expected) < 100 * torch.finfo(torch.float32).eps
    plain = second(z.float(), of)
    assert torch.equal(found, plain)


def test_a_third_derivative_is_refused():
    z = embeddings(9, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(spectral_uniformity_loss(z), z, create_graph=True)
    (again,) = torch.autograd.grad(gradient.square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(again.square().sum(), z)
