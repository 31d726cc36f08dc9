"""Whole sweeps of ALS without the host: what they compute, where they stop, and in a CUDA graph."""

import itertools
import math

import pytest
import torch
from triton import knobs

from tensorfast import baseline, reference
from tensorfast.cp.stopping import hadamard
from tensorfast.cp.update import LeastSquares
from tensorfast.kernels.cholesky import factorize
from tensorfast.kernels.judge import State, judge
from tensorfast.kernels.solve import apply
from tensorfast.precision import pivot_tolerance
from tensorfast.testing import planted

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

SHAPE, RANK = (6, 7, 8), 3


class Fit:
    """A fit whose sweeps leave all decisions to the device."""

    def __init__(self, tol, dtype=torch.float64):
        x, (_, factors) = planted(SHAPE, RANK, noise=0.1, dtype=torch.float64)
        self.x = x.to(DEVICE, dtype)
        # Far from the solution, and a column that is and stays zero, so that there is a ridge.
        self.factors = [(f + 1).to(DEVICE, dtype) for f in factors]
        for f in self.factors:
            f[:, 1] = 0
        self.grams = [baseline.gram_of_columns(f) for f in self.factors]
        self.squared_norm = float(baseline.sum_of_squares(self.x))
        self.limits = self.double(self.squared_norm, 1e-6, 1e-14, tol)
        self.log, self.ridge = torch.zeros_like(self.limits.expand(9, 4))[:, :3], self.double(0)
        self.log = self.log.contiguous()
        active, count = (torch.tensor([value], device=DEVICE) for value in (True, 0))
        self.state = State(active, count, self.double(math.inf))

    def double(self, *values):
        return torch.tensor(values, dtype=torch.float64, device=DEVICE)

    def sweep(self):
        least = pivot_tolerance(self.x.dtype, RANK)
        for n, f in enumerate(self.factors):
            others, grams = (
                [v for k, v in enumerate(a) if k != n] for a in (self.factors, self.grams)
            )
            m = reference.mttkrp(self.x, others, n)
            inverse, shift = factorize(grams, 0.0, least, self.ridge, self.state.active)
            apply(m, f, inverse, shift, self.state.active, f, self.grams[n])
        judge(self.grams, f, m, self.log, self.state, self.limits, monotone=True)


def plain(fit, sweeps):
    """Return factors, errors and the ridge after some sweeps with decisions of the host."""
    rule, factors, errors = LeastSquares(), [f.clone() for f in fit.factors], []
    for _ in range(sweeps):
        for n in range(3):
            others = [f for k, f in enumerate(factors) if k != n]
            gram = hadamard([baseline.gram_of_columns(f) for f in others])
            factors[n] = rule(gram, reference.mttkrp(fit.x, others, n), factors[n])
        model = torch.einsum("ir,jr,kr->ijk", *factors)
        errors.append(float(torch.linalg.norm(fit.x - model)) / fit.squared_norm**0.5)
    return factors, errors, rule.ridge


def test_sweeps_stop_where_the_error_stands():
    tol, fit = 1e-3, Fit(1e-3)
    _, errors, _ = plain(fit, 30)
    falls = [a - b for a, b in itertools.pairwise(errors)]
    last = 2 + next(n for n, fall in enumerate(falls) if fall < tol)
    assert 3 < last < 25
    # Nowhere near the limit, where rounding would decide.
    assert min(abs(fall - tol) for fall in falls) > 1e-6
    factors, errors, ridge = plain(fit, last)
    for _ in range(last + 3):
        fit.sweep()
    assert (fit.state.active.item(), fit.state.count.item()) == (False, last)
    assert math.isclose(fit.state.previous.item(), errors[-1], rel_tol=1e-9)
    assert fit.ridge.item() == ridge > 0
    for a, b in zip(fit.factors, factors, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    inner, model, _ = fit.log[(last - 1) % 9].tolist()
    square = (fit.squared_norm - 2 * inner + model) / fit.squared_norm
    assert math.isclose(square**0.5, errors[-1], rel_tol=1e-9)


@pytest.mark.skipif(bool(knobs.runtime.interpret), reason="needs a CUDA GPU")
def test_sweeps_in_a_graph_give_the_same_bits():
    captured, called = Fit(1e-3, torch.float32), Fit(1e-3, torch.float32)
    # What is compiled is compiled before the capture.
    Fit(1e-3, torch.float32).sweep()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.sweep()
    for _ in range(40):
        graph.replay()
        called.sweep()
    assert torch.equal(captured.log, called.log)
    for a, b in zip(captured.factors, called.factors, strict=True):
        assert torch.equal(a, b)
    assert not captured.state.active.item()
