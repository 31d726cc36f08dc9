"""A whole fit of HOOI by the kernels, launched ahead, against the plain loop in torch."""

import pytest
import torch
from triton import knobs

import tensorfast as tf
from tensorfast.convergence import StoppingRule
from tensorfast.ops import small
from tensorfast.testing import planted
from tensorfast.tucker.ahead import hooi_ahead
from tensorfast.tucker.iteration import hooi_plainly

#: Under the interpreter on the CPU, else on a GPU.
INTERPRETED = knobs.runtime.interpret
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else pytest.mark.gpu


@pytest.mark.parametrize(
    ("shape", "rank", "dtype"),
    [
        ((16, 14), (3, 3), torch.float64),
        ((10, 9, 7), (2, 2, 2), torch.float32),
        ((8, 5, 7, 5), (2, 1, 2, 1), torch.float64),
    ],
    ids=str,
)
def test_a_fit_by_the_kernels(monkeypatch, shape, rank, dtype):
    x = planted(shape, 5, noise=0.3, dtype=dtype)[0]
    start = tf.hooi(x, rank, init="random", seed=0, n_iter_max=1, tol=0).factors
    squared = float((x.double() ** 2).sum())
    plain = hooi_plainly(x, start, squared, StoppingRule(1e-3, dtype), n_iter_max=4)
    if INTERPRETED:
        monkeypatch.setattr(small, "by_kernels", lambda a: not a.is_complex())
    there = hooi_ahead(
        x.to(DEVICE),
        [f.to(DEVICE) for f in start],
        squared,
        StoppingRule(1e-3, dtype),
        n_iter_max=4,
    )
    assert (there.status, len(there.errors)) == (plain.status, len(plain.errors))
    eps = torch.finfo(dtype).eps
    assert there.errors == pytest.approx(plain.errors, rel=200 * eps)
    for f, g in zip(plain.factors, there.factors, strict=True):
        cosines = torch.linalg.svdvals(f.T @ g.cpu())
        assert float(cosines.min()) > 1 - 1000 * eps


@pytest.mark.gpu
def test_the_public_function_on_a_gpu():
    x = planted((200, 150, 40), 9, noise=0.3, dtype=torch.float32)[0]
    here, there = (tf.hooi(t, 6, n_iter_max=8, tol=0) for t in (x, x.to("cuda")))
    assert "graph" not in there.info.message
    assert there.info.rel_errors[-1] == pytest.approx(here.info.rel_errors[-1], rel=1e-5)
    again = tf.hooi(x.to("cuda"), 6, n_iter_max=8, tol=0)
    assert again.info.rel_errors == pytest.approx(there.info.rel_errors, rel=1e-6)
