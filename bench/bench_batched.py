"""CP-ALS and HOOI of many small tensors at once, beside a loop over them."""

from bench import problems
from bench.measure import measure
from bench.rivals_batched import BATCHED, error_of

PROBLEMS = problems.BATCHED
ADAPTERS = BATCHED


def test_batched(benchmark, session, problem, lap, implementation):
    """Time the sweeps of one implementation."""
    measure(benchmark, session, ADAPTERS, problem, implementation, lap, error_of)
