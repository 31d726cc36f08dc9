"""The stopping rule, and the error from scalars: pure functions."""

import numpy as np
import pytest
import torch

from tensorfast.convergence import StoppingRule, at_precision_limit, fast_relative_error


@pytest.mark.parametrize(
    ("errors", "tol", "monotone", "status"),
    [
        ([0.5], 1e-3, True, None),
        ([0.5, 0.4], 1e-3, True, None),
        ([0.5, 0.4995], 1e-3, True, "converged"),
        ([0.5, 0.4995], 0, True, None),
        ([0.5, 0.5], 0, True, None),
        ([0.5, 0.5005], 1e-3, True, "converged"),
        ([0.5, 0.6], 1e-3, False, None),
        ([0.5, 1e-17], 1e-3, True, "precision_limit"),
        ([0.0], 1e-3, True, None),
        ([0.0, 0.0], 1e-3, True, "converged"),
    ],
)
def test_the_rule(errors, tol, monotone, status):
    assert StoppingRule(tol, torch.float64, monotone).status(errors) == status


def test_the_formula_answers_only_where_it_has_digits():
    assert fast_relative_error(1.0, 0.5, 0.25, torch.float32) == pytest.approx(0.5)
    assert fast_relative_error(1.0, 1.0, 1.0, torch.float32) is None
    assert fast_relative_error(1.0, 1.0, 1.0 - 1e-9, torch.float64) is None
    assert fast_relative_error(0.0, 0.0, 4.0, torch.float64) == 2.0
    assert np.isnan(fast_relative_error(1.0, float("nan"), 1.0, torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_the_limit_is_that_of_the_computing_type(dtype):
    eps = torch.finfo({torch.float16: torch.float32}.get(dtype, dtype)).eps
    assert at_precision_limit(eps, dtype)
    assert not at_precision_limit(100 * eps, dtype)
    # An exact fit is no limit.
    assert not at_precision_limit(0.0, dtype)
