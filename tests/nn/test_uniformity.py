"""The spectral uniformity loss against NumPy's eigenvalues, in every type, scale and shape."""

import copy
import itertools
import math
import warnings

import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast.nn import (
    SpectralUniformityLoss,
    effective_rank,
    spectral_uniformity_loss,
    spectrum,
    uniformity,
)

from .common import OF, embeddings, exact_gradient, numpy_share, relative, with_eigenvalues

SHAPES = [(40, 6), (6, 40), (7, 7), (2, 3), (200, 1), (1, 1), (5, 2)]


@pytest.fixture(autouse=True)
def without_the_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
    uniformity._warn_few.cache_clear()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("of", OF)
def test_the_value_is_that_of_the_eigenvalues_or_singular_values(shape, center, k, of):
    if k > shape[1]:
        pytest.skip("more than there are")
    for z in (embeddings(*shape), embeddings(*shape).t().contiguous().t(), embeddings(*shape)[::2]):
        expected = numpy_share(z, k, center, of)
        found = spectral_uniformity_loss(z, k=k, center=center, log=False, of=of)
        assert found.shape == ()
        assert float(found) == pytest.approx(expected, abs=1e-12)
        logarithm = spectral_uniformity_loss(z, k=k, center=center, of=of)
        assert float(logarithm) == pytest.approx(math.log(expected), abs=1e-10)
    assert isinstance(spectral_uniformity_loss(z.numpy(), k=k, of=of), np.ndarray | np.generic)


def test_its_bounds():
    z = with_eigenvalues([1.0] * 5)
    for k, of in itertools.product(range(1, 6), OF):
        loss = float(spectral_uniformity_loss(z, k=k, of=of))
        assert loss == pytest.approx(math.log(k / 5), abs=1e-12)
    line = torch.outer(torch.arange(9.0), torch.ones(4))
    assert float(spectral_uniformity_loss(line)) == pytest.approx(0, abs=1e-6)


def test_rotations_and_scales_change_nothing():
    z = embeddings(50, 6)
    turn = torch.linalg.qr(embeddings(6, 6)).Q
    expected = float(spectral_uniformity_loss(z))
    for other in (z @ turn, 1e-3 * z, z - 7):
        assert float(spectral_uniformity_loss(other)) == pytest.approx(expected, abs=1e-12)
    assert float(spectral_uniformity_loss(z - 7, center=False)) != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_mean_far_from_zero_costs_no_digits(of, mean, compiled):
    """The embeddings are what float32 made of them; nothing more is lost, nor in a graph."""
    loss_of = torch.compile(spectral_uniformity_loss, backend="aot_eager") if compiled else None
    z = (embeddings(200, 6) + mean).float().requires_grad_()
    loss = (loss_of or spectral_uniformity_loss)(z, k=2, of=of)
    expected = math.log(numpy_share(z.detach(), 2, True, of))
    # Sums of 200 and of 6, and eigenvectors whose eigenvalues are a twentieth of the trace apart.
    tolerance = 20 * torch.finfo(torch.float32).eps
    assert float(loss.detach()) == pytest.approx(expected, abs=tolerance)
    (found,) = torch.autograd.grad(loss, z)
    assert relative(found, exact_gradient(z, 2, of)) < tolerance


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("scale", [2.0**-90, 2.0**-40, 2.0**40, 2.0**90])
def test_a_scale_that_is_divided_out_changes_no_bit(scale, of):
    z = embeddings(50, 6, torch.float32).requires_grad_()
    scaled = (z.detach() * scale).requires_grad_()
    expected = spectral_uniformity_loss(z, of=of)
    found = spectral_uniformity_loss(scaled, of=of)
    assert torch.equal(found, expected)
    (one,), (other,) = torch.autograd.grad(found, scaled), torch.autograd.grad(expected, z)
    assert torch.equal(one * scale, other)


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
@pytest.mark.parametrize("of", OF)
def test_half_precision_is_storage_only(dtype, autocast, of):
    z = embeddings(300, 8, dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = spectral_uniformity_loss(z, of=of)
        (gradient,) = torch.autograd.grad(loss, z)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(
        math.log(numpy_share(z.detach(), 1, True, of)), abs=1e-5
    )
    assert gradient.dtype == dtype
    assert relative(gradient, exact_gradient(z, of=of)) < 2 * torch.finfo(dtype).eps


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
    for of in OF:
        loss = spectral_uniformity_loss(z, of=of)
        assert float(loss.detach()) == 0
        (gradient,) = torch.autograd.grad(loss, z)
        assert float(gradient.abs().max()) == pytest.approx(0, abs=1e-6)
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


def test_too_few_embeddings_of_a_module_are_told_to_its_caller():
    uniformity._warn_few.cache_clear()
    with pytest.warns(UserWarning, match="z has no more rows") as said:
        SpectralUniformityLoss()(embeddings(8, 8))
    assert said[0].filename == __file__


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
        (
            torch.ones(3, 2),
            {"of": "roots"},
            ValueError,
            "of is 'roots'; expected \"eigenvalues\" or",
        ),
        (torch.tensor([[1.0, math.nan]]), {}, ValueError, r"non-finite values of 2, the first at"),
        (torch.tensor([[1.0, 2.0], [math.inf, 1.0]]), {}, ValueError, "non-finite"),
    ],
)
def test_bad_input(z, options, error, text):
    with pytest.raises(error, match=text):
        spectral_uniformity_loss(z, **options)


