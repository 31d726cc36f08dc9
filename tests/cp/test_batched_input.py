"""What a batch may be: kinds, types, strides, memory; and what is refused, in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast.batch import Stack
from tensorfast.cp.batch.operand import BatchOperand
from tensorfast.testing import planted, random_cp

SHAPE = (6, 5, 7)
OPTIONS = {"batch_dims": 1, "seed": 0, "n_iter_max": 10, "tol": 0}


@pytest.fixture
def x() -> torch.Tensor:
    return torch.stack([planted(SHAPE, 3, noise=0.1, seed=s)[0] for s in range(4)])


def assert_same_model(model, other, relative=1e-9):
    for a, b in zip((model[0], *model[1]), (other[0], *other[1]), strict=True):
        a, b = np.asarray(a, dtype=complex), np.asarray(b, dtype=complex)
        assert np.abs(a - b).max() <= relative * max(np.abs(b).max(), 1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_numpy_in_and_out(x, dtype):
    array = x.numpy().astype(dtype)
    before = array.copy()
    model = tf.cp_als(array, 3, **OPTIONS)
    assert all(type(a) is np.ndarray for a in (model.weights, *model.factors))
    assert all(f.dtype == dtype for f in model.factors)
    assert model.weights.dtype == np.empty(0, dtype).real.dtype
    assert np.array_equal(array, before)
    assert_same_model(model, tf.cp_als(torch.from_numpy(before), 3, **OPTIONS), 1e-3)
    model.factors[0][:] = 0


def test_jax_in_and_out(x):
    array, shapes = jnp.asarray(x.numpy(), dtype=jnp.float32), []

    def callback(sweep, errors, factors):
        shapes.append((type(errors), isinstance(factors[0], jax.Array)))

    model = tf.cp_als(array, 3, callback=callback, **OPTIONS)
    assert all(isinstance(a, jax.Array) for a in (model.weights, *model.factors))
    assert set(shapes) == {(np.ndarray, True)}
    assert_same_model(model, tf.cp_als(torch.tensor(np.array(array)), 3, **OPTIONS), 1e-3)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("tol", [0, 1e-5])
def test_complex(dtype, tol):
    x = torch.stack([planted(SHAPE, 3, noise=0.1, seed=s, dtype=dtype)[0] for s in range(4)])
    truths = [random_cp(SHAPE, 3, seed=9 + s, dtype=dtype) for s in range(4)]
    start = (
        torch.stack([w for w, _ in truths]),
        [torch.stack([f[n] for _, f in truths]) for n in range(3)],
    )
    options = {"tol": tol, "n_iter_max": 30}
    model = tf.cp_als(x, 3, batch_dims=1, init=start, **options)
    for i in range(4):
        alone = tf.cp_als(x[i], 3, init=truths[i], **options)
        assert abs(model.info[i].n_iter - alone.info.n_iter) <= (dtype == torch.complex64)
        relative = 1e-2 if dtype == torch.complex64 else 1e-8
        assert model.info[i].rel_errors[-1] == pytest.approx(alone.info.rel_errors[-1], rel=1e-4)
        assert_same_model(model.at(i), alone, relative)
    assert tf.cp_als(x, 3, **OPTIONS).info.rel_error.max() < 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_single(x, dtype):
    half = x.to(dtype)
    model = tf.cp_als(half, 3, **OPTIONS)
    assert {f.dtype for f in (model.weights, *model.factors)} == {torch.float32}
    assert_same_model(model, tf.cp_als(half.float(), 3, **OPTIONS), 1e-3)


def test_whole_numbers_become_the_default_float_type(x):
    model = tf.cp_als((100 * x).long(), 3, **OPTIONS)
    assert model.factors[0].dtype == torch.get_default_dtype()


LAYOUTS = {
    "fortran": np.asfortranarray,
    "batch fastest": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "batch in the middle": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, 2)), 2, 0),
    "modes permuted": lambda a: np.ascontiguousarray(a.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
    "strided": lambda a: np.repeat(a, 2, 3)[..., ::2],
    "strided batch": lambda a: np.repeat(a, 2, 0)[::2],
    "reversed": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_any_strides(x, layout, dtype):
    array = x.numpy().astype(dtype)
    other = layout(array)
    assert np.array_equal(other, array)
    model = tf.cp_als(other, 3, **OPTIONS)
    assert np.array_equal(other, array)
    relative = 1e-8 if dtype == np.float64 else 1e-3
    assert_same_model(model, tf.cp_als(array, 3, **OPTIONS), relative)


def test_batch_axes_that_cannot_be_walked_as_one(x):
    whole = x.new_empty(2, 3, *SHAPE)
    whole[:] = x[:2, None] + 0.1 * torch.arange(3.0).view(1, 3, 1, 1, 1)
    crossed = whole.transpose(0, 1).contiguous().transpose(0, 1)
    assert not crossed.is_contiguous()
    options = OPTIONS | {"batch_dims": 2}
    assert_same_model(tf.cp_als(crossed, 3, **options), tf.cp_als(whole, 3, **options), 1e-8)
    stack = Stack(crossed, 2)
    assert torch.equal(stack[1:5], whole.flatten(0, 1)[1:5])
    assert torch.equal(stack[5:9], whole.flatten(0, 1)[5:9])


def test_one_tensor_seen_many_times(x):
    model = tf.cp_als(x[:1].expand(5, *SHAPE), 3, **(OPTIONS | {"n_iter_max": 100}))
    assert model.info.rel_error.max() - model.info.rel_error.min() < 1e-2


def test_what_lies_as_it_is_wanted_is_not_copied(x):
    for view in (x, x[1:3], x.permute(0, 2, 3, 1), x[::2]):
        operand = BatchOperand(view)
        own = operand._x
        assert own.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert BatchOperand(x[..., ::2])._x.is_contiguous()


def test_memory():
    """Of large batches a few chunks, whatever their length and layout."""
    code = tf.cp_als
    x = torch.randn(400, 24, 24, 24).half()
    assert x.numel() > 5 * (1 << 20)
    probe = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    )
    with probe:
        code(x, 4, batch_dims=1, seed=0, n_iter_max=2, tol=0)
    level = peak = 0
    for event in probe.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    # Chunks are of 2^20 elements, 4 MB once lifted; the whole lifted is 22 MB.
    assert 4e6 < peak < 6 * 4.2e6


def test_results_take_part_in_autograd(x):
    x.requires_grad_()
    model = tf.cp_als(x, 3, **OPTIONS)
    assert not model.factors[0].requires_grad
    factors = [f.requires_grad_() for f in model.factors]
    (tf.cp_to_tensor((model.weights, factors)) - x.detach()).square().sum().backward()
    assert all(torch.isfinite(f.grad).all() for f in factors)


@pytest.mark.parametrize("init", ["svd", "random", "given"])
@pytest.mark.parametrize("batch", [(0,), (3, 0)], ids=str)
def test_an_empty_batch_is_an_empty_result(init, batch):
    start = init
    if init == "given":
        start = np.empty((*batch, 2)), [np.empty((*batch, n, 2)) for n in SHAPE]
    model = tf.cp_als(np.empty((*batch, *SHAPE)), 2, batch_dims=len(batch), init=start)
    assert model.weights.shape == (*batch, 2)
    assert [f.shape for f in model.factors] == [(*batch, n, 2) for n in SHAPE]
    assert len(model.info) == 0
    assert model.info.n_iter.shape == batch
    assert repr(model.info) == f"BatchInfo(shape={batch})"
    called = []
    tf.cp_als(
        np.empty((*batch, *SHAPE)), 2, batch_dims=len(batch), callback=lambda *_: called.append(1)
    )
    assert not called


REFUSED = [
    ({"batch_dims": -1}, ValueError, "batch_dims is -1; expected at least 0"),
    ({"batch_dims": 1.0}, TypeError, r"batch_dims is 1.0 \(float\); expected an integer"),
    ({"batch_dims": True}, TypeError, r"batch_dims is True \(bool\)"),
    (
        {"batch_dims": 3},
        ValueError,
        r"batch_dims is 3 but x has 4 axes \(shape \(4, 6, 5, 7\)\); expected at least 2 modes",
    ),
    ({"batch_dims": 5}, ValueError, "batch_dims is 5 but x has 4 axes"),
    (
        {"line_search": True},
        NotImplementedError,
        "line_search is True and batch_dims is 1; .* loop over the calls",
    ),
    (
        {"n_init": 2},
        NotImplementedError,
        "n_init is 2 and batch_dims is 1; .* call it with several seeds",
    ),
    ({"fixed_modes": (3,)}, ValueError, "is 3 but x has 3 modes; expected -3 <= mode < 3"),
    ({"fixed_modes": (0,)}, ValueError, r"is \(0,\) but init is 'svd'; pass the factors"),
    ({"init": "nvecs"}, ValueError, "init is 'nvecs'; expected 'svd', 'random'"),
    ({"init": 3}, TypeError, "init is int; expected"),
    ({"seed": -1}, ValueError, "seed is -1"),
    (
        {"init": random_cp(SHAPE, 2)},
        ValueError,
        r"factors\[0\] has shape \(6, 2\); expected a stack of matrices \(4, I_0, R\)",
    ),
    (
        {"init": (None, [torch.ones(3, n, 2) for n in SHAPE])},
        ValueError,
        r"factors\[0\] has shape \(3, 6, 2\); expected \(4, 6, 2\)",
    ),
    (
        {"init": (None, [torch.ones(4, n, 2) for n in (6, 4, 7)])},
        ValueError,
        r"factors\[1\] has shape \(4, 4, 2\) but x.shape\[2\] is 5; expected \(4, 5, 2\)",
    ),
    (
        {"init": (torch.ones(2), [torch.ones(4, n, 2) for n in SHAPE])},
        ValueError,
        r"weights has shape \(2,\); expected \(4, 2\)",
    ),
    (
        {"init": (None, [torch.ones(4, n, 3) for n in SHAPE])},
        ValueError,
        "init has rank 3 but rank is 2",
    ),
    (
        {"init": (None, [torch.nan * torch.ones(4, n, 2) for n in SHAPE])},
        ValueError,
        r"init factors\[0\].* 48 non-finite values",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "error", "text"), [pytest.param(*case, id=str(case[2])[:25]) for case in REFUSED]
)
def test_refused(x, arguments, error, text):
    with pytest.raises(error, match=f"^cp_als: .*{text}"):
        tf.cp_als(x, 2, **{"batch_dims": 1, **arguments})


def test_an_empty_mode_is_refused():
    with pytest.raises(ValueError, match=r"x.shape\[2\] is 0 \(shape \(4, 3, 0\)\)"):
        tf.cp_als(torch.ones(4, 3, 0), 2, batch_dims=1)


def test_every_bad_tensor_is_named(x):
    x[1, 2, 3, 4] = torch.nan
    x[3, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"2 non-finite.*2 of 4 tensors, at batch index 1, 3$"):
        tf.cp_als(x, 2, batch_dims=1)
    with pytest.raises(ValueError, match=r"at batch index \(0, 1\), \(1, 1\)$"):
        tf.cp_als(x.view(2, 2, *SHAPE), 2, batch_dims=2)
    many = torch.full((20, 3, 3), torch.nan)
    with pytest.raises(ValueError, match=r"20 of 20 tensors, at batch index 0, .* 7, \.\.\.$"):
        tf.cp_als(many, 2, batch_dims=1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_unchecked_non_finite_data_end_in_words(x, value):
    x[2, 2, 3, 4] = value
    with pytest.raises(FloatingPointError, match=r"no longer finite; the tensor at 2 holds NaN"):
        tf.cp_als(x, 2, batch_dims=1, check_finite=False)


@pytest.mark.usefixtures("ends_soon")
def test_a_start_that_overflows_ends_in_words(x):
    start = None, [1e300 * torch.ones(4, n, 2, dtype=torch.float64) for n in SHAPE]
    with pytest.raises(FloatingPointError, match="no longer finite"):
        tf.cp_als(x, 2, batch_dims=1, init=start)
