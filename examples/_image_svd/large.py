"""An image of millions of pixels: truncated SVDs beside NumPy's full one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from _page import table
from scipy import ndimage
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

import tensorfast as tf

from .likeness import PEAK, svd_error


@dataclass
class Timing:
    """A truncated SVD of a large image: its exact relative error, and seconds."""

    method: str
    error: float
    seconds: float


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
