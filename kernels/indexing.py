"""Flat indices over several modes inside kernels, and how modes are merged beforehand."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["khatri_rao_rows", "merged", "offset"]

Tuple = tuple[int, ...]


def merged(sizes: Tuple, *strides: Tuple) -> tuple[Tuple, ...]:
    """Merge neighbouring modes that one stride walks through, in every array; drop length 1.

    ``strides`` has one entry an array. Returns the sizes, then the strides of each array; the flat
    C-order index over the modes stays the same. A single mode of stride 0 where nothing is left.
    """
    modes: list[tuple[int, Tuple]] = []
    for size, *steps in zip(sizes, *strides, strict=True):
        if size == 1:
            continue
        if modes and all(
            outer == size * inner for outer, inner in zip(modes[-1][1], steps, strict=True)
        ):
            modes[-1] = (modes[-1][0] * size, tuple(steps))
        else:
            modes.append((size, tuple(steps)))
    modes = modes or [(1, (0,) * len(strides))]
    return (
        tuple(size for size, _ in modes),
        *(tuple(steps[i] for _, steps in modes) for i in range(len(strides))),
    )


@triton.jit
def offset(index, sizes, strides):
    """Return the offset in memory of flat C-order indices over modes of these sizes and strides."""
    # Digits are widened before they meet a stride; in the interpreter a loop's index is a number.
    zero = tl.full([], 0, tl.int64)
    out = zero
    for step in tl.static_range(len(sizes)):
        if step == len(sizes) - 1:
            out += (zero + index) * strides[0]
        else:
            out += (zero + index % sizes[len(sizes) - 1 - step]) * strides[len(sizes) - 1 - step]
            index = index // sizes[len(sizes) - 1 - step]
    return out


@triton.jit
def khatri_rao_rows(factors, sizes, index, columns, rank, mask):
    """Form rows ``index`` of the Khatri-Rao product of C-ordered factors ``[I_n, rank]``.

    At ``columns``; these and ``index`` broadcast against each other and ``mask``.
    """
    zero = tl.full([], 0, tl.int64)
    last: tl.constexpr = len(sizes) - 1
    out = tl.load(factors[last] + (zero + index % sizes[last]) * rank + columns, mask, 0.0)
    for step in tl.static_range(1, len(sizes)):
        index = index // sizes[last - step + 1]
        row = zero + index % sizes[last - step]
        out *= tl.load(factors[last - step] + row * rank + columns, mask, 0.0)
    return out
