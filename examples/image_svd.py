"""Compress a photograph by the truncated SVD and, in colour, by CP and Tucker decompositions.

The photograph is `china.jpg` by danielbuechele, https://www.flickr.com/photos/danielbuechele/,
licence CC BY 2.0. It comes with scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _page import BLUE, GREEN, ORANGE, SKY, Page, answers, open_axes, plt, table
from matplotlib.ticker import FixedLocator, NullLocator
from scipy import ndimage
from sklearn.datasets import load_sample_image
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

import tensorfast as tf

CREDIT = "china.jpg: danielbuechele, flickr.com/photos/danielbuechele/6061409035, CC BY 2.0"
#: What a grey image weighs red, green and blue with: ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)
PEAK = 255.0
RANKS = (1, 10, 20, 30, 40, 50, 100, 200)
#: Ranks of the SVD of each channel; the other models of the colour image may store as much.
BUDGETS = (5, 10, 20, 40)
#: Of CP-ALS.
SWEEPS = 60
#: The one of them that is drawn, and which rows and columns of the photograph then.
SHOWN, ROWS, COLUMNS = 10, slice(20, 260), slice(60, 360)
COLOURS = {
    "SVD of each channel": BLUE,
    "SVD of an unfolding": SKY,
    "Tucker": ORANGE,
    "CP": GREEN,
}


@dataclass
class Level:
    """The grey image at one rank: its reconstruction, and how far that is from the image."""

    rank: int
    stored: int
    share: float
    error: float
    numpy_error: float
    default_error: float
    psnr: float
    similarity: float
    image: np.ndarray


@dataclass
class Model:
    """A model of the colour image: how many numbers it is, its error, its reconstruction."""

    method: str
    rank: str
    stored: int
    error: float
    image: np.ndarray


@dataclass
class Timing:
    """A truncated SVD of a large image: its exact relative error, and seconds."""

    method: str
    error: float
    seconds: float


def psnr(error: float, image: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in decibels that a relative error amounts to."""
    return 20 * math.log10(PEAK * math.sqrt(image.size) / (error * np.linalg.norm(image)))


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean structural similarity (SSIM) of two grey images, 1 if they are equal.

    Wang, Bovik, Sheikh and Simoncelli, IEEE Trans. Image Processing 13 (2004), with the Gaussian
    window and the constants given there.
    """

    def blur(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)

    mean_a, mean_b = blur(a), blur(b)
    spread = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
    common = blur(a * b) - mean_a * mean_b
    low, high = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    alike = (2 * mean_a * mean_b + low) * (2 * common + high)
    return float(np.mean(alike / ((mean_a**2 + mean_b**2 + low) * (spread + high))))


def svd_error(a: np.ndarray, triplets: tuple[np.ndarray, ...]) -> float:
    """Return the relative error of ``u @ diag(s) @ vh``, from the residual itself."""
    u, s, vh = triplets
    return tf.relative_error(a, (s, [u, np.ascontiguousarray(vh.T)]))


def levels(grey: np.ndarray) -> list[Level]:
    """Cut one SVD of the image at every rank; beside it NumPy's, and what the default finds."""
    u, s, vh = tf.truncated_svd(grey, max(RANKS), method="full")
    reference = np.linalg.svd(grey, full_matrices=False)
    found = []
    for rank in RANKS:
        image = (u[:, :rank] * s[:rank]) @ vh[:rank]
        error = svd_error(grey, (u[:, :rank], s[:rank], vh[:rank]))
        by_numpy = (reference[0][:, :rank] * reference[1][:rank]) @ reference[2][:rank]
        stored = u[:, :rank].size + s[:rank].size + vh[:rank].size
        found.append(
            Level(
                rank,
                stored,
                stored / grey.size,
                error,
                float(np.linalg.norm(grey - by_numpy) / np.linalg.norm(grey)),
                svd_error(grey, tf.truncated_svd(grey, rank, seed=0)),
                psnr(error, grey),
                similarity(grey, image),
                image,
            )
        )
    return found


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


def distance(x: np.ndarray, model: Any) -> float:
    """Return the relative error of a reconstruction."""
    return float(np.linalg.norm(x - model) / np.linalg.norm(x))


