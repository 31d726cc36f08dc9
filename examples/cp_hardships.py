"""Show what is hard about CP decompositions, in numbers: divergence, deflation, swamps, uniqueness.

One data set is Indian Pines: M. F. Baumgardner, L. L. Biehl and D. A. Landgrebe, "220 Band AVIRIS
Hyperspectral Image Data Set: June 12, 1992 Indian Pine Test Site 3", Purdue University Research
Repository, 2015, doi:10.4231/R7RX991C, licence CC BY 3.0. It comes with TensorLy, so nothing is
downloaded. The others are made here, from seeds.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorly
import torch
from _page import BLUE, GREEN, ORANGE, SKY, Page, answers, open_axes, plt, table
from tensorly.datasets import load_indian_pines

import tensorfast as tf
from tensorfast.testing import planted, random_cp

CREDIT = "Indian Pines: Baumgardner, Biehl and Landgrebe (2015), doi:10.4231/R7RX991C, CC BY 3.0"
SHAPE, RANK = (20, 25, 30), 4
#: Weights of the squared norms of the factors, none first.
RIDGES = (0.0, 1e-4, 1e-3, 1e-2)
COSINES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
#: The relative error at which a swamp is crossed.
REACHED = 1e-4
STARTS = 3
#: A fit with a smaller error counts as exact.
EXACT = 1e-6


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


def border_table(courses: Sequence[Course]) -> str:
    """Return the table of the divergence: without a ridge at several sweeps, then with one."""
    rows = []
    for course in courses:
        last = len(course.errors)
        # The divergence at every power of ten, the others where they end.
        sweeps = [last] if course.ridge else [10**n for n in range(1, 6) if 10**n <= last]
        for n in sweeps:
            cells = [f"{course.ridge:g}", str(n), f"{course.errors[n - 1]:.4f}"]
            cells += [f"{course.lengths[n - 1]:.3f}", f"{course.cosines[n - 1]:.4f}"]
            rows.append([*cells, course.status if n == last else ""])
    head = ["l2_reg", "sweeps", "relative error", "length of the longer", "cosine", "status"]
    return table(head, rows)


def draw_border(page: Page, courses: Sequence[Course]) -> None:
    """Draw errors, lengths and cosines against sweeps."""
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.6), layout="constrained")
    for course, colour in zip(courses, (BLUE, SKY, GREEN, ORANGE), strict=True):
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
    page.save(figure, "border")


@dataclass
class Fits:
    """Errors of a tensor's fits at rank 1, 2, ...: by deflation, and of all components together."""

    name: str
    greedy: list[float]
    joint: list[float]
    kept: list[float]

    @property
    def factors(self) -> list[float]:
        """Error one by one over error together, as long as the latter is not all rounding."""
        pairs = zip(self.greedy, self.joint, strict=True)
        return [greedy / joint for greedy, joint in pairs if joint > EXACT]


def best_of(x: torch.Tensor, rank: int) -> Any:
    """Return the best of a few fits, from singular vectors and from random starts."""
    starts = ("svd", *["random"] * (STARTS - 1))
    models = [
        tf.cp_als(x, rank, init=init, n_iter_max=500, tol=1e-7, line_search=True, seed=seed)
        for seed, init in enumerate(starts)
    ]
    return min(models, key=lambda model: model.info.rel_errors[-1])


def deflate(name: str, x: torch.Tensor, ranks: int) -> Fits:
    """Fit one component to what the ones before have left, again and again; and all at once."""
    fits = Fits(name, [], [], [])
    rest, first = x, best_of(x, 1)
    for rank in range(1, ranks + 1):
        rest = rest - tf.cp_to_tensor(best_of(rest, 1))
        model = best_of(x, rank)
        fits.greedy.append(float(rest.norm() / x.norm()))
        fits.joint.append(tf.relative_error(x, model))
        fits.kept.append(float(tf.congruence(first, model).abs().max()))
    return fits


