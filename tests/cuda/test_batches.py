"""`cp_als` of a batch by the kernel of small fits, built as host C++, beside its plain path."""

from functools import partial

import pytest
import torch

import tensorfast as tf
from tensorfast.cp.batch import thread_blocks
from tensorfast.cuda.cp_als import cp_als_small
from tensorfast.kernels.devices import chip_like
from tensorfast.testing import normal, random_cp

SHAPE = (5, 4, 6)


@pytest.fixture
def by_blocks(monkeypatch, launch):
    """Return `cp_als` of a batch, which goes to the kernel as it would on a GPU."""

    def fit(x, rank, **options):
        calls = []

        def instead(*args, **more):
            calls.append(args)
            return cp_als_small(*args, launch=launch, **more)

        with monkeypatch.context() as patch:
            patch.setattr("tensorfast.cuda.cp_als.cp_als_small", instead)
            patch.setattr(thread_blocks, "reasons", lambda *a, **k: [])
            found = tf.cp_als(x, rank, **options)
        assert calls
        return found

    return fit


def batch(count=6, dtype=torch.float64, noise=0.3):
    """Return tensors of rank 3 with noise."""
    each = []
    for seed in range(count):
        weights, factors = random_cp(SHAPE, 3, seed=seed, dtype=dtype)
        x = tf.cp_to_tensor((weights, factors))
        each.append(x + noise * x.norm() * normal(SHAPE, dtype=dtype, seed=seed) / len(SHAPE) ** 2)
    return torch.stack(each)


def assert_same(found, expected, digits):
    """Compare accounts, and models."""
    assert found.info.shape == expected.info.shape
    for a, b in zip(found.info, expected.info, strict=True):
        assert (a.status, a.n_iter, a.converged) == (b.status, b.n_iter, b.converged)
        assert a.rel_errors == pytest.approx(b.rel_errors, abs=digits)
        assert a.message.split("(")[0] == b.message.split("(")[0]
    models = [tf.cp_to_tensor(model).double() for model in (found, expected)]
    assert (models[0] - models[1]).norm() <= 30 * digits * models[1].norm()


@pytest.mark.parametrize("dims", [(6,), (2, 3)])
@pytest.mark.parametrize("init", ["svd", "random"])
def test_each_fit_is_the_same(by_blocks, dims, init):
    x = batch().reshape(*dims, *SHAPE)
    options = {"batch_dims": len(dims), "init": init, "seed": 1, "tol": 1e-5}
    found, expected = by_blocks(x, 3, **options), tf.cp_als(x, 3, **options)
    assert_same(found, expected, 1e-9)
    assert len(set(found.info.n_iter.ravel().tolist())) > 1
    for a, b in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"l2_reg": 0.1}, {"normalize": False}, {"n_iter_max": 3}])
def test_options_reach_the_kernel(by_blocks, options):
    options |= {"batch_dims": 1, "init": "random", "seed": 1, "tol": 1e-5}
    x = batch()
    assert_same(by_blocks(x, 3, **options), tf.cp_als(x, 3, **options), 1e-9)


