"""Components one by one, each fitted to what the others have left, and all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorly
import torch
from _page import BLUE, GREEN, ORANGE, table
from tensorly.datasets import load_indian_pines

import tensorfast as tf
from tensorfast.testing import random_cp

from . import SHAPE, STARTS

#: A fit with a smaller error counts as exact.
EXACT = 1e-6


@dataclass
class Fits:
    """Errors of a tensor's fits at rank 1, 2, ...: by deflation, and of all components together."""

    name: str
    greedy: list[float]
    joint: list[float]
    kept: list[float]

    @property
    def factors(self) -> list[float]:
        """Error one by one over error together, as long as the latter is not all rounding."""
        pairs = zip(self.greedy, self.joint, strict=True)
        return [greedy / joint for greedy, joint in pairs if joint > EXACT]


def best_of(x: torch.Tensor, rank: int) -> Any:
    """Return the best of a few fits, from singular vectors and from random starts."""
    starts = ("svd", *["random"] * (STARTS - 1))
    models = [
        tf.cp_als(x, rank, init=init, n_iter_max=500, tol=1e-7, line_search=True, seed=seed)
        for seed, init in enumerate(starts)
    ]
    return min(models, key=lambda model: model.info.rel_errors[-1])


def deflate(name: str, x: torch.Tensor, ranks: int) -> Fits:
    """Fit one component to what the ones before have left, again and again; and all at once."""
    fits = Fits(name, [], [], [])
    rest, first = x, best_of(x, 1)
    for rank in range(1, ranks + 1):
        rest = rest - tf.cp_to_tensor(best_of(rest, 1))
        model = best_of(x, rank)
        fits.greedy.append(float(rest.norm() / x.norm()))
        fits.joint.append(tf.relative_error(x, model))
        fits.kept.append(float(tf.congruence(first, model).abs().max()))
    return fits


def deflations(quick: bool) -> list[Fits]:
    """Deflate a tensor of collinear components, a hyperspectral image, and that as a matrix."""
    tensorly.set_backend("numpy")
    step = 6 if quick else 3
    cube = np.ascontiguousarray(load_indian_pines().tensor[::step, ::step, ::4], dtype=np.float64)
    pines, ranks = torch.from_numpy(cube), 4 if quick else 8
    made = tf.cp_to_tensor(random_cp(SHAPE, 5, congruence=0.5))
    return [
        deflate("made, cosines 0.5", made, 5),
        deflate("Indian Pines", pines, ranks),
        deflate("the same as a matrix", tf.unfold(pines, 2), ranks),
    ]


def deflation_table(found: Sequence[Fits]) -> str:
    """Return errors one by one and together, and the factor between them."""
    rows = []
    for fits in found:
        for n, (greedy, joint, kept) in enumerate(
            zip(fits.greedy, fits.joint, fits.kept, strict=True)
        ):
            # The components of a matrix are not unique, so that nothing is said by their angle.
            angle = "-" if "matrix" in fits.name else f"{kept:.3f}"
            factor = f"{greedy / joint:.3f}" if joint > EXACT else "together exact"
            cells = [f"{greedy:.4f}", f"{joint:.4f}", factor, angle]
            rows.append([fits.name, str(n + 1), *cells])
    head = ["tensor", "components", "one by one", "together", "factor", "best first one, kept"]
    return table(head, rows)


def draw_deflation(axis: Any, found: Sequence[Fits]) -> None:
    """Draw what deflation costs."""
    for fits, colour, mark in zip(found, (ORANGE, BLUE, GREEN), "osd", strict=True):
        numbers = range(1, len(fits.factors) + 1)
        axis.plot(numbers, fits.factors, f"{mark}-", color=colour, label=fits.name)
    axis.set_title("error, one by one over together", fontsize=10)
    axis.set(xlabel="components", yscale="log")
    ticks = (1, 1.1, 1.2, 1.4, 1.6, 1.8)
    axis.set_yticks(ticks, [str(n) for n in ticks])
