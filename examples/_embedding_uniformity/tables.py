"""What was found, in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean

from _page import table

from .autoencoder import ARTICLE, NONE, Run
from .trainings import Found, means

#: The article trained for so many epochs.
EARLY = 10


def told(values: Iterable[float], form: str = "{:.4f}") -> str:
    """Return mean and range of some numbers, one a seed."""
    values = list(values)
    low, middle, high = map(form.format, (min(values), fmean(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def spectra(groups: dict[str, list[Run]], of: Callable[[Run], list[float]]) -> str:
    """Tell the mean spectrum of each group."""
    rows = [[name, *(f"{v:.3f}" for v in means(map(of, runs)))] for name, runs in groups.items()]
    return table(["", *(str(n + 1) for n in range(len(rows[0]) - 1))], rows)


def reached(runs: list[Run], target: float) -> str:
    """Tell the first epoch at which the mean error is down to a target."""
    found = (n for n, error in enumerate(means(r.errors for r in runs), start=1) if error <= target)
    return str(next(found, "-"))


def tables(found: Found) -> dict[str, str]:
    """Tell what was found, by the name of the block."""
    weights = found.sweep[ARTICLE.name]
    return {
        "ways": by_way(found.ways),
        "eigenvalues": spectra(found.ways, lambda r: r.values),
        "singular-values": spectra(found.ways, lambda r: r.lengths),
        "weights": table(
            ["", *(f"weight {weight:g}" for weight in weights)],
            [[name, *map(summary, swept.values())] for name, swept in found.sweep.items()],
        ),
    }


def by_way(ways: dict[str, list[Run]]) -> str:
    """Tell what each way has led to, how soon, and what it takes."""
    none = ways[NONE.name]
    target = fmean(r.error for r in none)
    early = min(EARLY, len(none[0].errors))
    head = ["", "error", f"after {early} epochs", "epochs to the error of no loss"]
    head += ["largest share", "effective rank", "an epoch"]
    rows = []
    for name, runs in ways.items():
        after = fmean(r.errors[early - 1] for r in runs)
        cells = [name, told(r.error for r in runs), f"{after:.4f}", reached(runs, target)]
        cells += [told((r.largest for r in runs), "{:.3f}")]
        cells += [told((r.rank for r in runs), "{:.1f}"), told((r.ms for r in runs), "{:.0f} ms")]
        rows.append(cells)
    return table(head, rows)


def summary(runs: list[Run]) -> str:
    """Tell mean error, largest share and effective rank."""
    error, largest, rank = means([r.error, r.largest, r.rank] for r in runs)
    return f"{error:.4f}, {largest:.3f}, {rank:.1f}"
