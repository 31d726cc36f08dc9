"""Where a tensor is cut: into boxes, into slabs along a mode, or its modes into two sides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from torch import Tensor

__all__ = ["SLAB", "boxes", "by_stride", "cut", "grain", "middle", "rows_in"]

#: Elements of a block that a matrix product works on: large enough for GEMM to reach its rate,
#: small next to the tensor. Also the unit in which non-contiguous and half-precision data are
#: converted.
SLAB = 1 << 20

#: Elements of a block on a GPU, where a block is a few launches: 64 MB of float32, which memory
#: delivers in three times the time of a launch.
GRAIN = 1 << 24


def grain(elements: int, x: Tensor) -> int:
    """Return how many elements of ``x`` make a block: so many on a CPU, `GRAIN` on a GPU."""
    return GRAIN if x.is_cuda else elements


def by_stride(x: Tensor) -> list[int]:
    """Return the modes in the order of memory, slowest first."""
    return sorted(range(x.ndim), key=lambda n: (-x.stride()[n], n))


def boxes(shape: Sequence[int], elements: int) -> Iterator[tuple[slice, ...]]:
    """Cut a tensor into boxes of at most ``elements`` elements, whatever its shape.

    Slow modes are cut first, but no side of 64 or less while another is longer, and then none of 16
    or less: along whichever mode a box is contracted, it is a product of matrices and not of
    vectors. (float16, 400^3: `ttm` along the first mode with 64 rows takes 1.8 s in slabs of whole
    rows and 0.17 s in boxes; the float32 tensor whole 0.14 s.)
    """
    sides = list(shape)
    for least in (64, 16, 1):
        for n in range(len(sides)):
            while sides[n] > least and math.prod(sides) > elements:
                sides[n] = (sides[n] + 1) // 2
    steps = zip(shape, (max(1, side) for side in sides), strict=True)
    cuts = ([slice(lo, lo + step) for lo in range(0, size, step)] for size, step in steps)
    return itertools.product(*cuts)


def rows_in(k: Tensor, shape: Sequence[int], box: tuple[slice, ...]) -> Tensor:
    """Return the rows of ``k`` that lie in a box; they run over modes of sizes ``shape``."""
    return k.unflatten(0, shape)[box].flatten(0, -2)


def cut(x: Tensor, elements: int, keep: int | None = None) -> tuple[int, int]:
    """Choose a mode other than ``keep`` to cut ``x`` along, and how thick the slabs are.

    The slowest that gives slabs of ``elements`` elements, or twice as many, as the runs in memory
    are longest there. Where none does, the longest.
    """
    pieces = -(-x.numel() // (2 * elements))
    axis = max((n for n in range(x.ndim) if n != keep), key=lambda n: min(x.shape[n], pieces))
    return axis, max(1, elements * x.shape[axis] // max(1, x.numel()))


def middle(shape: Sequence[int]) -> int:
    """Cut of the modes that makes the Khatri-Rao products of the two sides shortest together."""
    cuts = range(1, len(shape))
    return min(cuts, key=lambda c: math.prod(shape[:c]) + math.prod(shape[c:]), default=len(shape))
