"""What the cheapest exact sweep of CP-ALS costs: the yardstick for rates and share of the roof.

The best exact schedule known traverses the tensor N / (N - 1) times a sweep (Ma & Solomonik,
arXiv 2010.12056), and every traversal multiplies and adds R times an element. Every implementation
is held to this one count, however many traversals it makes. For Tucker no roof is computed: what is
timed there includes the start, and a good part of it is small factorisations.
"""

from math import prod
from typing import NamedTuple


class Cost(NamedTuple):
    """Floating-point operations and bytes of the tensor read, both a sweep."""

    flops: float
    bytes: float


def cp_sweep(problem):
    """Return the cost of one sweep of `problem`.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Cost
    """
    order = len(problem.shape)
    traversals = order / (order - 1)
    elements = prod(problem.shape)
    return Cost(2 * problem.rank * elements * traversals, problem.nbytes * traversals)


def roof_seconds(cost, gemm_gflops, bandwidth_gbs):
    """Return the time below which the measured rates of the machine do not allow `cost`.

    Parameters
    ----------
    cost : Cost
    gemm_gflops : float
        Measured rate of a large matrix product.
    bandwidth_gbs : float
        Measured memory bandwidth.

    Returns
    -------
    float
        Seconds. A tensor that stays in cache can beat it.
    """
    return max(cost.flops / (gemm_gflops * 1e9), cost.bytes / (bandwidth_gbs * 1e9))
