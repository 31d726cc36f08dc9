"""`sthosvd` and `hooi` of a batch by the kernels of small tensors, built as host C++."""

import pytest
import torch

import tensorfast as tf
from tensorfast.cuda import tucker
from tensorfast.kernels.devices import chip_like
from tensorfast.testing import normal
from tensorfast.tucker.batch import thread_blocks

SHAPE, RANKS = (6, 5, 7), (2, 3, 2)


@pytest.fixture
def by_blocks(monkeypatch, launch):
    """Return a function that calls a method, whose kernels run as they would on a GPU."""

    def call(method, *args, **options):
        calls = []

        def through(name):
            kernel = getattr(tucker, name)

            def instead(*args, **more):
                calls.append(name)
                return kernel(*args, **{**more, "launch": launch})

            return instead

        with monkeypatch.context() as patch:
            for name in ("sthosvd_small", "hooi_small"):
                patch.setattr(f"tensorfast.cuda.tucker.{name}", through(name))
            patch.setattr(thread_blocks, "reasons", lambda *a, **k: [])
            found = method(*args, **options)
        assert calls
        return found

    return call


def batch(count=4, dtype=torch.float64, noise=0.1):
    """Return tensors with leading subspaces of these ranks, and noise."""
    each = []
    for seed in range(count):
        factors = [
            torch.linalg.qr(normal((n, r), dtype=dtype, seed=seed + n)).Q
            for n, r in zip(SHAPE, RANKS, strict=True)
        ]
        x = tf.tucker_to_tensor((normal(RANKS, dtype=dtype, seed=seed), factors))
        each.append(x + noise * x.norm() / x.numel() ** 0.5 * normal(SHAPE, dtype=dtype, seed=seed))
    return torch.stack(each)


def assert_same(found, expected, digits):
    """Compare accounts, and models."""
    assert found.info.shape == expected.info.shape
    for a, b in zip(found.info, expected.info, strict=True):
        assert (a.status, a.n_iter) == (b.status, b.n_iter)
        assert a.rel_errors == pytest.approx(b.rel_errors, abs=digits)
    models = [tf.tucker_to_tensor(model).double() for model in (found, expected)]
    assert (models[0] - models[1]).norm() <= 30 * digits * models[1].norm()


@pytest.mark.parametrize("dims", [(4,), (2, 2)])
@pytest.mark.parametrize(("method", "digits"), [(tf.sthosvd, 1e-12), (tf.hooi, 1e-8)])
def test_each_decomposition_is_the_same(by_blocks, method, digits, dims):
    x = batch().reshape(*dims, *SHAPE)
    options = {"batch_dims": len(dims)}
    found, expected = by_blocks(method, x, RANKS, **options), method(x, RANKS, **options)
    assert_same(found, expected, digits)


@pytest.mark.parametrize("init", ["random", "given"])
def test_starts_reach_the_kernel(by_blocks, init):
    x = batch()
    if init == "given":
        core = torch.ones(4, *RANKS, dtype=x.dtype)
        init = core, [normal((4, n, r), dtype=x.dtype) for n, r in zip(SHAPE, RANKS, strict=True)]
    options = {"batch_dims": 1, "init": init, "n_iter_max": 40, "tol": 1e-9, "seed": 0}
    found, expected = by_blocks(tf.hooi, x, RANKS, **options), tf.hooi(x, RANKS, **options)
    ends = [info.rel_errors[-1] for info in found.info], [i.rel_errors[-1] for i in expected.info]
    assert ends[0] == pytest.approx(ends[1], abs=1e-7)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("method", [tf.sthosvd, tf.hooi])
def test_tensors_out_of_range_are_scaled(by_blocks, method, scale):
    x = batch()
    x[1] *= scale
    found, expected = (by_blocks(method, x, RANKS, batch_dims=1), method(x, RANKS, batch_dims=1))
    assert found.info.rel_error == pytest.approx(expected.info.rel_error, abs=1e-9)
    one, other = (tf.tucker_to_tensor(model.at(1)) for model in (found, expected))
    assert (one / scale - other / scale).norm() <= 1e-6 * (other / scale).norm()


def test_what_the_kernel_has_no_digits_for_is_done_again(by_blocks):
    """A tensor of which a singular value of 1e-9 is kept, beside one without."""
    x = batch(noise=0.0)
    bases = [torch.linalg.qr(normal((n, 2), dtype=x.dtype, seed=n)).Q for n in SHAPE]
    core = torch.zeros(2, 2, 2, dtype=x.dtype)
    core[0, 0, 0], core[1, 1, 1] = 1.0, 1e-9
    x[2] = tf.tucker_to_tensor((core, bases))
    found = by_blocks(tf.sthosvd, x, 2, batch_dims=1)
    expected = tf.sthosvd(x[2], 2)
    assert found.info[2].rel_errors[-1] < 1e-14
    assert expected.info.rel_errors[-1] < 1e-14


def test_half_precision_is_lifted(by_blocks):
    x = batch().half()
    found, expected = (
        by_blocks(tf.sthosvd, x, RANKS, batch_dims=1),
        tf.sthosvd(x, RANKS, batch_dims=1),
    )
    assert found.core.dtype == torch.float32
    assert_same(found, expected, 1e-5)


def test_a_tensor_with_nan_is_named(by_blocks):
    x = batch()
    x[3, 0, 0, 0] = float("nan")
    for method in (tf.sthosvd, tf.hooi):
        with pytest.raises(ValueError, match="at batch index 3"):
            method(x, RANKS, batch_dims=1)


def test_reasons_and_explain(monkeypatch):
    x = torch.ones(5000, 16, 16, 16)
    plan = tf.explain("hooi", x, 4, batch_dims=1)
    assert plan.engine == "torch"
    assert plan.reasons == ("x is on cpu; the kernels for many small tensors run on CUDA",)
    monkeypatch.setattr("tensorfast.kernels.devices.chip_of", lambda device: chip_like(90))
    monkeypatch.setattr("tensorfast.cuda.tucker_plan.missing", lambda: ())

    class OnCUDA:
        device, dtype = torch.device("cuda", 0), torch.float32

    ask = thread_blocks.reasons
    assert ask("hooi_small", OnCUDA(), (16, 16, 16), (4, 4, 4)) == []
    found = ask("hooi_small", OnCUDA(), (4, 4), (4, 4), watched=True)
    assert found == [
        "all modes are at full rank; there is nothing to iterate",
        "callback or progress looks on; the kernel runs fits from beginning to end",
    ]
    monkeypatch.setattr(thread_blocks, "reasons", lambda *a, **k: [])
    plan = tf.explain("hooi", x, 4, batch_dims=1)
    assert plan.engine == "blocks"
    assert "5000 blocks" in plan.schedule
    assert 1e-6 < plan.seconds < 1e-2
