"""Which trainings are compared, and what they gave."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from .autoencoder import ARTICLE, CODE, LOSS, LOSSES, NONE, SMALL, WAYS, Plan, Run, Way, train_all

#: Whose weight is swept.
TWO = "loss, k = 2"
SWEPT = {f"loss, k = {k}": Way(f"loss, k = {k}", loss) for k, loss in LOSSES.items()}
SWEPT |= {TWO: LOSS, ARTICLE.name: ARTICLE}


@dataclass(frozen=True)
class Found:
    """All trainings, one a seed in each list: every way, each weight, a code of few dimensions."""

    ways: dict[str, list[Run]]
    sweep: dict[str, dict[float, list[Run]]]
    small: dict[str, list[Run]]

    @property
    def runs(self) -> list[Run]:
        """Each of them once."""
        swept = (runs for weights in self.sweep.values() for runs in weights.values())
        groups = [*self.ways.values(), *swept, *self.small.values()]
        return list({run.plan: run for runs in groups for run in runs}.values())


def means(lists: Iterable[list[float]]) -> list[float]:
    """Return the mean over seeds, place by place."""
    return [fmean(values) for values in zip(*lists, strict=True)]


def compare(options: argparse.Namespace) -> Found:
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


def write(path: Path, runs: list[Run]) -> None:
    """Write a line for each training as CSV, with all digits."""
    epochs, shares = runs[0].plan.epochs, max(run.plan.code for run in runs)
    head = ["way", "seed", "weight", "code", "error", "largest_share", "effective_rank"]
    head += ["ms_an_epoch", *(f"share_{n + 1}" for n in range(shares))]
    head += [f"error_{n + 1}" for n in range(epochs)]
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(head)
        for run in runs:
            plan, missing = run.plan, [""] * (shares - len(run.values))
            cells = [plan.way.name, plan.seed, plan.weight, plan.code, run.error, run.largest]
            lines.writerow([*cells, run.rank, run.ms, *run.values, *missing, *run.errors])
