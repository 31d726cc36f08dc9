"""The stopping rule, and the error from scalars: pure functions."""

import numpy as np
import pytest
import torch

from tensorfast.convergence import StoppingRule, at_precision_limit, fast_relative_error


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
    """The residual is asked for at the alarm and a sweep later; then at every next alarm."""
    truth = [0.010 - 2e-6 * n for n in range(6)]
    jittery = [*truth[:2], truth[1] - 1e-7, truth[3] + 3e-6, truth[4] + 1.5e-6, truth[4] + 4e-7]
    status, asked, seen = judge(jittery, 1e-6, dtype=torch.float32, exact=False, truth=truth)
    assert (status, asked) == (None, [2, 3, 4, 5])
    assert seen[2:] == truth[2:]


def test_an_end_is_confirmed_by_two_residuals():
    truth = [0.02, 0.011, 0.01, 0.01 - 1e-8, 0.01 - 2e-8]
    status, asked, _ = judge(truth, 1e-6, dtype=torch.float32, exact=False, truth=truth)
    assert (status, asked) == ("converged", [3, 4])


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
