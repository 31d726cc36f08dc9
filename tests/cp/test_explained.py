"""What `explain` tells of a fit."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import tensorfast as tf


def test_a_fit_on_a_cpu_is_explained_without_being_run():
    x = np.full((40, 50, 60), np.nan, dtype=np.float32)
    plan = tf.explain(tf.cp_als, x, 5, n_iter_max=3)
    assert plan.engine == "torch"
    assert 1.5 <= plan.reads <= 3
    assert plan.seconds > 0
    assert str(plan).startswith("cp_als by torch: ")


def test_a_fit_on_a_gpu_is_planned_by_its_kernels():
    with FakeTensorMode():
        x = torch.empty(512, 512, 512, device="cuda")
        plan = tf.explain("cp_als", x, 32)
        assert plan.engine == "kernels"
        assert plan.schedule == "multi_sweep (01 20 12)"
        # The partial result of two modes, 33 MB, of the first cycle and of the graphs, and little
        # besides.
        assert 1 < plan.workspace / (2 * 512 * 512 * 32 * 4) < 1.05
        assert 1.5 * 512**3 * 4 / 4.8e12 < plan.seconds < 1e-3
        assert tf.explain("cp_als", x, 32, line_search=True).engine == "torch"
        assert tf.explain("cp_als", x.to(torch.complex64), 32).engine == "torch"


def test_a_batch_is_explained_by_its_chunks():
    x = np.full((2, 500, 16, 16, 16), np.nan, dtype=np.float32)
    plan = tf.explain(tf.cp_als, x, 8, batch_dims=2)
    assert plan.engine == "torch"
    assert plan.schedule.startswith("tree (")
    assert plan.schedule.endswith(", 256 of 1000 tensors at a time")
    assert plan.reads == 2
    one = tf.explain("cp_als", x[0, :1], 8, batch_dims=1)
    assert plan.seconds == pytest.approx(1000 * one.seconds)
    assert plan.workspace == 256 * one.workspace
    fixed = tf.explain("cp_als", x, 8, batch_dims=2, fixed_modes=(0,))
    assert fixed.schedule.startswith("mode_by_mode (1 2), ")
    with pytest.raises(ValueError, match="a batch of no tensor"):
        tf.explain("cp_als", x[:, :0], 8, batch_dims=2)


def test_bad_arguments_are_told():
    with pytest.raises(ValueError, match="rank"):
        tf.explain("cp_als", np.ones((3, 4)), 0)
    with pytest.raises(ValueError, match=r"expected one of \['cp_als', 'gram'"):
        tf.explain("nothing")
