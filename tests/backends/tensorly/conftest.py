"""What holds for the tests of the backend for TensorLy."""

import math

import pytest

from tensorfast.backends.tensorly import sharing


@pytest.fixture(autouse=True)
def _a_look_at_a_tensor_costs_nothing(monkeypatch):
    """Partial results are shared where it would not pay to look whether the tensor is the same."""
    monkeypatch.setattr(sharing, "RATE", math.inf)
