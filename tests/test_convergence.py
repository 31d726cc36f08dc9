"""The stopping rule, the error from scalars, and the words for an end: pure functions."""

import re

import numpy as np
import pytest
import torch

from tensorfast.convergence import (
    StoppingRule,
    account,
    at_precision_limit,
    fast_relative_error,
    in_words,
    rose,
)


def judge(errors, tol, monotone=True, dtype=torch.float64, exact=True, truth=None):
    """Feed errors one after another; where asked, ``truth`` tells the exact ones."""
    rule, seen, asked = StoppingRule(tol, dtype, monotone), [], []
    for n, error in enumerate(errors):
        seen.append(error)

        def recompute(n=n):
            asked.append(n)
            return truth[n]

        status = rule.status(seen, exact, recompute)
        if status is not None:
            break
    return status, asked, seen


@pytest.mark.parametrize(
    ("errors", "tol", "monotone", "status"),
    [
        ([0.5], 1e-3, True, None),
        ([0.5, 0.4], 1e-3, True, None),
        ([0.6, 0.5, 0.4995], 1e-3, True, "converged"),
        ([0.5, 0.4995], 0, True, None),
        ([0.5, 0.5], 0, True, None),
        ([0.6, 0.5, 0.5005], 1e-3, True, "converged"),
        ([0.5, 0.6], 1e-3, False, None),
        ([0.5, 0.6], 1e-3, True, "precision_limit"),
        ([0.5, 1e-17], 1e-3, True, "precision_limit"),
        ([0.0], 1e-3, True, None),
        ([0.0, 0.0], 1e-3, True, "converged"),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_the_rule(errors, tol, monotone, status, exact):
    """Which in float64 needs no confirmation, however the error was computed."""
    # An error of 0 is never left to three scalars.
    exact = exact or 0.0 in errors
    assert judge(errors, tol, monotone, exact=exact)[:2] == (status, [])


def test_jitter_that_looks_like_an_end_is_looked_into():
    """At every alarm the residual is asked for, and compared with the one before."""
    truth = [0.010 - 2e-6 * n for n in range(6)]
    jittery = [*truth[:2], truth[1] - 1e-7, truth[3] + 3e-6, truth[4] + 1.5e-6, truth[4] + 4e-7]
    status, asked, seen = judge(jittery, 1e-6, dtype=torch.float32, exact=False, truth=truth)
    assert (status, asked) == (None, [2, 3, 4, 5])
    assert seen[2:] == truth[2:]


def test_an_end_is_confirmed_by_two_residuals():
    truth = [0.02, 0.011, 0.01, 0.01 - 1e-8, 0.01 - 2e-8]
    status, asked, _ = judge(truth, 1e-6, dtype=torch.float32, exact=False, truth=truth)
    assert (status, asked) == ("converged", [3, 4])


@pytest.mark.parametrize(("fall", "status"), [(1e-5, None), (4e-7, "converged")])
def test_two_residuals_are_compared_by_their_fall_a_sweep(fall, status):
    """However many sweeps lie between the two that looked like the last."""
    truth = [0.010 - fall * n for n in range(8)]
    jumps = [3e-5 * n for n in reversed(range(8))]
    errors = [t + j for t, j in zip(truth, jumps, strict=True)]
    # Two sweeps that look like the last.
    errors[2] = errors[1]
    errors[5] = errors[4]
    found, asked, _ = judge(
        errors, 1e-6, monotone=False, dtype=torch.float32, exact=False, truth=truth
    )
    assert (found, asked[:2]) == (status, [2, 5])


def test_what_float32_resolves_needs_no_residual():
    assert judge([0.6, 0.5, 0.5], 1e-4, dtype=torch.float32, exact=False)[:2] == ("converged", [])


def test_an_error_of_one_kind_is_not_compared_with_one_of_the_other():
    rule, errors = StoppingRule(1e-6, torch.float32), [0.00701]
    assert rule.status(errors, False, lambda: pytest.fail("nothing to compare yet")) is None
    assert rule.status([*errors, 0.0070100001], True, lambda: pytest.fail("exact")) is None


def test_the_formula_answers_only_where_it_has_digits():
    assert fast_relative_error(1.0, 0.5, 0.25, torch.float32) == pytest.approx(0.5)
    assert fast_relative_error(1.0, 1.0, 1.0, torch.float32) is None
    assert fast_relative_error(1.0, 1.0, 1.0 - 1e-9, torch.float64) is None
    assert fast_relative_error(0.0, 0.0, 4.0, torch.float64) == 2.0
    # Components that cancel take digits with them.
    assert fast_relative_error(1.0, 0.99, 0.99, torch.float32, 1.0) == pytest.approx(0.1)
    assert fast_relative_error(1.0, 0.99, 0.99, torch.float32, 1e4) is None
    assert np.isnan(fast_relative_error(1.0, float("nan"), 1.0, torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_the_limit_is_that_of_the_computing_type(dtype):
    eps = torch.finfo({torch.float16: torch.float32}.get(dtype, dtype)).eps
    assert at_precision_limit(eps, dtype)
    assert not at_precision_limit(100 * eps, dtype)
    # An exact fit is no limit.
    assert not at_precision_limit(0.0, dtype)


@pytest.mark.parametrize(
    ("status", "errors", "text"),
    [
        ("converged", [0.5, 0.4], "changed by less than tol=0.001 in the last of 2 sweeps."),
        ("max_iter", [0.5, 0.4], "2 sweeps, .*; raise n_iter_max if the error 0.4 still falls."),
        ("max_iter", [0.5], "Stopped after 1 sweep, as many"),
        ("max_iter", [0.5, 0.0], "as many as allowed; the model equals the data."),
        ("stopped", [0.5], "The callback stopped the iteration after 1 sweep."),
        ("precision_limit", [0.5, 1e-7], "1e-07 is at the rounding level .* use float64 data"),
        ("precision_limit", [0.4, 0.5], "0.5 rose by rounding: .* use float64 data"),
    ],
)
def test_the_words_for_an_end(status, errors, text):
    assert re.search(text, in_words(status, errors, 1e-3))


@pytest.mark.parametrize("status", ["converged", "precision_limit", "max_iter", "stopped"])
def test_an_account_of_an_iteration(status):
    info = account(status, [0.5, 0.25], "So it went.")
    assert (info.n_iter, info.rel_errors, info.fit) == (2, (0.5, 0.25), 0.75)
    assert (info.status, info.message) == (status, "So it went.")
    assert info.converged == (status in ("converged", "precision_limit"))


def test_one_error_alone_has_not_risen():
    assert [rose(e) for e in ([0.5], [0.5, 0.5], [0.5, 0.4], [0.4, 0.5])] == [False] * 3 + [True]
