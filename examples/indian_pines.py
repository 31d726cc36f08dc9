"""Decompose a hyperspectral image, beside TensorLy, and draw what was found.

The image is Indian Pines, 145 x 145 pixels in 200 spectral bands: M. F. Baumgardner, L. L. Biehl
and D. A. Landgrebe, "220 Band AVIRIS Hyperspectral Image Data Set: June 12, 1992 Indian Pine Test
Site 3", Purdue University Research Repository, 2015, doi:10.4231/R7RX991C, licence CC BY 3.0. It
comes with TensorLy, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tensorly
import torch
from tensorly.datasets import load_indian_pines
from tensorly.decomposition import parafac, tucker

import tensorfast as tf

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

CREDIT = "Indian Pines: Baumgardner, Biehl and Landgrebe (2015), doi:10.4231/R7RX991C, CC BY 3.0"
NOTES = """\
Both libraries start from the same factors and run as many sweeps; beside sthosvd stands TensorLy's
truncated HOSVD. Errors are exact, by tensorfast.relative_error; times are the shorter of two.
No speed-up is given where tensorfast's error is larger by more than rounding."""
#: Wavelengths of the bands that are drawn, in nanometres: green, near and short-wave infrared.
WAVELENGTHS = (550, 850, 1650)
#: What ST-HOSVD is asked to reach.
TOLERANCES = (0.05, 0.02)
#: Sweeps of HOOI, which settles faster than CP-ALS.
HOOI_SWEEPS = 5
#: By how much two equal errors may differ: three factors and a core, each rounded to float32.
ROUNDING = 4 * 2.0**-24
COLOURS = {"CP": "#0072b2", "Tucker": "#d55e00"}


@dataclass
class Row:
    """One decomposition and its rival: the model, exact relative errors, and seconds."""

    method: str
    rank: tuple[int, ...]
    model: Any
    error: float
    seconds: float
    rival_error: float
    rival_seconds: float

    @property
    def compression(self) -> float:
        """Elements of the tensor over elements of the model."""
        first, factors = self.model
        shape = [f.shape[0] for f in factors]
        return math.prod(shape) / sum(part.numel() for part in (first, *factors))


def load(quick: bool) -> tuple[torch.Tensor, np.ndarray]:
    """Return the cube in float32, and the wavelength of each band in nanometres."""
    tensorly.set_backend("numpy")
    data = load_indian_pines()
    cube, wavelengths = data.tensor, np.asarray(data.ticks[1])
    if quick:
        cube, wavelengths = cube[::4, ::4, ::8], wavelengths[::8]
    tensorly.set_backend("pytorch")
    return torch.from_numpy(np.ascontiguousarray(cube, dtype=np.float32)), wavelengths


def race(*calls: Callable[[], Any], laps: int = 2) -> list[tuple[Any, float]]:
    """Run calls in turn; return each one's result and its shortest time."""
    results: list[Any] = [None] * len(calls)
    seconds = [math.inf] * len(calls)
    for _ in range(laps):
        for n, call in enumerate(calls):
            begin = time.perf_counter()
            results[n] = call()
            seconds[n] = min(seconds[n], time.perf_counter() - begin)
    return list(zip(results, seconds, strict=True))


def compare(
    method: str, x: torch.Tensor, ours: Callable[[], Any], theirs: Callable[[], Any]
) -> Row:
    """Time both, and measure both errors by the same exact formula."""
    (model, seconds), (rival, rival_seconds) = race(ours, theirs)
    rank = (model.rank,) if isinstance(model, tf.CPTensor) else model.rank
    errors = tf.relative_error(x, model), tf.relative_error(x, rival)
    return Row(method, rank, model, errors[0], seconds, errors[1], rival_seconds)


def compare_cp(x: torch.Tensor, rank: int, sweeps: int) -> Row:
    """Run CP-ALS and TensorLy's `parafac` for as many sweeps, from the same singular vectors."""
    start = [tf.truncated_svd(tf.unfold(x, n), rank, seed=0)[0] for n in range(x.ndim)]
    # TensorLy's tol: a negative one never stops, but has the error computed, as ours always is.
    return compare(
        "cp_als",
        x,
        lambda: tf.cp_als(x, rank, init=(None, start), n_iter_max=sweeps, tol=0),
        lambda: parafac(x, rank, init=(None, list(start)), n_iter_max=sweeps, tol=-1.0),
    )


def compare_tucker(x: torch.Tensor, tol: float) -> list[Row]:
    """Run ST-HOSVD to a tolerance, then HOOI from there; TensorLy's `tucker` at the same ranks.

    TensorLy has no ST-HOSVD. Without iterations its `tucker` is the truncated HOSVD.
    """
    start = tf.sthosvd(x, tol=tol)
    rank = list(start.rank)
    one_pass = (
        lambda: tf.sthosvd(x, tol=tol),
        lambda: tucker(x, rank, init="svd", n_iter_max=0, tol=-1.0),
    )
    iterated = (
        lambda: tf.hooi(x, rank, init=start, n_iter_max=HOOI_SWEEPS, tol=0),
        # A fresh list: TensorLy replaces the factors in the one that it is given.
        lambda: tucker(
            x, rank, init=(start.core, [*start.factors]), n_iter_max=HOOI_SWEEPS, tol=-1.0
        ),
    )
    return [compare("sthosvd", x, *one_pass), compare("hooi", x, *iterated)]


