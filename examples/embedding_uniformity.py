"""Train a denoising autoencoder with and without a loss on its embeddings' spectrum, and compare.

`autoencoder.py` beside this has the digits, the networks and the training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from autoencoder import (
    ARTICLE,
    CODE,
    CREDIT,
    LOSS,
    LOSSES,
    NONE,
    SMALL,
    WAYS,
    Plan,
    Run,
    Way,
    load,
    train_all,
)

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

NAME = "embedding_uniformity"
#: The article trained for so many epochs.
EARLY = 10
TITLES = {
    "ways": "Validation error, and what the embeddings fill: means and ranges over the seeds.",
    "answers": "What the article says, and what was found:",
    "eigenvalues": "Shares of the eigenvalues:",
    "singular-values": "Shares of the singular values:",
    "weights": "Error, largest share and effective rank by weight:",
}
#: Whose weight is swept.
TWO = "loss, k = 2"
SWEPT = {f"loss, k = {k}": Way(LOSS.name, loss=loss) for k, loss in LOSSES.items()}
SWEPT |= {TWO: LOSS, ARTICLE.name: ARTICLE}


def told(values: Iterable[float], digits: str = ".4f") -> str:
    """Return mean and range of some numbers, one a seed."""
    values = list(values)
    low, middle, high = (f"{v:{digits}}" for v in (min(values), fmean(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def means(lists: Iterable[list[float]]) -> list[float]:
    """Return the mean over seeds, place by place."""
    return [fmean(values) for values in zip(*lists, strict=True)]


def spectra(groups: dict[str, list[Run]], of: Callable[[Run], list[float]]) -> str:
    """Tell the mean spectrum of each group."""
    rows = [[name, *(f"{v:.3f}" for v in means(map(of, runs)))] for name, runs in groups.items()]
    return table(["", *(str(n + 1) for n in range(len(rows[0]) - 1))], rows)


def reached(runs: list[Run], target: float) -> str:
    """Tell the first epoch at which the mean error is down to a target."""
    found = (n for n, error in enumerate(means(r.errors for r in runs), start=1) if error <= target)
    return str(next(found, "-"))


@dataclass(frozen=True)
class Found:
    """All trainings, one a seed in each list: every way, each weight, a code of few dimensions."""

    ways: dict[str, list[Run]]
    sweep: dict[str, dict[float, list[Run]]]
    small: dict[str, list[Run]]


def tables(found: Found) -> dict[str, str]:
    """Tell what was found."""
    none = found.ways[NONE.name]
    target = fmean(r.error for r in none)
    early = min(EARLY, len(none[0].errors))
    head = ["", "error", f"after {early} epochs", "epochs to the error of no loss"]
    head += ["largest share", "effective rank", "ms an epoch"]
    rows = []
    for name, runs in found.ways.items():
        after = fmean(r.errors[early - 1] for r in runs)
        cells = [name, told(r.error for r in runs), f"{after:.4f}", reached(runs, target)]
        cells += [told((r.largest for r in runs), ".3f")]
        cells += [told((r.rank for r in runs), ".1f"), told((r.ms for r in runs), ".0f")]
        rows.append(cells)
    return {
        "ways": table(head, rows),
        "answers": answers(found),
        "eigenvalues": spectra(found.ways, lambda r: r.values),
        "singular-values": spectra(found.ways, lambda r: r.lengths),
        "weights": table(
            ["", *(f"weight {weight:g}" for weight in found.sweep[ARTICLE.name])],
            [
                [name]
                + [
                    f"{fmean(r.error for r in runs):.4f}, {fmean(r.largest for r in runs):.3f}, "
                    f"{fmean(r.rank for r in runs):.1f}"
                    for runs in weights.values()
                ]
                for name, weights in found.sweep.items()
            ],
        ),
    }


def answers(found: Found) -> str:
    """Set what the article says beside what was found."""
    none, loss, norm, *_ = found.ways.values()

    def mean(of: Callable[[Run], float], *groups: list[Run], digits: str) -> list[str]:
        return [f"{fmean(map(of, runs)):{digits}}" for runs in groups]

    errors = mean(lambda r: r.error, *found.ways.values(), digits=".4f")
    shares = mean(lambda r: r.largest, *found.ways.values(), digits=".3f")
    ranks = mean(lambda r: r.rank, *found.ways.values(), digits=".1f")
    end = fmean(r.error for r in none)
    epochs = [reached(runs, end) for runs in (none, loss, norm)]
    fewer, less = (
        100 * (fmean(map(of, loss)) / fmean(map(of, none)) - 1)
        for of in (lambda r: r.largest, lambda r: r.error)
    )
    slower = fmean(r.ms for r in loss) / fmean(r.ms for r in none)
    flat, steep = (
        ", ".join(f"{v:.3f}" for v in means(r.lengths for r in found.small[way.name]))
        for way in (LOSS, NONE)
    )
    told = [
        (
            "with the loss the spectrum is flat",
            f"largest share {shares[0]} without, {shares[1]} with it ({fewer:+.0f} %), at an error "
            f"of {errors[0]} and {errors[1]} ({less:+.0f} %); effective rank {ranks[0]} and "
            f"{ranks[1]} of {CODE}",
        ),
        (
            "singular values of a code of four dimensions: 0.260, 0.253, 0.245, 0.243 with the "
            "loss, 0.479, 0.277, 0.165, 0.079 without",
            f"{flat} with, {steep} without",
        ),
        (
            "training is slightly faster than without",
            f"the error that no loss reaches in {epochs[0]} epochs is reached in {epochs[1]}; an "
            f"epoch takes {slower:.2f} times as long",
        ),
        (
            "BatchNorm flattens the spectrum too",
            f"largest share {shares[2]}, effective rank {ranks[2]}",
        ),
        (
            "it trains faster and better, and the loss does not beat it",
            f"error {errors[2]}, against {errors[1]} by the loss; that of no loss is reached in "
            f"{epochs[2]} epochs",
        ),
        (
            "(both together were not tried)",
            f"error {errors[3]}, largest share {shares[3]}, effective rank {ranks[3]}",
        ),
        (
            "its code has singular values, not eigenvalues",
            f"error {errors[4]}, largest share {shares[4]}, effective rank {ranks[4]}",
        ),
    ]
    return table(["the article", "here"], told)


def between(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers ``<!-- name:start -->`` and ``<!-- name:end -->``."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, rest = text.split(start)
    return f"{before}{start}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def draw(path: Path, found: Found) -> None:
    """Draw spectrum and error of each way, and how both depend on the weight."""
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10})
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    title = "Embeddings of digits by a denoising autoencoder"
    figure.suptitle(title, fontsize=14, x=0.01, ha="left")
    figure.supxlabel(CREDIT, fontsize=7.5, color="0.4", x=0.99, ha="right")
    left, middle, right = figure.subplots(1, 3)
    for way in WAYS:
        runs = found.ways[way.name]
        style = {"color": way.colour, "label": way.name}
        values = means(r.values for r in runs)
        left.plot(range(1, len(values) + 1), values, way.marker + "-", markersize=5, **style)
        errors = [r.errors for r in runs]
        epochs = range(1, len(errors[0]) + 1)
        middle.semilogy(epochs, means(errors), **style)
        low, high = (list(map(of, zip(*errors, strict=True))) for of in (min, max))
        middle.fill_between(epochs, low, high, color=way.colour, alpha=0.15, linewidth=0)
        right.plot(*centre(runs), way.marker, markersize=7, zorder=3, **style)
    draw_sweep(right, found.sweep)
    left.axhline(1 / len(values), color="0.5", linestyle=":", zorder=0)
    left.annotate(
        "all equal", (len(values), 1 / len(values)), (0, 4), textcoords="offset points", ha="right"
    )
    left.set(title="spectrum", xlabel="direction", ylabel="share of the variance", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False)
    middle.set(title="error on validation digits", xlabel="epoch", ylabel="mean squared error")
    middle.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    middle.yaxis.set_major_formatter("{x:g}")
    middle.yaxis.set_minor_locator(NullLocator())
    right.set(
        title="error and rank, by weight", xlabel="effective rank", ylabel="mean squared error"
    )
    for axis in (left, middle, right):
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def centre(runs: Sequence[Run]) -> tuple[float, float]:
    """Return mean effective rank and mean error."""
    return fmean(r.rank for r in runs), fmean(r.error for r in runs)


def draw_sweep(axis: Any, sweep: dict[str, dict[float, list[Run]]]) -> None:
    """Join the points of one loss by its weights, and name them."""
    for name in (TWO, ARTICLE.name):
        way, weights = SWEPT[name], sweep[name]
        points = [centre(runs) for runs in weights.values()]
        axis.plot(*zip(*points, strict=True), ".-", color=way.colour, linewidth=0.8)
        for weight, point in zip(weights, points, strict=True):
            side = {"xytext": (5, 4)} if way is LOSS else {"xytext": (-5, -10), "ha": "right"}
            style = {"textcoords": "offset points", "fontsize": 7.5, "color": way.colour}
            axis.annotate(f"{weight:g}", point, **side, **style)


def run(options: argparse.Namespace) -> Found:
    """Train once for each plan, seed by seed, so that a slow minute falls on all ways."""

    def plan(way: Way, weight: float = options.weight, code: int = CODE) -> list[Plan]:
        weight = weight if way.loss else 0
        seeds = range(options.seeds)
        return [Plan(way, n, weight, options.epochs, code, options.quick) for n in seeds]

    ways = {way.name: plan(way) for way in WAYS}
    weights = sorted({*options.weights, options.weight})
    sweep = {name: {w: plan(way, w) for w in weights} for name, way in SWEPT.items()}
    small = {way.name: plan(way, code=SMALL) for way in (NONE, LOSS)}
    plans = [*ways.values(), *(p for own in sweep.values() for p in own.values()), *small.values()]
    order = list(dict.fromkeys(p for of_a_seed in zip(*plans, strict=True) for p in of_a_seed))
    done: dict[Plan, Run] = {}
    for number, run in enumerate(train_all(order, options.jobs), start=1):
        done[order[number - 1]] = run
        if number % (len(order) // options.seeds) == 0:
            print(f"{number} of {len(order)} trainings", flush=True)

    def runs(plans: list[Plan]) -> list[Run]:
        return [done[plan] for plan in plans]

    return Found(
        {name: runs(own) for name, own in ways.items()},
        {name: {w: runs(own) for w, own in swept.items()} for name, swept in sweep.items()},
        {name: runs(own) for name, own in small.items()},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(NAME), help="folder for what is found")
    parser.add_argument("--page", type=Path, help="a page whose tables and picture are replaced")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--weight", type=float, default=0.003, help="of the loss, where compared")
    default = [0.001, 0.003, 0.01, 0.03]
    parser.add_argument("--weights", type=float, nargs="*", default=default, help="to be swept")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="few digits and epochs, for a trial")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs = min(options.epochs, 25)
    sizes = "{} digits to train on, {} to validate with".format(*map(len, load(options.quick)))
    print(f"{sizes}; {options.epochs} epochs, {options.seeds} seeds", flush=True)
    found = run(options)
    told = tables(found)
    text = "\n\n".join(f"{TITLES[name]}\n\n{content}" for name, content in told.items())
    print(f"\n{text}\n")
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.md").write_text(f"{text}\n\n{CREDIT}\n", encoding="utf-8")
    draw(folder / f"{NAME}.png", found)
    if options.page:
        page = options.page.read_text(encoding="utf-8")
        for name, content in told.items():
            page = between(page, name, content)
        options.page.write_text(page, encoding="utf-8")
        draw(options.page.parent / "images" / f"{NAME}.png", found)
    print(CREDIT, f"tables and picture: {folder}", sep="\n")


if __name__ == "__main__":
    main()