def test_fixed_modes_are_kept_to_the_bit(by_blocks):
    x = batch()
    start = None, [normal((6, n, 3), dtype=torch.float64, seed=n) for n in SHAPE]
    options = {"batch_dims": 1, "init": start, "fixed_modes": (1,), "normalize": False}
    found = by_blocks(x, 3, **options)
    assert torch.equal(found.factors[1], start[1][1])
    assert_same(found, tf.cp_als(x, 3, **options), 1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_tensors_out_of_range_are_scaled(by_blocks, scale):
    x = batch()
    x[2] *= scale
    options = {"batch_dims": 1, "seed": 1, "tol": 1e-5}
    assert_same(by_blocks(x, 3, **options), tf.cp_als(x, 3, **options), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_storage_types(by_blocks, dtype):
    x = batch().to(dtype)
    found = by_blocks(x, 3, batch_dims=1, n_iter_max=5, tol=0, seed=1)
    assert found.weights.dtype == torch.float32
    assert_same(found, tf.cp_als(x, 3, batch_dims=1, n_iter_max=5, tol=0, seed=1), 1e-5)


def test_a_zero_tensor_and_one_of_rank_1(by_blocks):
    x = batch()
    x[1] = 0
    x[4] = torch.einsum("i,j,k->ijk", *(normal((n,), dtype=x.dtype) for n in SHAPE))
    found = by_blocks(x, 2, batch_dims=1, init="random", seed=1)
    plain = tf.cp_als(x, 2, batch_dims=1, init="random", seed=1)
    assert [info.status for info in found.info] == [info.status for info in plain.info]
    assert found.info[1].rel_errors[-1] == 0
    assert found.info[4].rel_errors[-1] < 1e-14


def test_components_that_diverge_are_told(by_blocks):
    """The border-rank tensor, beside one that has a best approximation."""
    a = torch.eye(4, dtype=torch.float64)[:2]
    terms = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    hard = sum(torch.einsum("i,j,k->ijk", *(a[n] for n in term)) for term in terms)
    x = torch.stack([hard, tf.cp_to_tensor(random_cp((4, 4, 4), 2, dtype=torch.float64))])
    options = {"batch_dims": 1, "init": "random", "seed": 3, "tol": 0.0, "n_iter_max": 200}
    found, expected = by_blocks(x, 2, **options), tf.cp_als(x, 2, **options)
    assert found.info[0].status == expected.info[0].status == "degenerate"
    assert found.info[0].message == expected.info[0].message
    assert found.info[1].status == expected.info[1].status == "precision_limit"


def test_what_is_not_finite_ends_the_fit(by_blocks):
    x = batch()
    x[3, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="at batch index 3"):
        by_blocks(x, 2, batch_dims=1)
    start = None, [torch.full((6, n, 2), 1e200, dtype=x.dtype) for n in SHAPE]
    with pytest.raises(FloatingPointError, match="no longer finite"):
        by_blocks(x.nan_to_num(), 2, batch_dims=1, init=start)


def test_reasons_against_it(monkeypatch):
    monkeypatch.setattr("tensorfast.kernels.devices.chip_of", lambda device: chip_like(90))
    monkeypatch.setattr("tensorfast.cuda.cp_plan.missing", lambda: ("cuda.core is not installed",))
    ask = partial(thread_blocks.reasons, watched=False, scaled=False)
    (found,) = ask(torch.ones(2, 3, 4), (3, 4), 2)
    assert found == "x is on cpu; the kernel that fits many small tensors runs on CUDA"

    class OnCUDA:
        device, dtype = torch.device("cuda", 0), torch.float32

    assert ask(OnCUDA(), (3, 4), 2) == ["cuda.core is not installed"]
    monkeypatch.setattr("tensorfast.cuda.cp_plan.missing", lambda: ())
    assert ask(OnCUDA(), (3, 4), 2) == []
    found = thread_blocks.reasons(OnCUDA(), (99, 99, 99), 40, watched=True, scaled=True)
    assert [reason.split(";")[0] for reason in found] == [
        "rank 40",
        "callback or progress looks on",
        "x is out of range, so that l2_reg differs from tensor to tensor",
    ]


def test_explain_tells_of_blocks(monkeypatch):
    x = torch.ones(5000, 16, 16, 16)
    plan = tf.explain("cp_als", x, 8, batch_dims=1)
    assert plan.engine == "torch"
    assert plan.reasons == ("x is on cpu; the kernel that fits many small tensors runs on CUDA",)
    assert plan.reasons[0] in str(plan)
    monkeypatch.setattr(thread_blocks, "reasons", lambda *a, **k: [])
    monkeypatch.setattr("tensorfast.kernels.devices.chip_of", lambda device: chip_like(90))
    plan = tf.explain("cp_als", x, 8, batch_dims=1)
    assert plan.engine == "blocks"
    assert plan.schedule == "tree of two branches, 5000 x 1 blocks of 128 threads"
    assert 1e-6 < plan.seconds < 1e-3
