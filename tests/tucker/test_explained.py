"""What `explain` tells of HOOI."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import tensorfast as tf
from tensorfast.tucker.plan import SCRAPS


def test_a_fit_on_a_cpu_is_explained_without_being_run():
    plan = tf.explain(tf.hooi, np.full((40, 50, 60), np.nan, dtype=np.float32), (4, 5, 6), tol=0)
    assert plan.engine == "torch"
    assert plan.reads == 1.5
    assert plan.seconds > 0
    # The first projection, to the shortest rank for its length.
    assert 4 * 4 * 50 * 60 < plan.workspace < 10 * 4 * 50 * 60 * 4
    assert str(plan).startswith("hooi by torch: projections (01 20 12), 1.50 reads of x a sweep")


@pytest.mark.parametrize(
    ("shape", "rank", "dtype", "engine"),
    [
        ((256, 256, 256), 32, torch.float32, "kernels"),
        ((256, 256, 256), 64, torch.float64, "kernels"),
        # A space of 3 R is more than the kernel turns,
        ((256, 256, 256), 65, torch.float32, "torch"),
        # unless the mode itself is no longer than that, or kept whole.
        ((192, 180, 256), (100, 70, 256), torch.float32, "kernels"),
        ((256, 256, 256), 32, torch.complex64, "torch"),
        ((64, 64, 64, 64), 16, torch.bfloat16, "kernels"),
    ],
    ids=str,
)
def test_which_fits_never_wait(shape, rank, dtype, engine):
    with FakeTensorMode():
        plan = tf.explain("hooi", torch.empty(shape, device="cuda", dtype=dtype), rank)
    assert plan.engine == engine
    order = len(shape)
    assert plan.reads == pytest.approx(order / (order - 1))


def test_bad_arguments_are_told():
    with pytest.raises(ValueError, match="rank"):
        tf.explain("hooi", np.ones((3, 4)), 0)
    with pytest.raises(ValueError, match="modes"):
        tf.explain("hooi", np.ones(3), 1)


def test_a_batch_is_explained_without_being_run():
    x = np.full((1000, 16, 16, 16), np.nan, dtype=np.float32)
    plan = tf.explain("hooi", x, 4, batch_dims=1)
    assert (plan.engine, plan.reads) == ("torch", 1.5)
    assert plan.schedule == "projections (01 20 12), 256 of 1000 tensors at a time"
    # Calls are what a contraction of one costs, and they serve a chunk.
    assert tf.explain("hooi", x[0], 4).seconds < plan.seconds
    assert plan.seconds < 100 * tf.explain("hooi", x[0], 4).seconds
    twice = tf.explain("hooi", np.tile(x, (2, 1, 1, 1)), 4, batch_dims=1)
    assert twice.seconds == pytest.approx(2 * plan.seconds)
    assert twice.workspace == plan.workspace
    # A chunk as it comes, one of what is not done, and one in double precision.
    chunk = 256 * 16**3
    assert 16 * chunk < plan.workspace < 2 * 16 * chunk
    # Beside that, what 256 fits take, but for numbers.
    one = tf.explain("hooi", x[0], 4).workspace - SCRAPS
    assert plan.workspace - 16 * chunk - SCRAPS == 256 * one
    with FakeTensorMode():
        fake = torch.empty(2, 3, 64, 64, 64, device="cuda")
        assert tf.explain("hooi", fake, 4, batch_dims=2).engine == "torch"
    with pytest.raises(ValueError, match=r"hooi: .* a batch of no tensor"):
        tf.explain("hooi", x[:0], 4, batch_dims=1)
    with pytest.raises(ValueError, match="expected at least 2 modes beside"):
        tf.explain("hooi", x, 4, batch_dims=3)
