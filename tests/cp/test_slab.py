"""The one-pass schedule: plain ALS, read by read."""

import itertools
import math

import pytest
import torch

from tensorfast import baseline, reference
from tensorfast.cp.slab import slab_pass
from tensorfast.cp.stopping import hadamard
from tensorfast.cp.update import LeastSquares
from tensorfast.testing import planted, random_cp


def solver(factors, mode):
    """Least squares of one mode, row by row, for the current factors of the others."""
    grams = [baseline.gram_of_columns(f) for n, f in enumerate(factors) if n != mode]
    update = LeastSquares()
    return lambda product, current: update(hadamard(grams), product, current)


def plain_als(x, factors, updates):
    factors = list(factors)
    for mode in updates:
        others = [f for n, f in enumerate(factors) if n != mode]
        product = reference.mttkrp(x, others, mode)
        factors[mode] = solver(factors, mode)(product, factors[mode])
    return factors


def by_passes(x, factors, passes, elements):
    """Run passes of two modes each; the second is updated from the pass's partial result."""
    factors = list(factors)
    for mode, other in passes:
        found = slab_pass(x, factors, mode, [other], solver(factors, mode), elements)
        factors[mode] = found.factor
        factors[other] = solver(factors, other)(found.partial, factors[other])
    return factors


@pytest.mark.parametrize("elements", [1, 100, 10**6])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_three_reads_make_two_sweeps_of_plain_als(order, elements):
    x, (_, start) = planted((9, 7, 8), 4, noise=0.1, dtype=torch.float64)
    x = x.permute(order).contiguous().permute(sorted(range(3), key=order.__getitem__))
    plain = plain_als(x, start, [0, 1, 2] * 10)
    passed = by_passes(x, start, [(0, 1), (2, 0), (1, 2)] * 5, elements)
    for a, b in zip(passed, plain, strict=True):
        assert torch.linalg.norm(a - b) <= 1e-12 * torch.linalg.norm(b)


@pytest.mark.parametrize("group", [(1,), (2,), (1, 2), (1, 3), (3, 1)], ids=str)
def test_the_partial_result_stands_on_the_new_factor(group):
    x = torch.randn(5, 4, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factors = random_cp(x.shape, 3, dtype=torch.float64)[1]
    found = slab_pass(x, factors, 0, group, solver(factors, 0), elements=80)
    torch.testing.assert_close(found.mttkrp, reference.mttkrp(x, factors[1:], 0))
    torch.testing.assert_close(found.factor, solver(factors, 0)(found.mttkrp, factors[0]))
    given = {n: f for n, f in enumerate([found.factor, *factors[1:]]) if n not in group}
    letters = "abcd"
    terms = ",".join([letters, *(letters[n] + "r" for n in given)])
    kept = "".join(letters[n] for n in sorted(group))
    expected = torch.einsum(f"{terms}->{kept}r", x, *given.values())
    torch.testing.assert_close(found.partial, expected)
    assert found.partial.numel() == 3 * math.prod(x.shape[n] for n in group)
