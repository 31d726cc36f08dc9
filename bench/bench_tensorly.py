"""TensorLy's functions as they come and on our backend: one tensor, one start, as many sweeps."""

from bench import problems, rivals_tensorly
from bench.measure import measure

PROBLEMS = problems.TENSORLY
ADAPTERS = rivals_tensorly.TENSORLY


def test_tensorly(benchmark, session, problem, lap, implementation):
    """Time the sweeps of one function, on one library."""
    measure(benchmark, session, ADAPTERS, problem, implementation, lap)