def enlarge(grey: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the photograph as a larger camera might have taken it, in float32.

    Cubic splines between the pixels alone would leave it smooth, and of the same rank. What is
    finer than a pixel goes on from the photograph's finest octave: of random phases, a quarter as
    strong at every place, as the photograph has been sharpened, and falling off as 1 / frequency,
    as natural images do. Noise of two grey levels stands for the sensor's.
    """
    rng = np.random.default_rng(0)
    scale = [long / short for long, short in zip(shape, grey.shape, strict=True)]
    waves = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, grey.shape), indexing="ij"))
    finest = np.fft.ifft2(np.fft.fft2(grey) * (waves > 0.25)).real
    strength = np.sqrt(ndimage.gaussian_filter(finest**2, 3)) / 4
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    waves = np.hypot(rows * scale[0], columns * scale[1])
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    spectrum *= (waves > 0.5) / np.maximum(waves, 0.5)
    detail = np.fft.irfft2(spectrum, shape)
    detail *= ndimage.zoom(strength, scale, order=1) / detail.std()
    big = ndimage.zoom(grey, scale, order=3) + detail
    big += rng.normal(0, 2, shape)
    return big.clip(0, PEAK).astype(np.float32)


def race(a: np.ndarray, rank: int) -> list[Timing]:
    """Time NumPy's full SVD, once, and three truncated ones, the median of three each."""
    tensor = torch.from_numpy(a)

    def by_numpy() -> tuple[np.ndarray, ...]:
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        return u[:, :rank], s[:rank], vh[:rank]

    def by_torch() -> tuple[np.ndarray, ...]:
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(tensor, rank + 8)
        return u[:, :rank].numpy(), s[:rank].numpy(), v[:, :rank].T.numpy()

    calls: dict[str, tuple[int, Callable[[], tuple[np.ndarray, ...]]]] = {
        "tensorfast.truncated_svd": (3, lambda: tf.truncated_svd(a, rank, seed=0)),
        "torch.svd_lowrank": (3, by_torch),
        "sklearn randomized_svd": (3, lambda: randomized_svd(a, rank, random_state=0)),
        "numpy.linalg.svd, full": (1, by_numpy),
    }
    found = []
    with threadpool_limits(torch.get_num_threads()):
        for name, (laps, call) in calls.items():
            seconds = []
            for _ in range(laps):
                begin = time.perf_counter()
                triplets = call()
                seconds.append(time.perf_counter() - begin)
            found.append(Timing(name, svd_error(a, triplets), statistics.median(seconds)))
    return found


def ranks_table(grey: np.ndarray, found: Sequence[Level]) -> str:
    """Return the table of the grey image: a row for each rank."""
    values = np.linalg.svd(grey, compute_uv=False)
    head = ["rank", "numbers stored", "of the image", "relative error", "PSNR", "SSIM"]
    head += ["sigma_k / sigma_1", "of the squares", "default: error larger by"]
    rows = [
        [
            str(level.rank),
            str(level.stored),
            f"{100 * level.share:.1f} %",
            f"{level.error:.4f}",
            f"{level.psnr:.1f} dB",
            f"{level.similarity:.3f}",
            f"{values[level.rank - 1] / values[0]:.4f}",
            f"{100 * (1 - level.error**2):.2f} %",
            f"{100 * (level.default_error / level.error - 1):.2f} %",
        ]
        for level in found
    ]
    return table(head, rows)


def measured(grey: np.ndarray, found: Sequence[Level]) -> dict[str, str]:
    """Return what is said of low-rank images, each with what was measured on this one."""
    at = {level.rank: level for level in found}
    off = {rank: PEAK / 10 ** (level.psnr / 20) for rank, level in at.items()}
    values = np.linalg.svd(grey, compute_uv=False)
    squares = np.cumsum(values[1:] ** 2)
    held, summed = (
        [100 * sums[k - 2] / sums[-1] for k in (100, 200)]
        for sums in (squares, values[1:].cumsum())
    )
    apart = math.sqrt(np.mean((at[100].image - at[200].image) ** 2))
    return {
        "Rank 1 shows blocks only": (
            f"one profile down times one across, off by {off[1]:.0f} of {PEAK:.0f} grey levels "
            f"(root mean square), SSIM {at[1].similarity:.2f}"
        ),
        "Rank 10 is blurred, with 5 % of the pixels stored": (
            f"SSIM {at[10].similarity:.2f}; {100 * at[10].share:.1f} % stored here, as the share "
            "is k (m + n + 1) / (m n)"
        ),
        "20 to 30 are readable, 40 nearly all": (
            f"SSIM {at[20].similarity:.2f}, {at[30].similarity:.2f} and {at[40].similarity:.2f}, "
            f"off by {off[20]:.0f}, {off[30]:.0f} and {off[40]:.0f} grey levels"
        ),
        "50 differs in shade only": (
            f"still off by {off[50]:.0f} grey levels, SSIM {at[50].similarity:.2f}"
        ),
        "100 and 200 look alike": (
            f"they are {apart:.0f} grey levels apart, SSIM {at[100].similarity:.2f} and "
            f"{at[200].similarity:.2f}; at 200 {100 * at[200].share:.0f} % are stored"
        ),
        "The leading 100 to 200 singular values dominate the rest": (
            f"the first alone has {100 * (1 - at[1].error ** 2):.0f} % of the squares, the "
            f"brightness; of the others' squares the leading 100 have {held[0]:.0f} % and 200 "
            f"{held[1]:.0f} %, of their plain sum {summed[0]:.0f} and {summed[1]:.0f} %"
        ),
    }


def colour_table(x: np.ndarray, found: Sequence[Sequence[Model]]) -> str:
    """Return the table of the colour image: a row for each storage."""
    rows = []
    for models in found:
        share = f"{100 * models[0].stored / x.size:.1f} %"
        cells = [f"{model.error:.4f} (rank {model.rank})" for model in models]
        rows.append([f"{models[0].stored} ({share})", *cells])
    return table(["numbers stored at most", *(model.method for model in found[0])], rows)


def race_table(found: Sequence[Timing]) -> str:
    """Return the table of the large image; NumPy's SVD comes last."""
    full = found[-1]
    rows = [
        [
            run.method,
            f"{run.error:.5f}",
            f"{100 * (run.error / full.error - 1):.2f} %",
            f"{run.seconds:.2f} s",
            f"{full.seconds / run.seconds:.1f}x",
        ]
        for run in found
    ]
    return table(["", "relative error", "larger by", "time", "faster than NumPy"], rows)


def draw_ranks(page: Page, grey: np.ndarray, found: Sequence[Level]) -> None:
    """Draw the image at every rank, and itself last."""
    figure, axes = plt.subplots(3, 3, figsize=(10.4, 7.9), layout="constrained")
    for axis, level in zip(axes.flat, found, strict=False):
        axis.imshow(level.image, cmap="gray", vmin=0, vmax=PEAK)
        axis.set_title(
            f"rank {level.rank}: {100 * level.share:.1f} % stored, {level.psnr:.1f} dB", fontsize=10
        )
    axes.flat[-1].imshow(grey, cmap="gray", vmin=0, vmax=PEAK)
    axes.flat[-1].set_title("the photograph, {} x {}".format(*grey.shape), fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    page.save(figure, "ranks", CREDIT, colours=40)


def draw_spectrum(page: Page, grey: np.ndarray, found: Sequence[Level]) -> None:
    """Draw the singular values, and two measures of quality against what is stored."""
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.6), layout="constrained")
    values = np.linalg.svd(grey, compute_uv=False)
    values /= values[0]
    axes[0].loglog(np.arange(1, len(values) + 1), values, color=BLUE)
    axes[0].set_title("singular value k over the first", fontsize=10)
    axes[0].set(xlabel="k", ylim=(3e-4, 2))
    shares = [100 * level.share for level in found]
    qualities = [[level.psnr for level in found], [level.similarity for level in found]]
    for axis, title, quality in zip(axes[1:], ("PSNR, dB", "SSIM"), qualities, strict=True):
        axis.plot(shares, quality, color=BLUE)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="stored, % of the image", xlim=(-4, 88))
    spectrum = [values[level.rank - 1] for level in found]
    points = [([level.rank for level in found], spectrum), *((shares, q) for q in qualities)]
    for axis, (across, up) in zip(axes, points, strict=True):
        axis.plot(across, up, "o", color=ORANGE, markersize=5)
        for level, x, y in zip(found, across, up, strict=True):
            # On the curve of singular values 20, 40 and 50 would stand in each other's way.
            if axis is not axes[0] or level.rank not in (20, 40, 50):
                place = (5, 4) if axis is axes[0] else (6, -9 if level.rank > 1 else -3)
                axis.annotate(
                    str(level.rank), (x, y), place, textcoords="offset points", fontsize=8
                )
    open_axes(*axes)
    page.save(figure, "spectrum", CREDIT)


