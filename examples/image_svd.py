"""Compress a photograph by the truncated SVD and, in colour, by CP and Tucker decompositions.

The photograph is `china.jpg` by danielbuechele, https://www.flickr.com/photos/danielbuechele/,
licence CC BY 2.0. It comes with scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from _image_svd.colour import BUDGETS, SWEEPS, colour_models, colour_table, draw_colour
from _image_svd.grey import Level, draw_ranks, draw_spectrum, levels, ranks_table
from _image_svd.large import enlarge, race, race_table
from _image_svd.likeness import PEAK
from _page import Page, answers
from sklearn.datasets import load_sample_image

CREDIT = "china.jpg: danielbuechele, flickr.com/photos/danielbuechele/6061409035, CC BY 2.0"
#: What a grey image weighs red, green and blue with: ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)


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
    page.save(draw_ranks(grey, found), "ranks", CREDIT, colours=40)
    page.save(draw_spectrum(grey, found), "spectrum", CREDIT)
    models = colour_models(rgb, *((BUDGETS[:2], 10) if page.quick else (BUDGETS, SWEEPS)))
    page.tell("colour", colour_table(rgb, models))
    page.save(draw_colour(rgb, models), "colour", CREDIT, colours=256)
    shape, rank = ((600, 800), 20) if page.quick else ((3000, 4000), 100)
    print("\n{} x {}, float32, rank {}".format(*shape, rank))
    page.tell("large", race_table(race(enlarge(grey, shape), rank)))
    print(f"\n{CREDIT}")


if __name__ == "__main__":
    main()
