"""A tensor without a best approximation of rank 2: components grow, and cancel ever better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from _page import BLUE, GREEN, ORANGE, SKY, open_axes, plt, table

import tensorfast as tf

#: Weights of the squared norms of the factors, none first.
RIDGES = (0.0, 1e-4, 1e-3, 1e-2)


@dataclass
class Course:
    """How a fit of two components went: by sweeps, and how it ended."""

    ridge: float
    errors: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    status: str = ""
    message: str = ""


def border(shape: tuple[int, int, int] = (10, 12, 9)) -> torch.Tensor:
    """Return ``a o a o b + a o b o a + b o a o a``, with other a and b in every mode."""
    g = torch.Generator().manual_seed(0)
    pairs = [torch.linalg.qr(torch.randn(n, 2, dtype=torch.float64, generator=g)).Q for n in shape]
    core = torch.zeros(2, 2, 2, dtype=torch.float64)
    core[0, 0, 1] = core[0, 1, 0] = core[1, 0, 0] = 1
    return tf.multi_ttm(core, pairs)


def follow(x: torch.Tensor, ridge: float, sweeps: int) -> Course:
    """Fit two components, and keep how long they are and which angle they make."""
    course = Course(ridge)

    def watch(sweep: int, error: float, factors: list[torch.Tensor]) -> bool:
        inner = torch.stack([f.T @ f for f in factors]).prod(0)
        lengths = inner.diagonal().sqrt()
        course.errors.append(error)
        course.lengths.append(float(lengths.max()))
        course.cosines.append(float(inner[0, 1] / lengths.prod()))
        return False

    model = tf.cp_als(x, 2, n_iter_max=sweeps, tol=0, l2_reg=ridge, seed=0, callback=watch)
    course.status, course.message = model.info.status, model.info.message
    return course


def courses(quick: bool) -> list[Course]:
    """Follow fits of the border's tensor, without a ridge and with larger and larger ones."""
    x, sweeps = border(), 1000 if quick else 10000
    return [follow(x, ridge, sweeps) for ridge in RIDGES]


def border_table(found: Sequence[Course]) -> str:
    """Return the table of the divergence: without a ridge at several sweeps, then with one."""
    rows = []
    for course in found:
        last = len(course.errors)
        # The divergence at every power of ten, the others where they end.
        sweeps = [last] if course.ridge else [10**n for n in range(1, 6) if 10**n <= last]
        for n in sweeps:
            cells = [f"{course.ridge:g}", str(n), f"{course.errors[n - 1]:.4f}"]
            cells += [f"{course.lengths[n - 1]:.3f}", f"{course.cosines[n - 1]:.4f}"]
            rows.append([*cells, course.status if n == last else ""])
    head = ["l2_reg", "sweeps", "relative error", "length of the longer", "cosine", "status"]
    return table(head, rows)


def draw_border(found: Sequence[Course]) -> plt.Figure:
    """Draw errors, lengths and cosines against sweeps."""
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.6), layout="constrained")
    for course, colour in zip(found, (BLUE, SKY, GREEN, ORANGE), strict=True):
        sweeps = np.arange(1, len(course.errors) + 1)
        label = f"l2_reg = {course.ridge:g}" if course.ridge else "no ridge"
        opposite = 1 + np.array(course.cosines)
        for axis, series in zip(axes, (course.errors, course.lengths, opposite), strict=True):
            axis.loglog(sweeps, series, color=colour, label=label)
    titles = ("relative error", "length of the longer component", "1 + cosine of the two")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="sweeps")
    ticks = (1, 2, 3, 5, 8)
    axes[1].set_yticks(ticks, [str(n) for n in ticks])
    axes[1].minorticks_off()
    axes[0].legend(frameon=False, fontsize=9)
    open_axes(*axes)
    return figure
