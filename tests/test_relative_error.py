"""The exact relative error of a model, in slabs, whatever the layout and type of the data."""

import itertools
from collections.abc import Callable

import pytest
import torch

import tensorfast as tf
from tensorfast import reconstruct, reference
from tensorfast.testing import planted

SHAPES = [(9, 8), (7, 6, 5), (4, 3, 5, 2), (3, 2, 4, 2, 3)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex128]


def dense_error(x: torch.Tensor, model: torch.Tensor) -> float:
    wide = torch.promote_types(torch.float64, torch.promote_types(x.dtype, model.dtype))
    x, model = x.to(wide), model.to(wide)
    return float(torch.linalg.vector_norm(x - model) / torch.linalg.vector_norm(x))


def in_layout(x: torch.Tensor, layout: str) -> torch.Tensor:
    ndim = x.ndim
    if layout == "fortran":
        back = tuple(reversed(range(ndim)))
        return x.permute(back).contiguous().permute(back)
    if layout == "permuted":
        there = (*range(1, ndim), 0)
        return x.permute(there).contiguous().permute(ndim - 1, *range(ndim - 1))
    if layout == "sliced":
        out = x.new_zeros([2 * n for n in x.shape])
        return out[(slice(1, None, 2),) * ndim].copy_(x)
    return x


def every_kind_of_data(test):
    """Run a test over shapes, types, layouts in memory, and slabs: the whole, or 7 elements."""
    for name, values in {
        "slab": [reconstruct.SLAB, 7],
        "layout": ["contiguous", "fortran", "permuted", "sliced"],
        "dtype": DTYPES,
        "shape": SHAPES,
    }.items():
        test = pytest.mark.parametrize(name, values, ids=str)(test)
    return test


def made_in(dtype: torch.dtype) -> torch.dtype:
    """Half precision is rounded from float64."""
    return torch.float64 if dtype in (torch.float16, torch.bfloat16) else dtype


@every_kind_of_data
def test_relative_error_of_cp(shape, dtype, layout, slab, monkeypatch):
    monkeypatch.setattr(reconstruct, "SLAB", slab)
    made = made_in(dtype)
    x, (weights, factors) = planted(shape, 3, noise=0.3, dtype=made)
    x = in_layout(x.to(dtype), layout)
    truth = dense_error(x, reference.cp_to_tensor(weights.to(made), factors))
    assert tf.relative_error(x, (weights, factors)) == pytest.approx(truth, rel=1e-6)
    unweighted = (None, [factors[0] * weights, *factors[1:]])
    assert tf.relative_error(x, unweighted) == pytest.approx(truth, rel=1e-6)


@every_kind_of_data
def test_relative_error_of_tucker(shape, dtype, layout, slab, monkeypatch):
    monkeypatch.setattr(reconstruct, "SLAB", slab)
    made = made_in(dtype)
    x = in_layout(planted(shape, 3, noise=0.3, dtype=made)[0].to(dtype), layout)
    g = torch.Generator().manual_seed(0)
    core = torch.randn([2] * len(shape), generator=g, dtype=made)
    factors = [torch.randn(n, 2, generator=g, dtype=made) for n in shape]
    truth = dense_error(x, reference.tucker_to_tensor(core, factors))
    assert tf.relative_error(x, (core, factors)) == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-9, 1e-12])
def test_relative_error_keeps_its_digits(noise):
    """From the residual itself, so that nothing cancels."""
    x, truth = planted((9, 8, 7), 3, noise=noise)
    assert tf.relative_error(x, truth) == pytest.approx(
        dense_error(x, reference.cp_to_tensor(*truth)), rel=1e-3
    )
    assert tf.relative_error(x, truth) == pytest.approx(noise, rel=1e-3)


@pytest.mark.parametrize("noise", [1e-5, 1e-6])
def test_relative_error_of_float32_is_in_double_precision(noise):
    """A residual formed in float32 would add its own rounding, about 1e-7 of ``x``."""
    x, (weights, factors) = planted((30, 40, 50), 4, noise=noise, dtype=torch.float32)
    full = reference.cp_to_tensor(weights.double(), [f.double() for f in factors])
    truth = dense_error(x, full)
    assert truth == pytest.approx(noise, rel=0.01)
    assert tf.relative_error(x, (weights, factors)) == pytest.approx(truth, rel=1e-3)
    core, factors = tf.sthosvd(x, 4)
    truth = dense_error(x, reference.tucker_to_tensor(core.double(), [f.double() for f in factors]))
    assert tf.relative_error(x, (core, factors)) == pytest.approx(truth, rel=1e-3)


