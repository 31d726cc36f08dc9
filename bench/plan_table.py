"""What `cp_als` does with typical problems on a GPU: the table of ``docs/gpu.md``.

``python -m bench.plan_table`` writes it, ``--check`` tells whether it is out of date. Nothing runs:
the choice is a function of shapes, types and the GPU's data sheet.
"""

import math
from pathlib import Path

import torch

from bench.tables import between, keep, table
from tensorfast.cp.plan_fused import below, plan_fused
from tensorfast.cp.schedule import all_schedules
from tensorfast.cp.tree import contraction_tree
from tensorfast.kernels import slab_plan
from tensorfast.kernels.devices import CHIPS
from tensorfast.kernels.plan import Contraction
from tensorfast.ops.fused import Fused

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gpu.md"

#: Shape, rank, storage type.
PROBLEMS = [
    ((32, 32, 32), 8, "float32"),
    ((64, 64, 64), 16, "float32"),
    ((64, 64, 64), 64, "float32"),
    ((128, 128, 128), 32, "float32"),
    ((200, 200, 200), 16, "float32"),
    ((200, 200, 200), 64, "float32"),
    ((400, 400, 400), 16, "float32"),
    ((400, 400, 400), 64, "float32"),
    ((512, 512, 512), 16, "float32"),
    ((512, 512, 512), 32, "float32"),
    ((512, 512, 512), 64, "float32"),
    ((512, 512, 512), 256, "float32"),
    ((512, 512, 512), 32, "bfloat16"),
    ((512, 512, 512), 32, "float16"),
    ((512, 512, 512), 32, "float64"),
    ((1024, 1024, 1024), 32, "float32"),
    ((1024, 1024, 1024), 64, "float32"),
    ((64, 64, 64, 64), 16, "float32"),
    ((64, 64, 64, 64), 64, "float32"),
    ((128, 128, 128, 128), 32, "float32"),
    ((128, 128, 128, 128), 64, "float32"),
    ((1000, 200, 50), 32, "float32"),
    ((50, 800, 800), 32, "float32"),
    ((44, 2700, 200), 16, "float32"),
    ((5, 1000, 1000), 20, "float32"),
    ((24, 24, 24, 24, 24), 16, "float32"),
    ((24, 24, 24, 24, 24), 64, "float32"),
    ((16, 16, 16, 16, 16, 16), 16, "float32"),
    ((10,) * 8, 8, "float32"),
    ((4000, 3000), 32, "float32"),
]

HEAD = [
    "shape",
    "R",
    "stored",
    "schedule",
    "runs",
    "reads of x",
    "a sweep",
    "in slab passes",
    "at the bandwidth",
]


def in_slab_passes(x, rank, schedule):
    """Predict a sweep whose runs are slab passes: the first update of each within its contraction.

    Parameters
    ----------
    x : Tensor
        In C order.
    rank : int
    schedule : Schedule

    Returns
    -------
    float
        Seconds; infinite where a run has one mode, or all.
    """
    if not all(1 < len(run) < x.ndim for run in schedule.runs):
        return math.inf
    seconds = 0.0
    for run in schedule.runs:
        seconds += slab_plan.expected(Contraction.of(x, run, rank, "ieee"))[2]
        group = sorted(run[1:])
        if len(group) > 1:
            root = contraction_tree(range(x.ndim), run[1:], x.shape)
            seconds += below(Fused("ieee"), x, root, [x.shape[n] for n in group], rank)
    return seconds / schedule.sweeps


def row(shape, rank, dtype):
    """Return a row of the table.

    Parameters
    ----------
    shape : tuple of int
    rank : int
    dtype : str

    Returns
    -------
    list of str
    """
    x, modes = torch.empty(shape, dtype=getattr(torch, dtype), device="meta"), range(len(shape))
    schedule = plan_fused(x, Fused("ieee"), tuple(modes), rank, tuple(modes))
    slabs = min(in_slab_passes(x, rank, schedule) for schedule in all_schedules(modes))
    runs = " ".join("".join("abcdefgh"[n] for n in run) for run in schedule.runs)
    ideal = schedule.reads * math.prod(shape) * x.element_size() / CHIPS[90].bandwidth
    return [
        " x ".join(map(str, shape)),
        str(rank),
        dtype,
        schedule.name.replace("_", " "),
        runs,
        f"{schedule.reads:.2f}",
        f"{schedule.seconds * 1e6:.0f} us",
        f"{slabs * 1e6:.0f} us" if slabs < math.inf else "",
        f"{ideal * 1e6:.0f} us",
    ]


def written():
    """Return the page as it should be.

    Returns
    -------
    str
    """
    rows = [row(*problem) for problem in PROBLEMS]
    return between(PAGE.read_text(encoding="utf-8"), "plans", table(HEAD, rows))


if __name__ == "__main__":
    keep(PAGE, written, __doc__, "bench.plan_table")
