"""Tucker: HOOI with ten sweeps, and ST-HOSVD by ranks, beside the closest that rivals offer."""

from bench import problems
from bench.measure import measure
from bench.rivals_tucker import TUCKER

PROBLEMS = problems.TUCKER
ADAPTERS = TUCKER


def test_tucker(benchmark, session, problem, lap, implementation):
    """Time one implementation, its start included."""
    measure(benchmark, session, ADAPTERS, problem, implementation, lap)
