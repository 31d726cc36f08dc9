"""What was found, drawn."""

from __future__ import annotations

from typing import Any

from _page import AMBER, BLUE, GREEN, ORANGE, PURPLE, open_axes, plt
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from .autoencoder import ARTICLE, BOTH, LOSS, NONE, NORM, Run
from .trainings import SWEPT, TWO, Found, means

#: Colour and marker of each way.
STYLES = {
    NONE: (BLUE, "o"),
    LOSS: (ORANGE, "s"),
    NORM: (GREEN, "^"),
    BOTH: (PURPLE, "v"),
    ARTICLE: (AMBER, "D"),
}


def draw(found: Found) -> plt.Figure:
    """Draw spectrum and error of each way, and how both depend on the weight."""
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 4.4), layout="constrained")
    title = "Embeddings of digits by a denoising autoencoder"
    figure.suptitle(title, x=0.01, ha="left")
    draw_spectra(axes[0], found.ways)
    draw_errors(axes[1], found.ways)
    draw_weights(axes[2], found)
    axes[0].legend(frameon=False, fontsize=9)
    open_axes(*axes)
    return figure


def draw_spectra(axis: Any, ways: dict[str, list[Run]]) -> None:
    """Draw the mean spectrum of each way."""
    for way, (colour, mark) in STYLES.items():
        values = means(r.values for r in ways[way.name])
        directions = range(1, len(values) + 1)
        axis.plot(directions, values, f"{mark}-", markersize=5, color=colour, label=way.name)
    axis.axhline(1 / len(values), color="0.5", linestyle=":", zorder=0)
    corner = (len(values), 1 / len(values))
    axis.annotate("all equal", corner, (0, 4), textcoords="offset points", ha="right", fontsize=8)
    axis.set_title("share of the variance", fontsize=10)
    axis.set(xlabel="direction", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_errors(axis: Any, ways: dict[str, list[Run]]) -> None:
    """Draw errors by epochs, mean and range over the seeds."""
    for way, (colour, _) in STYLES.items():
        errors = [r.errors for r in ways[way.name]]
        epochs = range(1, len(errors[0]) + 1)
        axis.semilogy(epochs, means(errors), color=colour)
        low, high = (list(map(of, zip(*errors, strict=True))) for of in (min, max))
        axis.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_title("mean squared error on validation digits", fontsize=10)
    axis.set(xlabel="epoch")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def draw_weights(axis: Any, found: Found) -> None:
    """Draw error and effective rank of each way; join those of one loss by its weights."""
    for way, (colour, mark) in STYLES.items():
        axis.plot(*centre(found.ways[way.name]), mark, markersize=7, zorder=3, color=colour)
    for name in (TWO, ARTICLE.name):
        way, weights = SWEPT[name], found.sweep[name]
        points = [centre(runs) for runs in weights.values()]
        axis.plot(*zip(*points, strict=True), ".-", color=STYLES[way][0], linewidth=0.8)
        for weight, point in zip(weights, points, strict=True):
            side = {"xytext": (5, 4)} if way is LOSS else {"xytext": (-5, -10), "ha": "right"}
            style = {"textcoords": "offset points", "fontsize": 8, "color": STYLES[way][0]}
            axis.annotate(f"{weight:g}", point, **side, **style)
    axis.set_title("error by effective rank and weight", fontsize=10)
    axis.set(xlabel="effective rank")


def centre(runs: list[Run]) -> list[float]:
    """Return mean effective rank and mean error."""
    return means([r.rank, r.error] for r in runs)