def test_the_module_is_the_function():
    z = embeddings(50, 6)
    options = {"k": 2, "center": False, "log": False, "of": "singular_values"}
    module = SpectralUniformityLoss(**options)
    assert torch.equal(module(z), spectral_uniformity_loss(z, **options))
    said = "SpectralUniformityLoss(k=2, center=False, log=False, of='singular_values')"
    assert repr(module) == repr(copy.deepcopy(module)) == said
    assert not list(module.parameters())
    with pytest.raises(ValueError, match="k is 0"):
        SpectralUniformityLoss(k=0)
    with pytest.raises(ValueError, match="of is 'roots'"):
        SpectralUniformityLoss(of="roots")


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_spectrum_is_found_in_double_precision(dtype):
    line = torch.outer(embeddings(2000, 1)[:, 0], embeddings(256, 1)[:, 0]).to(dtype)
    found = spectrum(line)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # What its type left of a line; float64's is nothing next to that of its own products.
    expected = np.linalg.svd(line.double() - line.double().mean(0), compute_uv=False)
    p = expected[expected > 1e-6 * expected[0]] / expected.sum()
    assert effective_rank(line) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)
    if dtype == torch.float64:
        assert effective_rank(line) == 1


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("shape", [(50, 6), (4, 6)], ids=str)
def test_compiled(shape, of):
    z = embeddings(*shape, torch.float32).requires_grad_()
    compiled = torch.compile(spectral_uniformity_loss, backend="aot_eager", fullgraph=True)
    loss = compiled(z, of=of)
    expected = spectral_uniformity_loss(z, of=of)
    torch.testing.assert_close(loss, expected)
    (one,), (other,) = (torch.autograd.grad(value, z) for value in (loss, expected))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_shapes_are_told_without_data():
    z = torch.empty(9, 3, device="meta", requires_grad=True)
    for of in OF:
        loss = spectral_uniformity_loss(z, of=of)
        assert loss.shape == ()
        assert torch.autograd.grad(loss, z)[0].shape == z.shape
    assert spectrum(z).shape == (3,)


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same_and_what_is_not_finite_gives_nan():
    for shape, of in itertools.product(((300, 64), (40, 100), (2000, 256)), OF):
        z = embeddings(*shape, torch.float32)
        here, there = (t.clone().requires_grad_() for t in (z, z.cuda()))
        spectral_uniformity_loss(here, of=of).backward()
        loss = spectral_uniformity_loss(there, of=of)
        loss.backward()
        expected = math.log(numpy_share(z, 1, True, of))
        assert float(loss.detach()) == pytest.approx(expected, abs=1e-4)
        torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=1e-3, atol=1e-6)
    assert math.isnan(float(spectral_uniformity_loss(torch.full((9, 3), math.nan).cuda())))
    assert tf.nn is not None
