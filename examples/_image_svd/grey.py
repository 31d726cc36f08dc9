"""The grey image, a matrix: its truncated SVD at several ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from _page import BLUE, ORANGE, open_axes, plt, table

import tensorfast as tf

from .likeness import PEAK, psnr, similarity, svd_error

RANKS = (1, 10, 20, 30, 40, 50, 100, 200)


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


def draw_ranks(grey: np.ndarray, found: Sequence[Level]) -> plt.Figure:
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
    return figure


def draw_spectrum(grey: np.ndarray, found: Sequence[Level]) -> plt.Figure:
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
    return figure
