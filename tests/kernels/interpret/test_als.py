"""A whole fit by the kernels, launched ahead, against the plain loop in torch."""

import pytest
import torch
from triton import knobs

import tensorfast as tf
from tensorfast.ahead import graphs
from tensorfast.cp.ahead import als_ahead
from tensorfast.cp.algebra import FusedAlgebra
from tensorfast.cp.als import als
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.schedule import all_schedules
from tensorfast.cp.update import LeastSquares
from tensorfast.ops.fused import Fused
from tensorfast.precision import compute_dtype
from tensorfast.testing import planted

#: Under the interpreter on the CPU, else on a GPU.
INTERPRETED = knobs.runtime.interpret
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else pytest.mark.gpu


def fits(shape, rank, noise, schedule=None, l2_reg=0.0, dtype=torch.float64, start=None, **options):
    """Fit by the plain loop in float64 on the CPU, and by the kernels."""
    x = planted(shape, rank, noise=noise, dtype=compute_dtype(dtype))[0].to(dtype)
    torch.manual_seed(0)
    start = start or [torch.randn(n, rank, dtype=compute_dtype(dtype)) for n in shape]
    options = {"n_iter_max": 6, "tol": 0.0, "free": range(len(shape)), **options}
    wide = [f.double() for f in start]
    plain = als(DenseOperand(x.double()), wide, LeastSquares(l2_reg), schedule=schedule, **options)
    fused = Fused("ieee")
    algebra = FusedAlgebra(fused, l2_reg)
    operand = DenseOperand(x.to(DEVICE), fused)
    there = als_ahead(
        operand,
        [f.to(DEVICE) for f in start],
        algebra,
        schedule=schedule,
        capture=None if INTERPRETED else graphs(DEVICE),
        monotone=not l2_reg,
        **options,
    )
    return plain, ([f.cpu() for f in there[0]], there[1])


def close(plain, there, relative):
    for f, g in zip(plain[0], there[0], strict=True):
        assert torch.linalg.norm(g.double() - f) <= relative * torch.linalg.norm(f)
    errors, others = (torch.tensor(info.rel_errors) for _, info in (plain, there))
    assert len(errors) == len(others)
    assert (errors - others).abs().max() <= relative


@pytest.mark.parametrize("schedule", list(all_schedules(range(3))), ids=str)
def test_every_schedule_takes_the_iterates_of_the_plain_loop(schedule):
    close(*fits((9, 7, 8), 3, 0.2, schedule), 1e-10)


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 4, 7), (3, 4, 5, 3, 4)], ids=str)
def test_other_orders(shape):
    close(*fits(shape, 2, 0.2), 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_float32_and_half_precision(dtype):
    close(*fits((12, 10, 9), 3, 0.3, dtype=dtype), 1e-4)


def test_the_fit_ends_where_the_plain_loop_ends():
    plain, there = fits((9, 7, 8), 2, 0.1, tol=1e-4, n_iter_max=60)
    assert there[1].status == plain[1].status == "converged"
    assert there[1].n_iter == plain[1].n_iter
    close(plain, there, 1e-8)


def test_singular_equations():
    torch.manual_seed(1)
    start = [torch.randn(n, 1, dtype=torch.float64).repeat(1, 3) for n in (9, 7, 8)]
    (_, plain), (factors, there) = fits((9, 7, 8), 3, 0.1, start=start, n_iter_max=3)
    # Rounding decides where columns that were equal part, so only the ridge is the same.
    ridge = "a relative ridge of up to"
    assert plain.message.split(ridge)[1] == there.message.split(ridge)[1]
    assert all(f.isfinite().all() for f in factors)
    assert list(there.rel_errors) == sorted(there.rel_errors, reverse=True)


def test_regularisation():
    close(*fits((9, 7, 8), 3, 0.2, l2_reg=0.5), 1e-10)


@pytest.mark.gpu
def test_the_public_function_takes_this_way():
    x, start = planted((20, 24, 28), 3, noise=0.1, dtype=torch.float32)
    here = tf.cp_als(x, 3, init=start, n_iter_max=30, tol=1e-5)
    there = tf.cp_als(
        x.cuda(), 3, init=(start[0].cuda(), [f.cuda() for f in start[1]]), n_iter_max=30, tol=1e-5
    )
    assert there.info.status == here.info.status
    assert "No graph" not in there.info.message
    for f, g in zip(here.factors, there.factors, strict=True):
        torch.testing.assert_close(g.cpu(), f, rtol=1e-3, atol=1e-4)
