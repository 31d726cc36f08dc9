"""A denoising autoencoder of digits, and the ways in which it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from multiprocessing import get_context
from statistics import median

import torch
from sklearn.datasets import load_digits
from torch import nn

import tensorfast as tf

#: Every way sees the same batches and the same noise, and starts from the same linear layers.
BATCH, NOISE, RATE = 128, 0.25, 0.005
#: Dimensions of the code, and of the article's smaller one.
CODE, SMALL = 10, 4


def by_article(z: torch.Tensor) -> torch.Tensor:
    """Return the article's formula: the share of the two largest singular values, not centred."""
    s = torch.pca_lowrank(z, q=z.shape[1], center=False)[1]
    return (s[:2].sum() / s.sum()).log()


#: With as many of the ten directions as are to be small; the article's code takes two.
LOSSES = {k: partial(tf.nn.spectral_uniformity_loss, k=k) for k in (1, 2, 5)}


@dataclass(frozen=True)
class Way:
    """How to train: what is added to the reconstruction loss, and whether with BatchNorm."""

    name: str
    loss: Callable[[torch.Tensor], torch.Tensor] | None = None
    norm: bool = False


NONE = Way("no loss")
LOSS = Way("loss", LOSSES[2])
NORM = Way("BatchNorm", norm=True)
BOTH = Way("BatchNorm and loss", LOSSES[2], norm=True)
ARTICLE = Way("article's formula", by_article)
WAYS = (NONE, LOSS, NORM, BOTH, ARTICLE)


@dataclass(frozen=True)
class Plan:
    """What one training takes."""

    way: Way
    seed: int
    weight: float
    epochs: int
    code: int = CODE
    quick: bool = False


@dataclass(frozen=True)
class Run:
    """What one training gave, on validation digits.

    Errors are mean squared errors of the reconstruction from noisy pixels, one an epoch; `values`
    the shares of the eigenvalues of the embeddings' covariance, descending; `rank` the effective
    rank; `ms` the median processor time of an epoch's training.
    """

    plan: Plan
    errors: list[float]
    values: list[float]
    rank: float
    ms: float

    @property
    def error(self) -> float:
        """At the end."""
        return self.errors[-1]

    @property
    def largest(self) -> float:
        """Share of the leading direction."""
        return self.values[0]

    @property
    def lengths(self) -> list[float]:
        """Shares of the singular values, as in the article."""
        roots = [value**0.5 for value in self.values]
        return [root / sum(roots) for root in roots]


@cache
def load(quick: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return digits to train on and digits to validate with, pixels from 0 to 1."""
    digits = torch.from_numpy(load_digits().data).float() / 16
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    held = len(digits) // 5
    return digits[order[held:]][: 3 * BATCH if quick else None], digits[order[:held]]


def layers(sizes: Sequence[int], norm: bool, last: nn.Module | None = None) -> nn.Sequential:
    """Stack linear layers, each with its BatchNorm, if wanted, and ReLU between them."""
    found: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(sizes), start=2):
        found.append(nn.Linear(before, after))
        # Pixels are not to have mean 0 and variance 1.
        if norm and not (last and number == len(sizes)):
            found.append(nn.BatchNorm1d(after))
        if number < len(sizes):
            found.append(nn.ReLU())
    return nn.Sequential(*found, *([last] if last else []))


def train(plan: Plan) -> Run:
    """Train an autoencoder; look at the validation digits after every epoch."""
    digits, held = load(plan.quick)
    torch.manual_seed(plan.seed)
    sizes = (digits.shape[1], 128, 64, 12, plan.code)
    encode = layers(sizes, plan.way.norm)
    decode = layers(sizes[::-1], plan.way.norm, nn.Sigmoid())
    model = nn.Sequential(encode, decode)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    # Apart from torch's own, which the article's formula draws from.
    chance = torch.Generator().manual_seed(plan.seed)
    noisy = held + NOISE * torch.randn(held.shape, generator=torch.Generator().manual_seed(1))
    errors, seconds = [], []
    for _ in range(plan.epochs):
        begin = time.process_time()
        model.train()
        order = torch.randperm(len(digits), generator=chance)
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            x = digits[rows]
            z = encode(x + NOISE * torch.randn(x.shape, generator=chance))
            loss = (decode(z) - x).square().mean()
            if plan.way.loss:
                loss = loss + plan.weight * plan.way.loss(z)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        seconds.append(time.process_time() - begin)
        model.eval()
        with torch.no_grad():
            errors.append(float((model(noisy) - held).square().mean()))
    with torch.no_grad():
        z = encode(held)
    values, rank = tf.nn.spectrum(z).tolist(), tf.nn.effective_rank(z)
    return Run(plan, errors, values, rank, 1e3 * median(seconds))


def train_all(plans: Sequence[Plan], jobs: int) -> Iterator[Run]:
    """Train in some processes, one thread each: more gain nothing here, and one repeats."""
    if jobs == 1:
        torch.set_num_threads(1)
        yield from map(train, plans)
    else:
        with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            yield from pool.map(train, plans)