def draw_colour(page: Page, x: np.ndarray, found: Sequence[Sequence[Model]]) -> None:
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
    page.save(figure, "colour", CREDIT, colours=256)


def main() -> None:
    """Decompose, print, draw."""
    page = Page("image_svd", __doc__)
    rgb = np.asarray(load_sample_image("china.jpg"), dtype=np.float64)
    grey = rgb @ LUMA
    found = levels(grey)
    worst = max(abs(level.error - level.numpy_error) for level in found)
    print("china.jpg, {} x {}, {} threads".format(*grey.shape, torch.get_num_threads()))
    print(f"NumPy's SVD has the same error at every rank, to {worst:.0e}")
    page.tell("ranks", ranks_table(grey, found))
    page.tell("answers", answers(measured(grey, found)))
    draw_ranks(page, grey, found)
    draw_spectrum(page, grey, found)
    models = colour_models(rgb, *((BUDGETS[:2], 10) if page.quick else (BUDGETS, SWEEPS)))
    page.tell("colour", colour_table(rgb, models))
    draw_colour(page, rgb, models)
    shape, rank = ((600, 800), 20) if page.quick else ((3000, 4000), 100)
    print("\n{} x {}, float32, rank {}".format(*shape, rank))
    page.tell("large", race_table(race(enlarge(grey, shape), rank)))
    print(f"\n{CREDIT}")


if __name__ == "__main__":
    main()
