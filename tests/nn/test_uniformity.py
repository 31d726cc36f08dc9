"""The spectral uniformity loss against NumPy's eigenvalues, and its gradients where SVDs fail."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import tensorfast as tf
from tensorfast.nn import (
    SpectralUniformityLoss,
    effective_rank,
    spectral_uniformity_loss,
    spectrum,
    uniformity,
)

SHAPES = [(40, 6), (6, 40), (7, 7), (2, 3), (200, 1), (1, 1), (5, 2)]


def embeddings(n, d, dtype=torch.float64, seed=0):
    """Embeddings with a mean, and directions of different variance."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    return (z * torch.linspace(1, 3, d, dtype=torch.float64) + 2).to(dtype)


def with_eigenvalues(values, n=12, seed=0):
    """Centred embeddings whose covariance has these eigenvalues, to rounding."""
    g = torch.Generator().manual_seed(seed)
    d = len(values)
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    left = torch.linalg.qr(z - z.mean(0)).Q
    right = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
    return left * torch.tensor(values, dtype=torch.float64).sqrt() @ right


def numpy_share(z, k, center):
    z = z.double().numpy()
    if center:
        z = z - z.mean(0)
    values = np.linalg.eigvalsh(z.T @ z)[::-1]
    return values[:k].sum() / values.sum() if values.sum() > 0 else 1.0


@pytest.fixture(autouse=True)
def without_the_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
    uniformity._warn_few.cache_clear()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("k", [1, 2, 6])
def test_the_value_is_that_of_the_eigenvalues(shape, center, k):
    if k > shape[1]:
        pytest.skip("more than there are")
    for z in (embeddings(*shape), embeddings(*shape).t().contiguous().t(), embeddings(*shape)[::2]):
        expected = numpy_share(z, k, center)
        found = spectral_uniformity_loss(z, k=k, center=center, log=False)
        assert found.shape == ()
        assert float(found) == pytest.approx(expected, abs=1e-12)
        logarithm = spectral_uniformity_loss(z, k=k, center=center)
        assert float(logarithm) == pytest.approx(math.log(expected), abs=1e-10)
    assert isinstance(spectral_uniformity_loss(z.numpy(), k=k), np.ndarray | np.generic)


def test_its_bounds():
    z = with_eigenvalues([1.0] * 5)
    for k in range(1, 6):
        assert float(spectral_uniformity_loss(z, k=k)) == pytest.approx(math.log(k / 5), abs=1e-12)
    line = torch.outer(torch.arange(9.0), torch.ones(4))
    assert float(spectral_uniformity_loss(line)) == pytest.approx(0, abs=1e-6)


def test_rotations_and_scales_change_nothing():
    z = embeddings(50, 6)
    turn = torch.linalg.qr(embeddings(6, 6)).Q
    expected = float(spectral_uniformity_loss(z))
    for other in (z @ turn, 1e-3 * z, z - 7):
        assert float(spectral_uniformity_loss(other)) == pytest.approx(expected, abs=1e-12)
    assert float(spectral_uniformity_loss(z - 7, center=False)) != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_no_scale_of_float32_is_too_small_or_too_large(scale):
    z = embeddings(50, 6, torch.float32)
    expected = float(spectral_uniformity_loss(z))
    z = (z * scale).requires_grad_()
    loss = spectral_uniformity_loss(z)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert bool(z.grad.isfinite().all())
    assert float(z.grad.abs().max()) * scale == pytest.approx(0.03, rel=1)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(
    ("shape", "k"), [((9, 4), 1), ((9, 4), 2), ((4, 6), 2), ((5, 3), 3)], ids=str
)
def test_gradients(shape, k, center, log):
    z = embeddings(*shape).requires_grad_()

    def loss(z):
        return spectral_uniformity_loss(z, k=k, center=center, log=log)

    assert gradcheck(loss, (z,), atol=1e-7)
    assert gradgradcheck(loss, (z,), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "k"),
    [
        # Within the leading ones, and within the rest.
        ([4.0, 4.0, 1.0, 0.5], 2),
        ([4.0, 1.0, 1.0, 1.0], 1),
        ([3.0, 3.0, 1.0, 1.0], 2),
        ([2.0, 2.0, 2.0, 0.0], 3),
    ],
)
def test_gradients_where_eigenvalues_coincide(values, k):
    z = with_eigenvalues(values).requires_grad_()

    def loss(z):
        return spectral_uniformity_loss(z, k=k)

    assert gradcheck(loss, (z,), atol=1e-7)
    assert gradgradcheck(loss, (z,), atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(20, 4), (4, 4), (3, 8)])
def test_gradients_are_finite_where_those_of_an_svd_are_not(n, d):
    """All eigenvalues coincide: the gradient is that of one leading direction among many."""
    z = torch.eye(max(n, d), dtype=torch.float64)[:n, :d].requires_grad_()
    loss = spectral_uniformity_loss(z, center=False)
    loss.backward()
    assert bool(z.grad.isfinite().all())
    assert float(z.grad.norm()) > 0.1
    u, s, vh = torch.linalg.svd(z, full_matrices=False)
    rival = (u[:, 0] * vh[0, 0]).sum() + s[0]
    assert not bool(torch.autograd.grad(rival, z)[0].isfinite().all())
    # A step along it makes the other directions the larger ones.
    with torch.no_grad():
        after = spectral_uniformity_loss(z + 1e-3 * z.grad, center=False)
        assert after > loss


