"""What ends a sweep on the device, against the same in Python."""

import itertools
import math

import pytest
import torch
from triton import knobs

from tensorfast.convergence import fast_relative_error
from tensorfast.cp.stopping import hadamard
from tensorfast.kernels.devices import CHIPS
from tensorfast.kernels.judge import State, judge, judge_sums
from tensorfast.precision import explicit_residual_below, unit_roundoff
from tensorfast.testing import normal as drawn

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

ROUNDING = unit_roundoff(torch.float64)


def normal(*arguments):
    return drawn(*arguments).to(DEVICE)


def double(*values):
    return torch.tensor(values, dtype=torch.float64, device=DEVICE)


def state(active=True, count=0, previous=math.inf):
    return State(
        torch.tensor([active], device=DEVICE),
        torch.tensor([count], device=DEVICE),
        double(previous),
    )


def values(judged):
    """Return whether it is active, how many sweeps there were, and the last error."""
    return judged.active.item(), judged.count.item(), judged.previous.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize(("rows", "rank"), [(1, 1), (7, 5), (300, 33), (5000, 5), (40, 130)])
def test_sums(rows, rank, count, dtype):
    """In double precision: what rounding leaves of a sum of so many terms."""
    factor, mttkrp = normal((rows, rank), dtype), normal((rows, rank), dtype, 1)
    grams = [normal((rank, rank), torch.float64, 2 + n) for n in range(count)]
    log, found = double(*[math.nan] * 12).view(4, 3), state(count=6)
    judge(grams, factor, mttkrp, log, found, double(1.0, 0.0, 0.0, 0.0))
    products, h = factor.double() * mttkrp.double(), hadamard(grams)
    for terms, sum_ in zip((products, h, h.diagonal()), log[2], strict=True):
        bound = (terms.numel() + count) * ROUNDING * float(terms.abs().sum())
        assert abs(float(sum_) - float(terms.sum())) <= bound
    assert log[[0, 1, 3]].isnan().all()
    assert values(found)[1] == 7


@pytest.mark.parametrize(("error", "previous"), [(0.5, 0.9), (0.5, 0.5), (1e-9, 0.5)])
def test_sums_that_are_known_are_judged_as_those_that_are_formed(error, previous):
    limits = double(4.0, 1e-4, 1e-8, 1e-3)
    inner = (4.0 + 3.0 - 4.0 * error**2) / 2
    logs, states = double(*[0.0] * 12).view(2, 2, 3), [state(True, 3, previous) for _ in range(2)]
    judge(
        [double(3.0).view(1, 1)], double(1.0)[None], double(inner)[None], logs[0], states[0], limits
    )
    judge_sums(double(inner, 3.0, 3.0), logs[1], states[1], limits)
    assert torch.equal(*logs)
    assert values(states[0]) == values(states[1])
    assert values(states[0])[0] == (previous > error > 1e-4)


@pytest.mark.parametrize("capability", CHIPS)
def test_every_chip_and_the_same_bits_every_time(capability):
    factor, mttkrp, gram = normal((3000, 9)), normal((3000, 9)), normal((9, 9), torch.float64)
    logs = double(*[0.0] * 6).view(2, 3)
    for log in logs:
        limits = double(1.0, 0.0, 0.0, 0.0)
        judge([gram], factor, mttkrp, log[None], state(), limits, CHIPS[capability])
    assert torch.equal(*logs)
    assert abs(float(logs[0, 0]) - float((factor * mttkrp).double().sum())) < 0.1


def call(judged, error, limits, squared_norm=1.0, trace=0.0, log=None):
    """Judge a sweep with a certain error, by sums that are exact.

    Of two components: ``model`` is 2 and ``inner`` makes up the error.
    """
    log = double(0.0, 0.0, 0.0).view(1, 3) if log is None else log
    gram = double(trace / 2, 1 - trace / 2, 1 - trace / 2, trace / 2).view(2, 2)
    inner = (squared_norm + 2 - error**2 * (squared_norm or 1.0)) / 2
    factor, mttkrp = double(1.0, 0.0).view(1, 2), double(inner, 3.0).view(1, 2)
    judge([gram], factor, mttkrp, log, judged, double(squared_norm, *limits))
    return judged


QUIET = (0.0, 0.0, 0.0)


def test_sweeps_are_counted_and_logged_in_a_ring():
    log, judged = double(*[0.0] * 9).view(3, 3), state()
    for sweep, error in enumerate([0.75, 0.5, 0.25, 0.125, 0.0625]):
        call(judged, error, QUIET, log=log)
        assert values(judged) == (True, sweep + 1, error)
    inner = [(3 - error**2) / 2 for error in (0.125, 0.0625, 0.25)]
    assert torch.equal(log[:, 0], double(*inner))
    assert torch.equal(log[:, 1], double(2.0, 2.0, 2.0))


def test_counts_beyond_32_bits():
    log, judged = double(*[0.0] * 21).view(7, 3), state(count=2**40)
    call(judged, 0.5, QUIET, log=log)
    assert values(judged)[1] == 2**40 + 1
    assert log[:, 1].nonzero().flatten().tolist() == [2**40 % 7]


