"""What a batch may be: kinds, types, strides; who looks on; and what is refused, in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tensorfast as tf
from tests.tucker.batches import assert_each_as_alone, assert_same_model, tensors

SHAPE, RANK = (6, 5, 7), (3, 2, 3)
METHODS = {
    "hooi": lambda x, **o: tf.hooi(x, RANK, **{"n_iter_max": 5, "tol": 0, "seed": 0} | o),
    "sthosvd": lambda x, **o: tf.sthosvd(x, RANK, **o),
    "hosvd": lambda x, **o: tf.hosvd(x, RANK, **o),
}
every = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def x() -> torch.Tensor:
    return tensors(4, SHAPE, noise=0.2)


def on_torch(a) -> torch.Tensor:
    return a if torch.is_tensor(a) else torch.tensor(np.asarray(a))


def assert_same_batch(x, model, other, eps=None):
    """Hold the models of two batches of other kinds to each other."""
    for i in range(len(x)):
        mine, theirs = (
            tf.TuckerTensor(
                on_torch(m.core[i]),
                [on_torch(f[i]) for f in m.factors],
                m.info[i],
            )
            for m in (model, other)
        )
        assert_same_model(x[i], mine, theirs, eps, sweeps=5)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_numpy_in_and_out(x, dtype, method):
    array = x.numpy().astype(dtype)
    before = array.copy()
    model = METHODS[method](array, batch_dims=1)
    assert all(type(a) is np.ndarray and a.dtype == dtype for a in (model.core, *model.factors))
    assert all(a.flags.c_contiguous for a in (model.core, *model.factors))
    assert np.array_equal(array, before)
    other = METHODS[method](torch.from_numpy(before), batch_dims=1)
    assert_same_batch(torch.from_numpy(before), model, other)
    model.factors[0][:] = 0


@every
def test_jax_in_and_out(x, method):
    array = jnp.asarray(x.numpy(), dtype=jnp.float32)
    model = METHODS[method](array, batch_dims=1)
    assert all(isinstance(a, jax.Array) for a in (model.core, *model.factors))
    plain = torch.tensor(np.array(array))
    assert_same_batch(plain, model, METHODS[method](plain, batch_dims=1))


@every
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex(dtype, method):
    x = tensors(4, SHAPE, noise=0.2, dtype=dtype)
    model = METHODS[method](x, batch_dims=1)
    assert model.core.dtype == dtype
    assert_each_as_alone(x, model, METHODS[method])
    errors = tf.relative_error(x, model)
    np.testing.assert_allclose(model.info.rel_error, errors, rtol=1e-4)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_single(x, dtype, method):
    half = x.to(dtype)
    model = METHODS[method](half, batch_dims=1)
    assert {f.dtype for f in (model.core, *model.factors)} == {torch.float32}
    assert_same_batch(half.float(), model, METHODS[method](half.float(), batch_dims=1))


@every
def test_whole_numbers_become_the_default_float_type(x, method):
    model = METHODS[method]((100 * x).long(), batch_dims=1)
    assert model.core.dtype == torch.get_default_dtype()


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
@every
def test_any_strides(x, layout, dtype, method):
    array = x.numpy().astype(dtype)
    other = layout(array)
    assert np.array_equal(other, array)
    model = METHODS[method](other, batch_dims=1)
    assert np.array_equal(other, array)
    computed = torch.from_numpy(array.astype(np.float32) if dtype == np.float16 else array)
    assert_same_batch(computed, model, METHODS[method](array, batch_dims=1))


@every
def test_batch_axes_that_cannot_be_walked_as_one(x, method):
    whole = x.new_empty(2, 3, *SHAPE)
    whole[:] = x[:2, None] + 0.1 * torch.arange(3.0).view(1, 3, 1, 1, 1)
    crossed = whole.transpose(0, 1).contiguous().transpose(0, 1)
    assert not crossed.is_contiguous()
    mine, theirs = (METHODS[method](y, batch_dims=2) for y in (crossed, whole))
    for index in np.ndindex(2, 3):
        assert_same_model(whole[index], mine.at(index), theirs.at(index), sweeps=5)


@every
def test_one_tensor_seen_many_times(x, method):
    model = METHODS[method](x[:1].expand(5, *SHAPE), batch_dims=1)
    alone = METHODS[method](x[0])
    for i in range(5):
        assert_same_model(x[0], model.at(i), alone, sweeps=5)


@every
def test_results_are_detached_and_own_their_memory(x, method):
    x.requires_grad_()
    model = METHODS[method](x, batch_dims=1)
    assert not any(a.requires_grad for a in (model.core, *model.factors))
    core, *factors = (a.requires_grad_() for a in (model.core, *model.factors))
    (tf.tucker_to_tensor((core, factors)) - x.detach()).square().sum().backward()
    assert all(torch.isfinite(a.grad).all() for a in (core, *factors))


@every
@pytest.mark.parametrize("batch", [(0,), (3, 0)], ids=str)
def test_an_empty_batch_is_an_empty_result(batch, method):
    model = METHODS[method](np.empty((*batch, *SHAPE)), batch_dims=len(batch))
    assert model.core.shape == (*batch, *RANK)
    assert [f.shape for f in model.factors] == [
        (*batch, n, r) for n, r in zip(SHAPE, RANK, strict=True)
    ]
    assert len(model.info) == 0
    assert model.info.n_iter.shape == batch
    assert tf.tucker_to_tensor(model).shape == (*batch, *SHAPE)
    assert tf.relative_error(np.empty((*batch, *SHAPE)), model).shape == batch
    if method == "hooi":
        again = tf.hooi(np.empty((*batch, *SHAPE)), RANK, batch_dims=len(batch), init=model)
        assert again.core.shape == model.core.shape
        called = []
        METHODS[method](
            np.empty((*batch, *SHAPE)),
            batch_dims=len(batch),
            callback=lambda *_: called.append(1),
        )
        assert not called


@every
@pytest.mark.parametrize("rank", [1.0, 99, SHAPE], ids=str)
def test_full_ranks(x, rank, method):
    """Ranks are cut to the lengths of the modes, and the model is the tensor."""
    model = getattr(tf, method)(x, rank, batch_dims=1)
    assert model.rank == SHAPE
    assert (model.info.rel_error < 1e-14).all()
    torch.testing.assert_close(tf.tucker_to_tensor(model), x, rtol=0, atol=1e-13)


def test_vectors():
    x = tensors(3, (7, 2))[..., 0]
    model = tf.sthosvd(x, 1, batch_dims=1)
    assert model.core.shape == (3, 1)
    assert (model.info.rel_error < 1e-14).all()


def test_the_callback_sees_the_batch(x):
    calls = []

    def callback(sweep, errors, factors):
        calls.append((sweep, errors, factors))
        factors[0][:] = 0
        return sweep == 3

    batch = x.view(2, 2, *SHAPE).numpy()
    model = tf.hooi(batch, RANK, batch_dims=2, tol=0, seed=0, callback=callback)
    assert [sweep for sweep, *_ in calls] == [1, 2, 3]
    assert set(model.info.status.flat) == {"stopped"}
    assert set(model.info.n_iter.flat) == {3}
    for sweep, errors, factors in calls:
        assert errors.shape == (2, 2)
        assert [f.shape for f in factors] == [f.shape for f in model.factors]
        assert all(type(f) is np.ndarray for f in factors)
        for index in np.ndindex(2, 2):
            assert errors[index] == model.info[index].rel_errors[sweep - 1]
    assert np.array_equal(calls[-1][2][1], model.factors[1])
    silent = tf.hooi(batch, RANK, batch_dims=2, tol=0, seed=0, n_iter_max=3)
    assert np.array_equal(silent.core, model.core)


def test_progress(x, capsys):
    info = METHODS["hooi"](x, batch_dims=1, n_iter_max=3, progress=True).info
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert f"error={info.rel_error.max():.3e}" in shown


REFUSED = {
    "negative": ({"batch_dims": -1}, ValueError, "batch_dims is -1; expected at least 0"),
    "a float": ({"batch_dims": 1.0}, TypeError, r"batch_dims is 1.0 \(float\)"),
    "a bool": ({"batch_dims": True}, TypeError, r"batch_dims is True \(bool\)"),
    "no mode left": ({"batch_dims": 4}, ValueError, "batch_dims is 4 but x has 4 axes"),
    "ranks": ({"rank": (2, 2)}, ValueError, "rank has 2 entries but x has 3 modes"),
    "rank 0": ({"rank": 0}, ValueError, r"rank\[0\] is 0; expected at least 1"),
}


@pytest.mark.parametrize(("arguments", "error", "text"), REFUSED.values(), ids=REFUSED)
@every
def test_refused(x, arguments, error, text, method):
    with pytest.raises(error, match=f"^{method}: .*{text}"):
        getattr(tf, method)(x, **{"rank": 2, "batch_dims": 1, **arguments})


@pytest.mark.parametrize("method", ["tucker", "sthosvd", "hosvd"])
def test_a_tolerance_is_refused(x, method):
    with pytest.raises(
        NotImplementedError,
        match=rf"^{method}: tol is 0.1 and batch_dims is 1; the ranks .* differ from tensor to "
        "tensor.* pass rank, or loop over the tensors",
    ):
        getattr(tf, method)(x, tol=0.1, batch_dims=1)


REFUSED_STARTS = {
    "single": (lambda: tf.sthosvd(torch.ones(SHAPE), 2), r"init factors\[0\] .* \(6, 2\); .*4, 6"),
    "other batch": (
        lambda: tf.sthosvd(torch.ones(3, *SHAPE), 2, batch_dims=1),
        r"init factors\[0\] has shape \(3, 6, 2\); expected \(4, 6, 2\)",
    ),
    "other ranks": (
        lambda: tf.sthosvd(torch.ones(4, *SHAPE), 3, batch_dims=1),
        r"init factors\[0\] has shape \(4, 6, 3\); expected \(4, 6, 2\)",
    ),
    "core": (
        lambda: (torch.ones(2, 2, 2), [torch.ones(4, n, 2) for n in SHAPE]),
        r"3 factors but the core has 2 modes beside the batch axes \(4,\)",
    ),
    "fewer modes": (
        lambda: (torch.ones(4, 2, 2), [torch.ones(4, n, 2) for n in SHAPE[:2]]),
        "init has 2 modes but x has 3",
    ),
    "not finite": (
        lambda: (torch.ones(4, 2, 2, 2), [torch.nan * torch.ones(4, n, 2) for n in SHAPE]),
        r"init factors\[0\].* 48 non-finite values",
    ),
    "name": (lambda: "svd", "init is 'svd'; expected 'sthosvd', 'random'"),
}


@pytest.mark.parametrize(("start", "text"), REFUSED_STARTS.values(), ids=REFUSED_STARTS)
def test_starts_that_do_not_fit(x, start, text):
    with pytest.raises(ValueError, match=f"^hooi: .*{text}"):
        tf.hooi(x, 2, batch_dims=1, init=start())


def test_an_empty_mode_is_refused():
    with pytest.raises(ValueError, match=r"x.shape\[2\] is 0 \(shape \(4, 3, 0\)\)"):
        tf.sthosvd(torch.ones(4, 3, 0), 2, batch_dims=1)


@every
def test_memory(method):
    """Of large batches a few chunks, whatever their length and layout."""
    x = torch.randn(400, 24, 24, 24).half()
    assert x.numel() > 5 * (1 << 20)
    probe = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    )
    with probe:
        METHODS[method](x, batch_dims=1, **({"n_iter_max": 2} if method == "hooi" else {}))
    level = peak = 0
    for event in probe.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    # Chunks are of 2^20 elements, 4 MB once lifted; the whole lifted is 22 MB.
    assert 4e6 < peak < 6 * 4.2e6
    if method == "hooi":
        assert peak < tf.explain("hooi", x, RANK, batch_dims=1).workspace