def test_a_step_against_the_gradient_flattens_the_spectrum():
    z = embeddings(60, 5).requires_grad_()
    before = spectral_uniformity_loss(z)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(spectral_uniformity_loss(z), z)
        z = (z - 2 * gradient).detach().requires_grad_()
    least = math.log(1 / 5)
    assert float(spectral_uniformity_loss(z)) - least < 0.2 * (float(before) - least)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_storage_only(dtype, autocast):
    z = embeddings(300, 8, dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = spectral_uniformity_loss(z)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(
        math.log(numpy_share(z.detach(), 1, True)), abs=1e-5
    )
    loss.backward()
    assert z.grad.dtype == dtype
    exact = z.detach().double().requires_grad_()
    spectral_uniformity_loss(exact).backward()
    relative = (z.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert float(relative) < 2 * torch.finfo(dtype).eps


def test_under_autocast_float32_stays_float32():
    z = embeddings(300, 8, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = spectral_uniformity_loss(z)
    assert torch.equal(inside, spectral_uniformity_loss(z))


@pytest.mark.parametrize(
    "z",
    [
        torch.zeros(5, 3),
        torch.full((5, 3), 0.1),
        torch.full((1000, 3), 12345.678),
        torch.ones(1, 4),
        torch.arange(6.0)[:, None],
    ],
    ids=["zero", "equal", "equal and large", "one row", "one dimension"],
)
def test_where_there_is_one_direction_or_none(z):
    z = z.clone().requires_grad_()
    loss = spectral_uniformity_loss(z)
    assert float(loss.detach()) == 0
    loss.backward()
    assert float(z.grad.abs().max()) == pytest.approx(0, abs=1e-6)
    found = spectrum(z)
    assert found.tolist() == [1.0] + [0.0] * (z.shape[1] - 1)
    assert effective_rank(z) == 1


def test_too_few_embeddings_are_told_once():
    uniformity._warn_few.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        spectral_uniformity_loss(embeddings(9, 8))
        assert not said
        for _ in range(3):
            spectral_uniformity_loss(embeddings(8, 8))
    (one,) = said
    assert "use batches larger than the dimension" in str(one.message)
    assert one.filename == __file__


@pytest.mark.parametrize(
    ("z", "options", "error", "text"),
    [
        (torch.ones(3), {}, ValueError, r"z has shape \(3,\); expected \(n, d\)"),
        (torch.ones(3, 2, 2), {}, ValueError, r"expected \(n, d\)"),
        (torch.ones(0, 2), {}, ValueError, "z"),
        (torch.ones(3, 2, dtype=torch.complex64), {}, TypeError, "z is complex"),
        (torch.ones(3, 2), {"k": 3}, ValueError, "k is 3 but z has 2 dimensions"),
        (torch.ones(3, 2), {"k": 0}, ValueError, "k is 0"),
        (torch.ones(3, 2), {"k": 1.0}, TypeError, "expected an integer"),
        (torch.tensor([[1.0, math.nan]]), {}, ValueError, r"non-finite values of 2, the first at"),
        (torch.tensor([[1.0, 2.0], [math.inf, 1.0]]), {}, ValueError, "non-finite"),
    ],
)
def test_bad_input(z, options, error, text):
    with pytest.raises(error, match=text):
        spectral_uniformity_loss(z, **options)


def test_the_module_is_the_function():
    z = embeddings(50, 6)
    module = SpectralUniformityLoss(k=2, center=False, log=False)
    assert torch.equal(module(z), spectral_uniformity_loss(z, k=2, center=False, log=False))
    assert repr(module) == "SpectralUniformityLoss(k=2, center=False, log=False)"
    assert not list(module.parameters())
    with pytest.raises(ValueError, match="k is 0"):
        SpectralUniformityLoss(k=0)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
@pytest.mark.parametrize("center", [True, False])
def test_the_spectrum_and_the_effective_rank(shape, center):
    z = embeddings(*shape)
    own = z.numpy() - (z.numpy().mean(0) if center else 0)
    s = np.linalg.svd(own, compute_uv=False)
    expected = np.zeros(shape[1])
    expected[: len(s)] = s**2 / (s**2).sum()
    found = spectrum(z, center=center)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    p = s / s.sum()
    entropy = -(p[p > 1e-12] * np.log(p[p > 1e-12])).sum()
    assert effective_rank(z, center=center) == pytest.approx(math.exp(entropy), rel=1e-6)
    assert not spectrum(z.clone().requires_grad_()).requires_grad
    assert isinstance(spectrum(z.numpy()), np.ndarray)
    assert effective_rank(with_eigenvalues([1.0] * 5)) == pytest.approx(5)


def test_compiled():
    z = embeddings(50, 6, torch.float32).requires_grad_()
    compiled = torch.compile(spectral_uniformity_loss, backend="aot_eager")
    loss = compiled(z)
    expected = spectral_uniformity_loss(z)
    torch.testing.assert_close(loss, expected)
    (one,), (other,) = (torch.autograd.grad(value, z) for value in (loss, expected))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same_and_what_is_not_finite_gives_nan():
    for shape in ((300, 64), (40, 100), (2000, 256)):
        z = embeddings(*shape, torch.float32)
        here, there = (t.clone().requires_grad_() for t in (z, z.cuda()))
        spectral_uniformity_loss(here).backward()
        loss = spectral_uniformity_loss(there)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(math.log(numpy_share(z, 1, True)), abs=1e-4)
        torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=1e-3, atol=1e-6)
    assert math.isnan(float(spectral_uniformity_loss(torch.full((9, 3), math.nan).cuda())))
    assert tf.nn is not None