LAYOUT = "{:<8} {:<15} {:>11}   {:>9} {:>8}   {:>9} {:>8}   {:>8}"


def heading() -> str:
    """Return the first lines of the table."""
    columns = ("method", "rank", "compression", *("error", "time") * 2, "speed-up")
    return f"{'tensorfast':>56}   {'TensorLy':>18}\n{LAYOUT.format(*columns)}"


def line(row: Row) -> str:
    """Return a row of the table; no speed-up where our error is larger than the rival's."""
    cells = [row.method, " x ".join(map(str, row.rank)), f"{row.compression:.1f} x"]
    cells += [f"{row.error:.7f}", f"{row.seconds:.3f} s"]
    cells += [f"{row.rival_error:.7f}", f"{row.rival_seconds:.3f} s"]
    larger = row.error > row.rival_error + ROUNDING
    return LAYOUT.format(*cells, "-" if larger else f"{row.rival_seconds / row.seconds:.1f} x")


def draw(
    path: Path, x: torch.Tensor, wavelengths: np.ndarray, cp: Sequence[Row], tucker: Sequence[Row]
) -> None:
    """Draw three bands before and after, and error against rank and against compression."""
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9.5})
    figure = plt.figure(figsize=(11, 9.4), layout="constrained")
    title = "Indian Pines: {} x {} pixels, {} bands, three of them shown".format(*x.shape)
    figure.suptitle(title, fontsize=14, x=0.01, ha="left")
    figure.supxlabel(CREDIT, fontsize=7.5, color="0.4", x=0.99, ha="right")
    above, below = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    draw_bands(above, x, wavelengths, cp[-1], tucker[len(tucker) // 2])
    left, right = below.subplots(1, 2, sharey=True)
    series = {"CP": cp, "Tucker": tucker}
    draw_errors(left, series, lambda row: max(row.rank))
    draw_errors(right, series, lambda row: row.compression)
    left.set(xlabel="rank (Tucker: the largest of three)", ylabel="relative error")
    right.set(xlabel="compression: elements of the image over elements of the model")
    left.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_bands(figure: Any, x: torch.Tensor, wavelengths: np.ndarray, cp: Row, tucker: Row) -> None:
    """Fill a grid: a row for each band; the image, and each model with its difference."""
    bands = [int(np.abs(wavelengths - wanted).argmin()) for wanted in WAVELENGTHS]
    axes = figure.subplots(len(bands), 5)
    models = tf.cp_to_tensor(cp.model), tf.tucker_to_tensor(tucker.model)
    limit = float((x - models[0])[..., bands].abs().flatten().quantile(0.99))
    for line, band in zip(axes, bands, strict=True):
        low, high = x[..., band].flatten().quantile(torch.tensor([0.01, 0.99])).tolist()
        grey = {"cmap": "gray", "vmin": low, "vmax": high}
        line[0].imshow(x[..., band], **grey)
        line[0].set_ylabel(f"{wavelengths[band]:.0f} nm")
        for n, model in enumerate(models):
            line[2 * n + 1].imshow(model[..., band], **grey)
            difference = (x - model)[..., band]
            shown = line[2 * n + 2].imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit)
    titles = ["image"]
    for row, name in ((cp, "CP"), (tucker, "Tucker")):
        rank = " x ".join(map(str, row.rank))
        titles += [f"{name}, rank {rank}", f"image - {name}, error {row.error:.2g}"]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=axes, shrink=0.35, aspect=25, pad=0.005, extend="both")
    bar.outline.set_visible(False)


def draw_errors(
    axis: Any, series: dict[str, Sequence[Row]], across: Callable[[Row], float]
) -> None:
    """Plot the relative error of each series on logarithmic axes."""
    for name, rows in series.items():
        points = [(across(row), row.error) for row in rows]
        axis.loglog(*zip(*points, strict=True), "o-", color=COLOURS[name], label=name)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(NullLocator())
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Parse the command line, decompose, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[5, 10, 20, 40], help="ranks of CP")
    parser.add_argument("--sweeps", type=int, default=30, help="sweeps of CP-ALS")
    parser.add_argument("--output", type=Path, default=Path("indian_pines.png"), help="the picture")
    parser.add_argument("--quick", action="store_true", help="thin the image out, for a trial")
    options = parser.parse_args()
    x, wavelengths = load(options.quick)
    shape = " x ".join(map(str, x.shape))
    print(f"Indian Pines, {shape}, {x.dtype}, {torch.get_num_threads()} threads", flush=True)
    print(heading())
    cp, one_pass = [], []
    for rank in sorted(options.ranks):
        cp.append(compare_cp(x, rank, options.sweeps))
        print(line(cp[-1]), flush=True)
    for tol in TOLERANCES:
        rows = compare_tucker(x, tol)
        one_pass.append(rows[0])
        print(*(line(row) for row in rows), sep="\n", flush=True)
    draw(options.output, x, wavelengths, cp, one_pass)
    print(NOTES, CREDIT, f"picture: {options.output}", sep="\n")


if __name__ == "__main__":
    main()
