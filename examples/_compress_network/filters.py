"""A hand-made bank of edge filters, applied to a photograph at every rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from _page import ORANGE, SKY, open_axes, plt, table
from torch import Tensor, nn

from tensorfast.nn import conv_report, decompose_conv

RANKS = (1, 2, 3, 4, 5)
METHODS = {"cp": "CP", "tucker2": "Tucker-2"}
#: What the filters look at: brightness, red against green, blue against yellow.
COLOURS = ((0.3, 0.6, 0.1), (1.0, -1.0, 0.0), (-0.5, -0.5, 1.0))
SIZE = 5


@dataclass(frozen=True)
class Filtered:
    """What a decomposed bank makes of a photograph.

    Attributes
    ----------
    method : str
    rank : int
    maps : Tensor, [filters, height, width]
    weight_error, error : float
        Relative, of the weights and of the maps.
    least, most, spread : float
        Of the maps; spread is their standard deviation over that of the original's.
    """

    method: str
    rank: int
    maps: Tensor
    weight_error: float
    error: float
    least: float
    most: float
    spread: float


def bank() -> nn.Conv2d:
    """Return edges in four directions, a ridge, a spot and a blur, of brightness and of colours."""
    at = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    bell = torch.exp(-(x**2 + y**2) / 2)
    shapes = []
    for degrees in (0, 45, 90, 135):
        angle = math.radians(degrees)
        shapes.append((x * math.cos(angle) + y * math.sin(angle)) * bell)
    shapes += [(x**2 - 1) * bell, (x**2 + y**2 - 2) * bell, bell]
    looks = [0, 0, 0, 0, 1, 2, 0]
    kernel = torch.stack(
        [
            torch.tensor(COLOURS[look])[:, None, None] * shape / shape.abs().sum()
            for shape, look in zip(shapes, looks, strict=True)
        ]
    )
    conv = nn.Conv2d(3, len(kernel), SIZE, bias=False)
    conv.weight.data = kernel.float()
    return conv.requires_grad_(False)


def filtered(rgb: np.ndarray, ranks: Sequence[int] = RANKS) -> tuple[Tensor, list[Filtered]]:
    """Return the maps of a photograph, and those of the bank decomposed."""
    conv = bank()
    x = torch.from_numpy(rgb / 255).permute(2, 0, 1)[None].float()
    exact = conv(x)[0]
    found = []
    for method in METHODS:
        for rank in ranks:
            options = {"seed": 0, "n_iter_max": 2000, "tol": 1e-9}
            given = rank if method == "cp" else (rank, min(rank, 3))
            small = decompose_conv(conv, given, method=method, **options)
            (layer,) = conv_report(conv, small, x).layers
            after = layer.ranges[1]
            spread = after.std / layer.ranges[0].std
            errors = layer.weight_error, layer.feature_error
            maps = small(x)[0]
            found.append(Filtered(method, rank, maps, *errors, after.min, after.max, spread))
    return exact, found


def filters_table(exact: Tensor, found: Sequence[Filtered]) -> str:
    """Return errors and ranges as a Markdown table."""
    header = ["rank", "", "weight error", "map error", "mean square", "least", "most", "spread"]
    rows = [
        [
            str(one.rank),
            METHODS[one.method],
            f"{one.weight_error:.3f}",
            f"{one.error:.3f}",
            f"{(one.maps - exact).square().mean():.2e}",
            f"{one.least:.2f}",
            f"{one.most:.2f}",
            f"{one.spread:.2f}",
        ]
        for one in found
    ]
    own = ["-", "the filters", "", "", "", f"{exact.min():.2f}", f"{exact.max():.2f}", "1.00"]
    return table(header, [own, *rows])


def draw_filters(exact: Tensor, found: Sequence[Filtered], which: int = 1) -> plt.Figure:
    """Draw the map of one filter, by the bank and at every rank."""
    ranks = sorted({one.rank for one in found})
    figure, axes = plt.subplots(
        2, len(ranks) + 1, figsize=(2.2 * (len(ranks) + 1), 3.6), layout="constrained"
    )
    limit = float(exact[which].abs().max())
    for row, method in enumerate(METHODS):
        pictures = {"exact": exact[which]}
        pictures |= {f"rank {o.rank}": o.maps[which] for o in found if o.method == method}
        for axis, (title, picture) in zip(axes[row], pictures.items(), strict=True):
            axis.imshow(picture, cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[], title=title if row == 0 else "")
        axes[row, 0].set_ylabel(METHODS[method])
    return figure


def draw_spread(found: Sequence[Filtered]) -> plt.Figure:
    """Draw errors and spread against the rank."""
    figure, (errors, spread) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for method, colour in zip(METHODS, (ORANGE, SKY), strict=True):
        own = [one for one in found if one.method == method]
        ranks = [one.rank for one in own]
        errors.plot(ranks, [o.error for o in own], "o-", color=colour, label=METHODS[method])
        spread.plot(ranks, [o.spread for o in own], "o-", color=colour)
    errors.set(xlabel="rank", ylabel="relative error of the maps", xticks=ranks)
    spread.set(xlabel="rank", ylabel="spread, of the original's", xticks=ranks)
    errors.legend(frameon=False)
    open_axes(errors, spread)
    return figure
