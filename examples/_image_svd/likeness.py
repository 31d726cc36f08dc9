"""How far a model of an image is from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

import tensorfast as tf

#: The brightest white.
PEAK = 255.0


def svd_error(a: np.ndarray, triplets: tuple[np.ndarray, ...]) -> float:
    """Return the relative error of ``u @ diag(s) @ vh``, from the residual itself."""
    u, s, vh = triplets
    return tf.relative_error(a, (s, [u, np.ascontiguousarray(vh.T)]))


def distance(x: np.ndarray, model: Any) -> float:
    """Return the relative error of a reconstruction."""
    return float(np.linalg.norm(x - model) / np.linalg.norm(x))


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
