"""Train a denoising autoencoder with and without a loss on its embeddings' spectrum, and compare.

The digits are those of scikit-learn, 1797 of 8 x 8 pixels: E. Alpaydin and C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998, doi:10.24432/C50P49,
licence CC BY 4.0. They come with scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import fmean

from _embedding_uniformity.autoencoder import CODE, LOSS, NONE, Run, load
from _embedding_uniformity.drawing import draw
from _embedding_uniformity.tables import reached, tables
from _embedding_uniformity.trainings import Found, compare, means, write
from _page import Page, table

CREDIT = "Digits: Alpaydin and Kaynak (1998), doi:10.24432/C50P49, CC BY 4.0"
TITLES = {
    "ways": "Validation error, and what the embeddings fill: means and ranges over the seeds.",
    "eigenvalues": "Shares of the eigenvalues:",
    "singular-values": "Shares of the singular values:",
    "weights": "Error, largest share and effective rank by weight:",
    "answers": "What the article says, and what was found:",
}


def answers(found: Found) -> str:
    """Set what the article says beside what was found."""
    none, loss, norm, *_ = found.ways.values()

    def mean(of: Callable[[Run], float], digits: str) -> list[str]:
        return [f"{fmean(map(of, runs)):{digits}}" for runs in found.ways.values()]

    errors = mean(lambda r: r.error, ".4f")
    shares = mean(lambda r: r.largest, ".3f")
    ranks = mean(lambda r: r.rank, ".1f")
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
    said = [
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
            f"epoch takes {slower:.2f}x as long",
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
    return table(["the article", "here"], said)


def asked(parser: argparse.ArgumentParser) -> None:
    """Add what this example alone is asked."""
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--weight", type=float, default=0.003, help="of the loss, where compared")
    default = [0.001, 0.003, 0.01, 0.03]
    parser.add_argument("--weights", type=float, nargs="*", default=default, help="to be swept")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")


def main() -> None:
    """Train, print, draw."""
    page = Page("embeddings", __doc__, asked)
    options = page.options
    if page.quick:
        options.epochs = min(options.epochs, 25)
    sizes = "{} digits to train on, {} to validate with".format(*map(len, load(page.quick)))
    print(f"{sizes}; {options.epochs} epochs, {options.seeds} seeds", flush=True)
    found = compare(options)
    write(page.folder / f"{page.name}.csv", found.runs)
    for name, content in {**tables(found), "answers": answers(found)}.items():
        print(f"\n{TITLES[name]}")
        page.tell(name, content)
    page.save(draw(found), "uniformity", CREDIT)
    print(f"\n{CREDIT}")


if __name__ == "__main__":
    main()