def deflations(quick: bool) -> list[Fits]:
    """Deflate a tensor of collinear components, a hyperspectral image, and that as a matrix."""
    tensorly.set_backend("numpy")
    step = 6 if quick else 3
    cube = np.ascontiguousarray(load_indian_pines().tensor[::step, ::step, ::4], dtype=np.float64)
    pines, ranks = torch.from_numpy(cube), 4 if quick else 8
    made = tf.cp_to_tensor(random_cp(SHAPE, 5, congruence=0.5))
    return [
        deflate("made, cosines 0.5", made, 5),
        deflate("Indian Pines", pines, ranks),
        deflate("the same as a matrix", tf.unfold(pines, 2), ranks),
    ]


def deflation_table(found: Sequence[Fits]) -> str:
    """Return errors one by one and together, and the factor between them."""
    rows = []
    for fits in found:
        for n, (greedy, joint, kept) in enumerate(
            zip(fits.greedy, fits.joint, fits.kept, strict=True)
        ):
            # The components of a matrix are not unique, so that nothing is said by their angle.
            angle = "-" if "matrix" in fits.name else f"{kept:.3f}"
            factor = f"{greedy / joint:.3f}" if joint > EXACT else "together exact"
            cells = [f"{greedy:.4f}", f"{joint:.4f}", factor, angle]
            rows.append([fits.name, str(n + 1), *cells])
    head = ["tensor", "components", "one by one", "together", "factor", "best first one, kept"]
    return table(head, rows)


@dataclass
class Swamp:
    """How many sweeps fits took, and how well the worst found the components."""

    cosine: float
    searched: bool
    sweeps: list[int]
    score: float


def cross(cosine: float, searched: bool, most: int) -> Swamp:
    """Count sweeps down to a small error, three tensors with three starts each."""
    swamp = Swamp(cosine, searched, [], 1.0)
    for seed, start in itertools.product(range(3), range(STARTS)):
        truth = random_cp(SHAPE, RANK, congruence=cosine, seed=seed)
        model = tf.cp_als(
            tf.cp_to_tensor(truth),
            RANK,
            init="random",
            n_iter_max=most,
            tol=0,
            line_search=searched,
            seed=start,
            callback=lambda sweep, error, factors: error < REACHED,
        )
        swamp.sweeps.append(model.info.n_iter)
        swamp.score = min(swamp.score, tf.factor_match_score(model, truth))
    return swamp


def swamps(quick: bool) -> list[Swamp]:
    """Cross swamps of growing collinearity, without and with line search."""
    cosines = COSINES[:3] if quick else COSINES
    return [cross(c, searched, 10000) for c in cosines for searched in (False, True)]


def swamp_table(found: Sequence[Swamp]) -> str:
    """Return sweeps by cosine, plain and with line search."""
    rows = []
    for plain, searched in zip(found[::2], found[1::2], strict=True):
        cells = []
        for swamp in (plain, searched):
            middle = statistics.median(swamp.sweeps)
            cells.append(f"{middle:.0f} ({min(swamp.sweeps)} to {max(swamp.sweeps)})")
        gain = statistics.median(plain.sweeps) / statistics.median(searched.sweeps)
        score = min(plain.score, searched.score)
        rows.append([f"{plain.cosine:g}", *cells, f"{gain:.1f}", f"{score:.3f}"])
    head = ["cosine of columns", "sweeps", "with line_search", "fewer by", "worst match"]
    return table(head, rows)


def slope(found: Sequence[Swamp], searched: bool) -> float:
    """Return p of sweeps ~ (1 - cosine)^-p, by least squares from cosine 0.5 on."""
    chosen = [swamp for swamp in found if swamp.searched == searched and swamp.cosine >= 0.5]
    gaps = np.log([1 - swamp.cosine for swamp in chosen])
    sweeps = np.log([statistics.median(swamp.sweeps) for swamp in chosen])
    return -float(np.polyfit(gaps, sweeps, 1)[0])


