"""Components that are unique, as Tucker's factors are not; and CP as a special case of Tucker."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from _page import table

import tensorfast as tf
from tensorfast.testing import planted, random_cp

from . import RANK, SHAPE


@dataclass
class Agreement:
    """How well fits from random starts agree: errors, matches, and in how many orders they come."""

    errors: list[float]
    scores: list[float]
    orders: int


def agree(starts: int = 10) -> Agreement:
    """Fit a well-posed tensor with noise from random starts, and compare every pair of models."""
    x, truth = planted(SHAPE, RANK, noise=0.05)
    models = [
        tf.cp_als(x, RANK, init="random", n_iter_max=500, tol=1e-9, seed=seed)
        for seed in range(starts)
    ]
    orders = {tuple(tf.congruence(m, truth).abs().argmax(1).tolist()) for m in models}
    scores = [tf.factor_match_score(a, b) for a, b in itertools.combinations(models, 2)]
    return Agreement([m.info.rel_errors[-1] for m in models], scores, len(orders))


@dataclass
class Turn:
    """What a rotation of the factors does to both kinds of models."""

    name: str
    tucker: float
    match: float
    cp: float


def turns() -> list[Turn]:
    """Rotate the factors of a Tucker model and its core, and those of a CP model of the tensor."""
    x, _ = planted(SHAPE, RANK, noise=0.05)
    model, components = tf.hooi(x, (RANK,) * 3), tf.cp_als(x, RANK, seed=0)
    tensor, sum_of_ranks = tf.tucker_to_tensor(model), tf.cp_to_tensor(components)

    def plane(degrees: float) -> torch.Tensor:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        block = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        return torch.block_diag(block, block)

    named = {f"{degrees} degrees": plane(degrees) for degrees in (5, 15, 30, 45)}
    # Every new column has the same part of every old one: no rotation of four is further off.
    half = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    named["Hadamard"] = torch.kron(half, half) / 2
    found = []
    for name, turn in named.items():
        factors = [u @ turn for u in model.factors]
        core = tf.multi_ttm(model.core, [turn.T] * 3)
        moved = tf.tucker_to_tensor((core, factors))
        mixed = tf.cp_to_tensor((components.weights, [f @ turn for f in components.factors]))
        matches = [
            tf.factor_match_score((None, [u]), (None, [v]))
            for u, v in zip(model.factors, factors, strict=True)
        ]
        found.append(Turn(name, apart(moved, tensor), max(matches), apart(mixed, sum_of_ranks)))
    return found


def turn_table(found: Sequence[Turn]) -> str:
    """Return what each rotation does."""
    rows = [
        [turn.name, rounding(turn.tucker), f"{turn.match:.3f}", f"{turn.cp:.3f}"] for turn in found
    ]
    head = ["factors rotated by", "Tucker: the tensor changes by", "its factors match"]
    return table([*head, "CP: the tensor changes by"], rows)


def superdiagonal() -> list[tuple[str, float, float]]:
    """Compare CP models with Tucker models of the same factors and a superdiagonal core.

    Returns the shape, the difference, and the core consistency: how near the best core for these
    factors is to the superdiagonal.
    """
    found = []
    for shape in ((20, 25, 30), (10, 12, 9, 8), (6, 7, 5, 6, 8)):
        weights, factors = random_cp(shape, RANK)
        core = torch.zeros((RANK,) * len(shape), dtype=torch.float64)
        core[(torch.arange(RANK),) * len(shape)] = weights
        x = tf.cp_to_tensor((weights, factors))
        consistency = tf.core_consistency(x, (weights, factors))
        name = " x ".join(map(str, shape))
        found.append((name, apart(tf.tucker_to_tensor((core, factors)), x), consistency))
    return found


def superdiagonal_table(found: Sequence[tuple[str, float, float]]) -> str:
    """Return the differences."""
    rows = [[name, rounding(gap), f"{consistency:.4f} %"] for name, gap, consistency in found]
    return table(["shape, 4 components", "CP and Tucker differ by", "core consistency"], rows)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return ``||a - b|| / ||b||``."""
    return float((a - b).norm() / b.norm())


def rounding(value: float) -> str:
    """Write what is rounding only as such, as its size depends on the machine."""
    return "less than 1e-14" if value < 1e-14 else f"{value:.1e}"
