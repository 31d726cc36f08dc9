"""Suggested ranks: those that were planted, and those that are asked for."""

import math

import pytest
import torch
from torch import nn

from tensorfast.nn import suggest_rank
from tensorfast.testing import normal


@pytest.mark.parametrize(
    ("shape", "rank", "noise"),
    [((40, 50), 3, 0.1), ((100, 400), 10, 0.5), ((200, 200), 20, 0.3), ((300, 20), 5, 0.2)],
)
def test_noise_is_told_from_what_was_planted(shape, rank, noise):
    rows, columns = shape
    x = normal((rows, rank)) @ normal((rank, columns), seed=1) + noise * normal(shape, seed=2)
    assert suggest_rank(x) == rank
    assert suggest_rank(1e-6 * x) == rank
    assert suggest_rank(x.T) == rank


def test_all_noise_and_no_noise():
    assert suggest_rank(normal((64, 576))) == 1
    exact = normal((30, 4), dtype=torch.float64) @ normal((4, 40), dtype=torch.float64, seed=1)
    assert suggest_rank(exact) == 4
    assert suggest_rank(torch.zeros(5, 6)) == 1
    assert suggest_rank(torch.ones(1, 1)) == 1


def test_a_kernel_has_two_ranks():
    core = normal((6, 3, 9))
    x = torch.einsum("abk,oa,ib->oik", core, normal((40, 6), seed=1), normal((30, 3), seed=2))
    kernel = (x + 0.1 * normal(x.shape, seed=3)).unflatten(2, (3, 3))
    assert suggest_rank(kernel) == (6, 3)
    assert suggest_rank(kernel.half()) == (6, 3)


@pytest.mark.parametrize("energy", [0.1, 0.5, 0.9, 0.99, 1.0])
def test_energy_is_held_by_that_many_and_not_by_fewer(energy):
    x = normal((20, 30), dtype=torch.float64)
    rank = suggest_rank(x, method="energy", energy=energy)
    squares = torch.linalg.svdvals(x).square()
    assert squares[:rank].sum() >= energy * squares.sum() * (1 - 1e-9)
    assert squares[: rank - 1].sum() < energy * squares.sum()


@pytest.mark.parametrize("budget", [0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(64, 32), (64, 32, 3, 3), (16, 128, 5), (8, 8, 3, 3, 3)])
def test_a_budget_is_kept_and_spent(shape, budget):
    rank = suggest_rank(torch.ones(shape), method="budget", budget=budget)
    outputs, inputs, taps = shape[0], shape[1], math.prod(shape[2:])

    def parameters(first, second):
        if len(shape) == 2:
            return first * (outputs + inputs)
        return outputs * first + first * second * taps + second * inputs

    pair = (rank, rank) if len(shape) == 2 else rank
    allowed = budget * math.prod(shape)
    assert parameters(*pair) <= allowed or pair == (1, 1)
    more = [min(size, value + 1 + size // 32) for size, value in zip(shape, pair, strict=False)]
    assert parameters(*more) > allowed or list(pair) == more


def test_modules_are_taken():
    conv = nn.Conv2d(8, 16, 3)
    assert suggest_rank(conv) == suggest_rank(conv.weight)


@pytest.mark.parametrize(
    ("weight", "options", "error", "message"),
    [
        (torch.ones(3), {}, ValueError, "two modes|at least 2"),
        (torch.ones(0, 3), {}, ValueError, "empty|expected"),
        (torch.full((3, 3), math.nan), {}, ValueError, "NaN|finite"),
        ("weight", {}, TypeError, "expected a tensor or a module"),
        (torch.ones(3, 3), {"method": "best"}, ValueError, "method is 'best'"),
        (torch.ones(3, 3), {"method": "energy", "energy": 0}, ValueError, "energy is 0"),
        (torch.ones(3, 3), {"method": "budget", "budget": 2}, ValueError, "budget is 2"),
    ],
)
def test_what_is_refused(weight, options, error, message):
    with pytest.raises(error, match=message):
        suggest_rank(weight, **options)
