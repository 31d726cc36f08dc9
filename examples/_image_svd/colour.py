"""The colour image, a tensor: models of the same storage by the SVD, Tucker and CP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from _page import BLUE, GREEN, ORANGE, SKY, open_axes, plt, table
from matplotlib.ticker import FixedLocator, NullLocator

import tensorfast as tf

from .likeness import PEAK, distance

#: Ranks of the SVD of each channel; the other models of the colour image may store as much.
BUDGETS = (5, 10, 20, 40)
#: The one of them that is drawn, and which rows and columns of the photograph then.
SHOWN, ROWS, COLUMNS = 10, slice(20, 260), slice(60, 360)
#: Of CP-ALS.
SWEEPS = 60
COLOURS = {
    "SVD of each channel": BLUE,
    "SVD of an unfolding": SKY,
    "Tucker": ORANGE,
    "CP": GREEN,
}


@dataclass
class Model:
    """A model of the colour image: how many numbers it is, its error, its reconstruction."""

    method: str
    rank: str
    stored: int
    error: float
    image: np.ndarray


def channels(x: np.ndarray, rank: int) -> Model:
    """Cut the SVD of each colour of its own at a rank."""
    image = np.empty_like(x)
    for n in range(x.shape[2]):
        u, s, vh = tf.truncated_svd(x[..., n], rank, method="full")
        image[..., n] = (u * s) @ vh
    stored = x.shape[2] * rank * (x.shape[0] + x.shape[1] + 1)
    return Model("SVD of each channel", str(rank), stored, distance(x, image), image)


def unfolding(x: np.ndarray, budget: int) -> Model:
    """Cut the SVD of an unfolding: the colours side by side, or below one another."""
    found = []
    for mode in (0, 1):
        matrix = tf.unfold(x, mode)
        rank = budget // (sum(matrix.shape) + 1)
        u, s, vh = tf.truncated_svd(matrix, rank, method="full")
        image = tf.fold((u * s) @ vh, mode, x.shape)
        stored = rank * (sum(matrix.shape) + 1)
        found.append(
            Model("SVD of an unfolding", str(rank), stored, distance(x, image), np.asarray(image))
        )
    return min(found, key=lambda model: model.error)


def tucker_ranks(x: np.ndarray, budgets: Sequence[int]) -> list[tuple[int, ...]]:
    """Return for each budget the ranks, of all that it allows, that keep most of the HOSVD's core.

    What a truncated HOSVD keeps of the image is a corner of the full core.
    """
    kept = tf.hosvd(x, x.shape).core ** 2
    for mode in range(x.ndim):
        kept = kept.cumsum(mode)
    ranks = 1 + np.indices(x.shape)
    stored = ranks.prod(0) + np.tensordot(x.shape, ranks, 1)
    corners = [np.where(stored <= budget, kept, -1.0).argmax() for budget in budgets]
    return [tuple(rank) for rank in ranks.reshape(x.ndim, -1)[:, corners].T.tolist()]


def colour_models(x: np.ndarray, budgets: Sequence[int], sweeps: int) -> list[list[Model]]:
    """Model the colour image four ways for each budget, none larger than the SVD of channels."""
    found = [[channels(x, rank)] for rank in budgets]
    ranks = tucker_ranks(x, [models[0].stored for models in found])
    for models, rank in zip(found, ranks, strict=True):
        budget = models[0].stored
        tucker = tf.sthosvd(x, rank)
        # 32 bits halve the time of a sweep; nothing that is shown depends on more.
        cp = tf.cp_als(
            x.astype(np.float32),
            budget // (sum(x.shape) + 1),
            n_iter_max=sweeps,
            line_search=True,
            seed=0,
        )
        models.append(unfolding(x, budget))
        for name, model, tensor in (
            ("Tucker", tucker, tf.tucker_to_tensor(tucker)),
            ("CP", cp, tf.cp_to_tensor(cp)),
        ):
            stored = sum(part.size for part in (model[0], *model[1]))
            ranks_of = " x ".join(map(str, np.atleast_1d(model.rank)))
            models.append(Model(name, ranks_of, stored, tf.relative_error(x, model), tensor))
    return found


def colour_table(x: np.ndarray, found: Sequence[Sequence[Model]]) -> str:
    """Return the table of the colour image: a row for each storage."""
    rows = []
    for models in found:
        share = f"{100 * models[0].stored / x.size:.1f} %"
        cells = [f"{model.error:.4f} (rank {model.rank})" for model in models]
        rows.append([f"{models[0].stored} ({share})", *cells])
    return table(["numbers stored at most", *(model.method for model in found[0])], rows)


def draw_colour(x: np.ndarray, found: Sequence[Sequence[Model]]) -> plt.Figure:
    """Draw a part of the colour image by each model of one size, and all errors."""
    figure, axes = plt.subplots(2, 3, figsize=(10.4, 6.2), layout="constrained")
    stored = [models[0].stored for models in found]
    wanted = SHOWN * (stored[0] // BUDGETS[0])
    models = found[stored.index(wanted)] if wanted in stored else found[-1]
    share = 100 * models[0].stored / x.size
    figure.suptitle(f"The same storage, {share:.1f} % of the image", x=0.01, ha="left")
    pictures = [("the photograph", x)]
    pictures += [(f"{m.method}, rank {m.rank}: {m.error:.3f}", m.image) for m in models]
    for axis, (title, image) in zip(axes.flat, pictures, strict=False):
        axis.imshow(np.clip(image[ROWS, COLUMNS] / PEAK, 0, 1))
        axis.set_title(title, fontsize=9.5)
        axis.set_axis_off()
    last = axes.flat[-1]
    for series in zip(*found, strict=True):
        shares = [100 * model.stored / x.size for model in series]
        name = series[0].method
        last.loglog(shares, [m.error for m in series], "o-", color=COLOURS[name], label=name)
    last.set_title("relative error", fontsize=9.5)
    last.set(xlabel="stored, % of the image")
    for scale, ticks in ((last.xaxis, (2, 4, 8, 16)), (last.yaxis, (0.08, 0.1, 0.12, 0.15, 0.2))):
        scale.set_major_locator(FixedLocator(ticks))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(NullLocator())
    last.legend(frameon=False, fontsize=8)
    open_axes(last)
    return figure
