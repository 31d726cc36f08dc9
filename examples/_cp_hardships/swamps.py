"""Columns that are nearly collinear: how many sweeps that takes, and what line search saves."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _page import BLUE, ORANGE, table

import tensorfast as tf
from tensorfast.testing import random_cp

from . import RANK, SHAPE, STARTS

COSINES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
#: The relative error at which a swamp is crossed.
REACHED = 1e-4


@dataclass
class Swamp:
    """How many sweeps fits took, and how well the worst found the components."""

    cosine: float
    searched: bool
    sweeps: list[int]
    score: float


def cross(cosine: float, searched: bool, most: int) -> Swamp:
    """Count sweeps down to a small error, three tensors with three starts each."""
    swamp = Swamp(cosine, searched, [], 1.0)
    for seed, start in itertools.product(range(3), range(STARTS)):
        truth = random_cp(SHAPE, RANK, congruence=cosine, seed=seed)
        model = tf.cp_als(
            tf.cp_to_tensor(truth),
            RANK,
            init="random",
            n_iter_max=most,
            tol=0,
            line_search=searched,
            seed=start,
            callback=lambda sweep, error, factors: error < REACHED,
        )
        swamp.sweeps.append(model.info.n_iter)
        swamp.score = min(swamp.score, tf.factor_match_score(model, truth))
    return swamp


def swamps(quick: bool) -> list[Swamp]:
    """Cross swamps of growing collinearity, without and with line search."""
    cosines = COSINES[:3] if quick else COSINES
    return [cross(c, searched, 10000) for c in cosines for searched in (False, True)]


def swamp_table(found: Sequence[Swamp]) -> str:
    """Return sweeps by cosine, plain and with line search."""
    rows = []
    for plain, searched in zip(found[::2], found[1::2], strict=True):
        cells = []
        for swamp in (plain, searched):
            middle = statistics.median(swamp.sweeps)
            cells.append(f"{middle:.0f} ({min(swamp.sweeps)} to {max(swamp.sweeps)})")
        gain = statistics.median(plain.sweeps) / statistics.median(searched.sweeps)
        score = min(plain.score, searched.score)
        rows.append([f"{plain.cosine:g}", *cells, f"{gain:.1f}", f"{score:.3f}"])
    head = ["cosine of columns", "sweeps", "with line_search", "fewer by", "worst match"]
    return table(head, rows)


def slope(found: Sequence[Swamp], searched: bool) -> float:
    """Return p of sweeps ~ (1 - cosine)^-p, by least squares from cosine 0.5 on."""
    chosen = [swamp for swamp in found if swamp.searched == searched and swamp.cosine >= 0.5]
    gaps = np.log([1 - swamp.cosine for swamp in chosen])
    sweeps = np.log([statistics.median(swamp.sweeps) for swamp in chosen])
    return -float(np.polyfit(gaps, sweeps, 1)[0])


def draw_swamps(axis: Any, found: Sequence[Swamp]) -> None:
    """Draw how long swamps are, plain and with line search."""
    for searched, colour, label in ((False, BLUE, "plain"), (True, ORANGE, "line_search=True")):
        chosen = [swamp for swamp in found if swamp.searched == searched]
        gaps = [1 - swamp.cosine for swamp in chosen]
        middle = [statistics.median(swamp.sweeps) for swamp in chosen]
        axis.loglog(gaps, middle, "o-", color=colour, label=label)
        limits = [[f(swamp.sweeps) for swamp in chosen] for f in (min, max)]
        axis.fill_between(gaps, *limits, color=colour, alpha=0.2, linewidth=0)
    axis.invert_xaxis()
    cosines = [swamp.cosine for swamp in found[::2]]
    axis.set_xticks([1 - c for c in cosines], [f"{c:g}" for c in cosines])
    axis.set_title(f"sweeps to a relative error of {REACHED:g}", fontsize=10)
    axis.set(xlabel="cosine between columns")
