"""Several starts whose contractions the kernels make, against plain torch."""

import pytest
import torch
from triton import knobs

import tensorfast as tf
from tensorfast.cp import starts as several
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.schedule import all_schedules
from tensorfast.cp.starts import Start, fit_starts
from tensorfast.ops.fused import Fused
from tensorfast.testing import planted

#: Under the interpreter on the CPU, else on a GPU.
INTERPRETED = knobs.runtime.interpret
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else pytest.mark.gpu


def fits(x, starts, **options):
    given = {"n_iter_max": 12, "tol": 1e-3, "l2_reg": 0.0, "normalize": True, "progress": False}
    given |= {"callback": None, "check_finite": True, "like": x, "precision": "ieee", **options}
    with torch.inference_mode():
        return fit_starts("op", x, starts, free=range(x.ndim), **given)


@pytest.mark.parametrize("schedule", [None, *all_schedules(range(3))], ids=str)
def test_starts_of_several_ranks(schedule, monkeypatch):
    """Some of which leave before the others."""
    if schedule is not None:
        monkeypatch.setattr(DenseOperand, "schedule", lambda *_: schedule)
    torch.manual_seed(0)
    x = planted((9, 7, 8), 3, noise=0.2)[0]
    begun = [
        (None, [torch.randn(n, rank, dtype=x.dtype) for n in x.shape]) for rank in (3, 1, 2, 3)
    ]
    here = fits(x, [Start(len(f[0][0]), (w, f), 0) for w, f in begun])
    monkeypatch.setattr(several, "fused_for", lambda *_: Fused("ieee"))
    moved = [(None, [f.to(DEVICE) for f in factors]) for _, factors in begun]
    there = fits(x.to(DEVICE), [Start(len(f[0][0]), (w, f), 0) for w, f in moved])
    assert len({fit.info.n_iter for fit in here}) > 1
    for a, b in zip(here, there, strict=True):
        assert (a.info.status, a.info.n_iter) == (b.info.status, b.info.n_iter)
        assert a.info.rel_errors == pytest.approx(b.info.rel_errors, rel=1e-9)
        for f, g in zip(a.factors, b.factors, strict=True):
            assert torch.linalg.norm(g.cpu() - f) <= 1e-8 * torch.linalg.norm(f)


@pytest.mark.gpu
def test_the_public_functions_take_this_way():
    x = planted((20, 24, 28), 3, noise=0.1, dtype=torch.float32)[0]
    options = {"n_init": 4, "seed": 0, "n_iter_max": 30, "tol": 1e-5}
    model = tf.cp_als(x.cuda(), 3, **options)
    assert model.info.starts.rel_error.min() == model.info.rel_errors[-1]
    assert tf.relative_error(x, (model.weights.cpu(), [f.cpu() for f in model.factors])) < 0.11
    assert tf.rank_sweep(x.cuda(), range(1, 6), **options).suggest() == 3