def test_nothing_changes_after_attention():
    """But the row of the log that does not count."""
    log, judged = double(*[0.0] * 9).view(3, 3), state(previous=0.5)
    limits = (0.0, 0.0, 1e-3)
    call(judged, 0.25, limits, log=log)
    call(judged, 0.25, limits, log=log)
    assert values(judged) == (False, 2, 0.25)
    before = log[:2].clone()
    for error in (0.125, 0.0625):
        call(judged, error, limits, log=log)
        assert values(judged) == (False, 2, 0.25)
        assert torch.equal(log[:2], before)


BELOW, FLOOR, TOL = 0.25, 0.125, 2.0**-10


@pytest.mark.parametrize(
    ("error", "previous", "limits", "options", "attention"),
    [
        # Digits are lost: at the limit, and above it; more where components cancel.
        (BELOW, 1.0, (BELOW, 0, 0), {}, True),
        (BELOW * (1 + 1e-8), 1.0, (BELOW, 0, 0), {}, False),
        (0.5, 1.0, (BELOW, 0, 0), {"trace": 4.0}, True),
        (0.5 * (1 + 1e-8), 1.0, (BELOW, 0, 0), {"trace": 4.0}, False),
        (0.5, 1.0, (BELOW, 0, 0), {"trace": 4.0, "squared_norm": 4.0}, False),
        (0.5, 1.0, (BELOW, 0, 0), {"trace": -4.0}, False),
        # Nothing below the floor, and it itself.
        (FLOOR, 1.0, (0, FLOOR, 0), {}, True),
        (FLOOR * (1 + 1e-8), 1.0, (0, FLOOR, 0), {}, False),
        # The error stands, falls by tol, falls by more.
        (0.5, 0.5, (0, 0, TOL), {}, True),
        (0.5, 0.5 + TOL, (0, 0, TOL), {}, True),
        (0.5, 0.5 + TOL * (1 + 1e-7), (0, 0, TOL), {}, True),
        (0.5, 0.5 + TOL * (1 + 1e-5), (0, 0, TOL), {}, False),
        (0.5, 0.5 + 1e-13, (0, 0, 1e-14), {}, True),
        (0.5, 0.5 + 3e-12, (0, 0, 1e-14), {}, False),
        # It rises, which counts where anything is asked of its fall.
        (0.5, 0.25, (0, 0, TOL), {}, True),
        (0.5, 0.25, (0, 0, 0), {}, False),
        (0.5, 0.5, (0, 0, 0), {}, False),
        (0.5, 0.5 - TOL / 2, (0, 0, TOL), {}, True),
        # Nothing to compare with in the first sweep.
        (0.5, math.inf, (0, 0, TOL), {}, False),
        # What is not finite.
        (math.nan, 1.0, (0, 0, 0), {}, True),
        (math.inf, 1.0, (0, 0, 0), {}, True),
        (0.5, math.nan, (0, 0, TOL), {}, True),
        # Data that are zero.
        (0.5, 1.0, (BELOW, 0, 0), {"squared_norm": 0.0}, False),
        (0.0, 1.0, (0, 0, 0), {"squared_norm": 0.0}, False),
    ],
)
def test_each_reason_alone(error, previous, limits, options, attention):
    judged = call(state(previous=previous), error, limits, **options)
    active, count, found = values(judged)
    assert (active, count) == (not attention, 1)
    if math.isfinite(error):
        assert math.isclose(found, error, rel_tol=1e-14)
    else:
        assert not math.isfinite(found)


def test_a_negative_square_is_lost_and_no_error():
    judged = state(previous=1.0)
    log, one = double(0.0, 0.0, 0.0).view(1, 3), double(1.0).view(1, 1)
    judge([one], one, 2 * one, log, judged, double(1.0, 0.0, 0.0, 0.0))
    assert values(judged) == (False, 1, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_is_lost_is_what_the_library_calls_lost(dtype):
    below = explicit_residual_below(dtype)
    sizes = (0.0, 1.0, 4.0, 100.0)
    factors = (0.5, 0.97, 1.03, 1.9, 2.1, 9.9, 10.1, 30.0)
    for squared_norm, trace, factor in itertools.product(sizes, sizes, factors):
        log = double(0.0, 0.0, 0.0).view(1, 3)
        judged = call(state(), factor * below, (below, 0, 0), squared_norm, trace, log)
        inner, model, components = log[0].tolist()
        expected = fast_relative_error(squared_norm, inner, model, dtype, components)
        active, _, error = values(judged)
        assert active == (expected is not None)
        assert expected is None or math.isclose(error, expected, rel_tol=1e-14)


def test_shapes_that_are_refused():
    gram, log = double(1.0).view(1, 1), double(*[0.0] * 6)
    for mttkrp, rows in ((double(1.0, 2.0).view(2, 1), log.view(2, 3)), (gram, log.view(3, 2))):
        with pytest.raises(ValueError, match="judge: factor"):
            judge([gram], gram, mttkrp, rows, state(), double(1.0, 0.0, 0.0, 0.0))