def draw_progress(page: Page, fits: Sequence[Fits], found: Sequence[Swamp]) -> None:
    """Draw what deflation costs, and how long swamps are."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4), layout="constrained")
    for one, colour, mark in zip(fits, (ORANGE, BLUE, GREEN), "osd", strict=True):
        numbers = range(1, len(one.factors) + 1)
        left.plot(numbers, one.factors, f"{mark}-", color=colour, label=one.name)
    left.set_title("error, one by one over together", fontsize=10)
    left.set(xlabel="components", yscale="log")
    ticks = (1, 1.1, 1.2, 1.4, 1.6, 1.8)
    left.set_yticks(ticks, [str(n) for n in ticks])
    for searched, colour, label in ((False, BLUE, "plain"), (True, ORANGE, "line_search=True")):
        chosen = [swamp for swamp in found if swamp.searched == searched]
        gaps = [1 - swamp.cosine for swamp in chosen]
        middle = [statistics.median(swamp.sweeps) for swamp in chosen]
        right.loglog(gaps, middle, "o-", color=colour, label=label)
        limits = [[f(swamp.sweeps) for swamp in chosen] for f in (min, max)]
        right.fill_between(gaps, *limits, color=colour, alpha=0.2, linewidth=0)
    right.invert_xaxis()
    cosines = [swamp.cosine for swamp in found[::2]]
    right.set_xticks([1 - c for c in cosines], [f"{c:g}" for c in cosines])
    right.set_title(f"sweeps to a relative error of {REACHED:g}", fontsize=10)
    right.set(xlabel="cosine between columns")
    for axis in (left, right):
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=9)
    open_axes(left, right)
    page.save(figure, "progress", CREDIT)


@dataclass
class Agreement:
    """How well fits from random starts agree: errors, matches, and in how many orders they come."""

    errors: list[float]
    scores: list[float]
    orders: int


def agree(starts: int = 10) -> Agreement:
    """Fit a well-posed tensor with noise from random starts, and compare every pair of models."""
    x, truth = planted(SHAPE, RANK, noise=0.05)
    models = [
        tf.cp_als(x, RANK, init="random", n_iter_max=500, tol=1e-9, seed=seed)
        for seed in range(starts)
    ]
    orders = {tuple(tf.congruence(m, truth).abs().argmax(1).tolist()) for m in models}
    scores = [tf.factor_match_score(a, b) for a, b in itertools.combinations(models, 2)]
    return Agreement([m.info.rel_errors[-1] for m in models], scores, len(orders))


@dataclass
class Turn:
    """What a rotation of the factors does to both kinds of models."""

    name: str
    tucker: float
    match: float
    cp: float


def turns() -> list[Turn]:
    """Rotate the factors of a Tucker model and its core, and those of a CP model of the tensor."""
    x, _ = planted(SHAPE, RANK, noise=0.05)
    model, components = tf.hooi(x, (RANK,) * 3), tf.cp_als(x, RANK, seed=0)
    tensor, sum_of_ranks = tf.tucker_to_tensor(model), tf.cp_to_tensor(components)

    def plane(degrees: float) -> torch.Tensor:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        block = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        return torch.block_diag(block, block)

    named = {f"{degrees} degrees": plane(degrees) for degrees in (5, 15, 30, 45)}
    # Every new column has the same part of every old one: no rotation of four is further off.
    half = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    named["Hadamard"] = torch.kron(half, half) / 2
    found = []
    for name, turn in named.items():
        factors = [u @ turn for u in model.factors]
        core = tf.multi_ttm(model.core, [turn.T] * 3)
        moved = tf.tucker_to_tensor((core, factors))
        mixed = tf.cp_to_tensor((components.weights, [f @ turn for f in components.factors]))
        matches = [
            tf.factor_match_score((None, [u]), (None, [v]))
            for u, v in zip(model.factors, factors, strict=True)
        ]
        found.append(Turn(name, apart(moved, tensor), max(matches), apart(mixed, sum_of_ranks)))
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return ``||a - b|| / ||b||``."""
    return float((a - b).norm() / b.norm())


def turn_table(found: Sequence[Turn]) -> str:
    """Return what each rotation does."""
    rows = [
        [turn.name, rounding(turn.tucker), f"{turn.match:.3f}", f"{turn.cp:.3f}"] for turn in found
    ]
    head = ["factors rotated by", "Tucker: the tensor changes by", "its factors match"]
    return table([*head, "CP: the tensor changes by"], rows)


def rounding(value: float) -> str:
    """Write what is rounding only as such, as its size depends on the machine."""
    return "less than 1e-14" if value < 1e-14 else f"{value:.1e}"