def test_relative_error_of_results_numpy_and_lists():
    x = planted((7, 6, 5), 3, noise=0.2)[0]
    for model in (tf.cp_als(x, 2, seed=0), tf.sthosvd(x, 3)):
        expected = model.info.rel_errors[-1]
        assert tf.relative_error(x, model) == pytest.approx(expected, rel=1e-6)
        assert type(tf.relative_error(x, model)) is float
        first, factors = model
        pair = first.numpy(), [f.numpy() for f in factors]
        assert tf.relative_error(x.numpy(), pair) == pytest.approx(expected, rel=1e-6)
        assert tf.relative_error(x.tolist(), pair) == pytest.approx(expected, rel=1e-5)


def test_relative_error_of_a_complex_model_of_real_data():
    """The imaginary part is all error."""
    x, (weights, factors) = planted((5, 4, 3), 2)
    turned = [factors[0] * 1j, *factors[1:]]
    assert tf.relative_error(x, (weights, turned)) == pytest.approx(2**0.5)
    model = tf.sthosvd(x, (5, 4, 3))
    assert tf.relative_error(x, (model.core * 1j, model.factors)) == pytest.approx(2**0.5)


def test_relative_error_of_one_mode():
    x, f = torch.tensor([3.0, 4.0]), torch.tensor([[3.0], [0.0]])
    assert tf.relative_error(x, (torch.ones(1), [f])) == pytest.approx(0.8)


def test_relative_error_of_nothing():
    ones = [torch.ones(n, 1) for n in (2, 3)]
    assert tf.relative_error(torch.zeros(2, 3), (None, ones)) == pytest.approx(6**0.5)
    assert tf.relative_error(torch.zeros(2, 3), (torch.zeros(1), ones)) == 0


@pytest.mark.parametrize("scale", [1e160, 1e-170])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_relative_error_at_any_scale(scale, dtype):
    """Squares of the entries over- or underflow; errors do not, whatever part holds the scale."""
    x, (weights, factors) = planted((7, 6, 5), 2, noise=0.3, dtype=dtype)
    expected = tf.relative_error(x, (weights, factors))
    root = scale ** (1 / 3)
    for model in (
        (scale * weights, factors),
        (None, [factors[0] * weights * scale, *factors[1:]]),
        (weights, [root * f for f in factors]),
    ):
        assert tf.relative_error(scale * x, model) == pytest.approx(expected, rel=1e-10)
    core, matrices = tf.sthosvd(x, 2)
    expected = tf.relative_error(x, (core, matrices))
    assert tf.relative_error(scale * x, (scale * core, matrices)) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e160, 1e-170])
def test_relative_error_of_a_model_in_another_scale(scale):
    ones = torch.ones(4, 4, dtype=torch.float64)
    column = [torch.ones(4, 1, dtype=torch.float64)] * 2
    large = torch.full((1,), scale, dtype=torch.float64)
    assert tf.relative_error(ones, (large, column)) == pytest.approx(max(scale, 1))
    assert tf.relative_error(0 * ones, (large, column)) == pytest.approx(4 * scale)
    assert tf.relative_error(scale * ones, (None, column)) == pytest.approx(max(1 / scale, 1))


def test_relative_error_of_a_core_in_nested_lists():
    x = planted((5, 4, 3), 2, noise=0.1)[0]
    core, factors = tf.sthosvd(x, 2)
    listed = core.tolist(), [f.tolist() for f in factors]
    expected = tf.relative_error(x, (core, factors))
    assert tf.relative_error(x, listed) == pytest.approx(expected, rel=1e-5)
    weights, factors = tf.cp_als(x, 2, seed=0)
    expected = tf.relative_error(x, (weights, factors))
    assert tf.relative_error(x, (weights.tolist(), factors)) == pytest.approx(expected, rel=1e-5)


def peak_bytes(call: Callable[[], object]) -> int:
    """Peak of what torch allocated during ``call`` and had not yet freed."""
    with torch.profiler.profile(profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in events))


def test_peak_bytes_sees_what_is_freed_again():
    peak = peak_bytes(lambda: [torch.ones(2**20).sum() for _ in range(3)])
    assert 2**22 <= peak < 2**22 + 2**10


@pytest.mark.parametrize("rank", [2, 64])
def test_relative_error_does_not_form_the_model(rank):
    """Beside ``x``: Khatri-Rao products of half the modes and two slabs, in double precision."""
    x, model = torch.zeros(300, 300, 300), (None, [torch.ones(300, rank)] * 3)
    products = 8 * rank * (300 + 300 * 300)
    slabs = 2 * 8 * reconstruct.SLAB
    bound = products + slabs + 2**20
    assert bound < 8 * x.numel() / 3
    assert peak_bytes(lambda: tf.relative_error(x, model)) < bound
