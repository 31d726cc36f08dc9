"""Show what is hard about CP decompositions, in numbers: divergence, deflation, swamps, uniqueness.

One data set is Indian Pines: M. F. Baumgardner, L. L. Biehl and D. A. Landgrebe, "220 Band AVIRIS
Hyperspectral Image Data Set: June 12, 1992 Indian Pine Test Site 3", Purdue University Research
Repository, 2015, doi:10.4231/R7RX991C, licence CC BY 3.0. It comes with TensorLy, so nothing is
downloaded. The others are made here, from seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from _cp_hardships.border import Course, border_table, courses, draw_border
from _cp_hardships.deflation import Fits, deflation_table, deflations, draw_deflation
from _cp_hardships.swamps import Swamp, draw_swamps, slope, swamp_table, swamps
from _cp_hardships.uniqueness import (
    Agreement,
    Turn,
    agree,
    rounding,
    superdiagonal,
    superdiagonal_table,
    turn_table,
    turns,
)
from _page import Page, answers, open_axes, plt

CREDIT = "Indian Pines: Baumgardner, Biehl and Landgrebe (2015), doi:10.4231/R7RX991C, CC BY 3.0"


def draw_progress(fits: Sequence[Fits], found: Sequence[Swamp]) -> plt.Figure:
    """Draw what deflation costs, and how long swamps are."""
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4), layout="constrained")
    draw_deflation(axes[0], fits)
    draw_swamps(axes[1], found)
    for axis in axes:
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=9)
    open_axes(*axes)
    return figure


def measured(
    followed: Sequence[Course],
    fits: Sequence[Fits],
    found: Sequence[Swamp],
    agreement: Agreement,
    rotations: Sequence[Turn],
    special: Sequence[tuple[str, float, float]],
) -> dict[str, str]:
    """Return what is said of CP, each with what was measured."""
    plain, bound = followed[0], followed[-1]
    made, real, matrix = (max(one.factors) for one in fits)
    middle = [statistics.median(swamp.sweeps) for swamp in found[-2:]]
    # Rounded down, so that the statement is true.
    worst = math.floor(1e4 * min(agreement.scores)) / 1e4
    gaps = [gap for _, gap, _ in special]
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
    followed = courses(page.quick)
    page.tell("border", border_table(followed))
    print(f"\n{followed[0].message}")
    page.save(draw_border(followed), "border")
    fits = deflations(page.quick)
    page.tell("deflation", deflation_table(fits))
    found = swamps(page.quick)
    page.tell("swamps", swamp_table(found))
    page.save(draw_progress(fits, found), "progress", CREDIT)
    agreement, rotations, special = agree(), turns(), superdiagonal()
    page.tell("turns", turn_table(rotations))
    page.tell("superdiagonal", superdiagonal_table(special))
    page.tell("answers", answers(measured(followed, fits, found, agreement, rotations, special)))
    print(f"\n{CREDIT}")


if __name__ == "__main__":
    main()
