"""CP-ALS: the same tensor, start and number of sweeps for tensorfast and its rivals."""

from bench import problems, rivals
from bench.measure import measure

PROBLEMS = problems.CP
ADAPTERS = rivals.CP


def test_cp_als(benchmark, session, problem, lap, implementation):
    """Time the sweeps of one implementation."""
    measure(benchmark, session, ADAPTERS, problem, implementation, lap)
