"""A loss on the spectrum of embeddings, forward and backward, beside what plain torch offers."""

from bench import problems
from bench.measure import measure
from bench.rivals_embeddings import EMBEDDINGS, error_of

PROBLEMS = problems.EMBEDDINGS
ADAPTERS = EMBEDDINGS


def test_embeddings(benchmark, session, problem, lap, implementation):
    """Time the steps of one implementation."""
    measure(benchmark, session, ADAPTERS, problem, implementation, lap, error_of)