def superdiagonal() -> list[tuple[str, float, float]]:
    """Compare CP models with Tucker models of the same factors and a superdiagonal core.

    Returns the shape, the difference, and the core consistency: how near the best core for these
    factors is to the superdiagonal.
    """
    found = []
    for shape in ((20, 25, 30), (10, 12, 9, 8), (6, 7, 5, 6, 8)):
        weights, factors = random_cp(shape, RANK)
        core = torch.zeros((RANK,) * len(shape), dtype=torch.float64)
        core[(torch.arange(RANK),) * len(shape)] = weights
        x = tf.cp_to_tensor((weights, factors))
        consistency = tf.core_consistency(x, (weights, factors))
        name = " x ".join(map(str, shape))
        found.append((name, apart(tf.tucker_to_tensor((core, factors)), x), consistency))
    return found


def superdiagonal_table(found: Sequence[tuple[str, float, float]]) -> str:
    """Return the differences."""
    rows = [[name, rounding(gap), f"{consistency:.4f} %"] for name, gap, consistency in found]
    return table(["shape, 4 components", "CP and Tucker differ by", "core consistency"], rows)


def measured(
    courses: Sequence[Course],
    fits: Sequence[Fits],
    found: Sequence[Swamp],
    agreement: Agreement,
    rotations: Sequence[Turn],
) -> dict[str, str]:
    """Return what is said of CP, each with what was measured."""
    plain, bound = courses[0], courses[-1]
    made, real, matrix = (max(one.factors) for one in fits)
    middle = [statistics.median(swamp.sweeps) for swamp in found[-2:]]
    # Rounded down, so that the statement is true.
    worst = math.floor(1e4 * min(agreement.scores)) / 1e4
    gaps = [gap for _, gap, _ in superdiagonal()]
    return {
        "A best rank-r approximation may not exist": (
            f"after {len(plain.errors)} sweeps the error is {plain.errors[-1]:.4f} and falling, "
            f"the components are {plain.lengths[-1]:.1f} long and growing, their cosine is "
            f"{plain.cosines[-1]:.3f}, the status `{plain.status}`; with `l2_reg={bound.ridge:g}` "
            f"they stay {bound.lengths[-1]:.2f} long, at an error of {bound.errors[-1]:.3f}"
        ),
        "Components cannot be added one by one": (
            f"that leaves up to {made:.2f} times the error of a joint fit, on Indian Pines up to "
            f"{real:.3f} times, and on a matrix {matrix:.3f} times"
        ),
        "Columns are neither orthogonal nor independent": (
            f"at a cosine of {found[-1].cosine:g} between them a fit takes {middle[0]:.0f} sweeps, "
            f"with `line_search` {middle[1]:.0f}; the numbers grow as (1 - cosine)^-"
            f"{slope(found, False):.1f} and ^-{slope(found, True):.1f}"
        ),
        "The decomposition is unique up to permutation and scaling": (
            f"{len(agreement.errors)} random starts end in {agreement.orders} different orders of "
            f"the components, and any two of them match to {worst:.4f} or better"
        ),
        "Tucker's is not": (
            "the same tensor comes from factors that match to only "
            f"{min(turn.match for turn in rotations):.2f}"
        ),
        "CP is a special case of Tucker": (
            f"with a superdiagonal core both give the same tensor, to {rounding(max(gaps))}"
        ),
    }


def main() -> None:
    """Compute, print, draw."""
    page = Page("cp_hardships", __doc__)
    # The tensors are small: more threads gain nothing, and one rounds the same everywhere.
    torch.set_num_threads(1)
    courses = [follow(border(), ridge, 1000 if page.quick else 10000) for ridge in RIDGES]
    page.tell("border", border_table(courses))
    print(f"\n{courses[0].message}")
    draw_border(page, courses)
    fits = deflations(page.quick)
    page.tell("deflation", deflation_table(fits))
    found = swamps(page.quick)
    page.tell("swamps", swamp_table(found))
    draw_progress(page, fits, found)
    agreement, rotations = agree(), turns()
    page.tell("turns", turn_table(rotations))
    page.tell("superdiagonal", superdiagonal_table(superdiagonal()))
    page.tell("answers", answers(measured(courses, fits, found, agreement, rotations)))
    print(f"\n{CREDIT}")


if __name__ == "__main__":
    main()
