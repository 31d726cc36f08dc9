"""The contractions behind a run: every order of axes, every run, every leaf."""

import itertools
import math

import pytest
import torch

from tensorfast import reference
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.tree import contraction_tree
from tensorfast.precision import solve_dtype
from tensorfast.testing import assert_close, random_cp

SHAPE = (3, 2, 4, 5)


def problem(ndim: int, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE[:ndim], generator=g, dtype=dtype)
    return x, random_cp(SHAPE[:ndim], 3, dtype=dtype)[1]


def runs(ndim: int) -> list[tuple[int, ...]]:
    """Stretches of the cyclic order, short of all modes."""
    twice = list(range(ndim)) * 2
    return [
        tuple(twice[start : start + length]) for length in range(1, ndim) for start in range(ndim)
    ]


def check(x: torch.Tensor, factors: list[torch.Tensor], axes, run) -> None:
    tree = contraction_tree(axes, run, x.shape)
    data = x.permute(axes).contiguous()
    exact, wide = x.to(solve_dtype(x.dtype)), [f.to(solve_dtype(x.dtype)) for f in factors]
    found = []
    for mode, product in tree.mttkrps(tree.from_data(data, factors), factors):
        others = [f for n, f in enumerate(wide) if n != mode]
        expected = reference.mttkrp(exact, others, mode)
        scale = reference.mttkrp(exact.abs(), [f.abs() for f in others], mode)
        assert_close(product, expected, scale, x.numel() // x.shape[mode])
        found.append(mode)
    assert tuple(found) == run


@pytest.mark.parametrize("run", runs(4), ids=lambda run: "".join(map(str, run)))
def test_every_leaf_is_the_mttkrp_whatever_the_memory_order(run):
    x, factors = problem(4, torch.float64)
    for axes in itertools.permutations(range(4)):
        check(x, factors, axes, run)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_leaves_of_lower_orders_and_other_types(ndim, dtype):
    x, factors = problem(ndim, dtype)
    for axes in itertools.permutations(range(ndim)):
        for run in runs(ndim):
            check(x, factors, axes, run)


def test_a_new_factor_counts_from_the_next_leaf_on():
    x, factors = problem(4, torch.float64)
    factors = list(factors)
    tree = contraction_tree(range(4), (1, 2, 3), x.shape)
    for mode, product in tree.mttkrps(tree.from_data(x, factors), factors):
        others = [f for n, f in enumerate(factors) if n != mode]
        torch.testing.assert_close(product, reference.mttkrp(x, others, mode))
        factors[mode] = factors[mode] + 1.0


def test_runs_that_overlap_do_not_share_memory():
    """Partial results lie in memory that is used again; an MTTKRP stays what it was."""
    x, factors = problem(4, torch.float64)
    operand, found = DenseOperand(x), []
    for run in runs(4):
        first, second = operand.mttkrps(run, factors), operand.mttkrps(run, factors)
        for pair in zip(first, second, strict=True):
            found.extend(pair)
    for mode, product in found:
        others = [f for n, f in enumerate(factors) if n != mode]
        torch.testing.assert_close(product, reference.mttkrp(x, others, mode))


@pytest.mark.parametrize("run", runs(4), ids=lambda run: "".join(map(str, run)))
def test_long_contractions_go_first(run):
    """Whatever is contracted early makes what follows smaller."""
    for axes in itertools.permutations(range(4)):
        node = contraction_tree(axes, run, SHAPE)
        taken = [math.prod(SHAPE[m] for m in c.modes) for c in node.contractions]
        assert taken == sorted(taken, reverse=True)
        gone = {m for c in node.contractions for m in c.modes}
        assert gone == set(range(4)) - set(run)
