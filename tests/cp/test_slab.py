"""The one-pass schedule: plain ALS, read by read."""

import itertools

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


def laid(x, order):
    """Return ``x`` with its modes in memory in the order ``order``."""
    return x.permute(order).contiguous().permute(sorted(range(x.ndim), key=order.__getitem__))


@pytest.mark.parametrize("elements", [1, 1000, 10**6])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_three_reads_make_two_sweeps_of_plain_als(order, elements):
    x, (_, start) = planted((19, 17, 18), 4, noise=0.1, dtype=torch.float64)
    plain = plain_als(x, start, [0, 1, 2] * 10)
    passed = by_passes(laid(x, order), start, [(0, 1), (2, 0), (1, 2)] * 5, elements)
    for a, b in zip(passed, plain, strict=True):
        assert torch.linalg.norm(a - b) <= 1e-12 * torch.linalg.norm(b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("group", [(1,), (2,), (1, 2), (1, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_the_partial_result_stands_on_the_new_factor(order, group, dtype):
    x = torch.randn(9, 4, 3, 6, dtype=dtype, generator=torch.Generator().manual_seed(0))
    factors = random_cp(x.shape, 3, dtype=dtype)[1]
    solve = solver(factors, 0)
    found = slab_pass(laid(x, order), factors, 0, group, solve, elements=144)
    torch.testing.assert_close(found.mttkrp, reference.mttkrp(x, factors[1:], 0))
    torch.testing.assert_close(found.factor, solve(found.mttkrp, factors[0]))
    given = {n: f.conj() for n, f in enumerate([found.factor, *factors[1:]]) if n not in group}
    letters = "abcd"
    terms = ",".join([letters, *(letters[n] + "r" for n in given)])
    kept = "".join(letters[n] for n in order if n in group)
    expected = torch.einsum(f"{terms}->{kept}r", x, *given.values())
    torch.testing.assert_close(found.partial, expected)


@pytest.mark.parametrize("mode", range(3))
def test_half_precision_and_strided_slices_are_lifted(mode):
    x = torch.randn(14, 12, 10, generator=torch.Generator().manual_seed(0)).half()[::2, :, 1::2]
    factors = random_cp(x.shape, 3, dtype=torch.float32)[1]
    other, last = (n for n in range(3) if n != mode)
    found = slab_pass(x, factors, mode, [other], solver(factors, mode), elements=100)
    others = [f for n, f in enumerate(factors) if n != mode]
    torch.testing.assert_close(found.mttkrp, reference.mttkrp(x.float(), others, mode))
    new = {mode: found.factor, last: factors[last]}
    expected = reference.mttkrp(x.float(), [new[n] for n in sorted(new)], other)
    torch.testing.assert_close(found.partial, expected)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ([], "group is empty; expected at least one mode"),
        ([0], r"mode 0 and group \(0,\) for x with 3 modes; expected different modes of x"),
        ([1, 1], r"mode 0 and group \(1, 1\) for x with 3 modes; expected different modes of x"),
        ([3], r"mode 0 and group \(3,\) for x with 3 modes; expected different modes of x"),
        ([-1], r"mode 0 and group \(-1,\) for x with 3 modes; expected different modes of x"),
        ([0, 1], r"mode 0 and group \(0, 1\) for x with 3 modes; expected different modes of x"),
        ([1, 2], r"mode 0 and group \(1, 2\) are all 3 modes of x; expected at least one besides"),
    ],
)
def test_modes_that_make_no_pass_are_refused(group, message):
    factors = [torch.ones(3, 2)] * 3
    with pytest.raises(ValueError, match=f"slab_pass: {message}"):
        slab_pass(torch.ones(3, 3, 3), factors, 0, group, lambda product, old: product)
