"""Flat indices over several modes inside kernels, and how modes are merged beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl

__all__ = ["alignment", "khatri_rao_rows", "merged", "multiple", "offset", "plain", "span", "wide"]

Tuple = tuple[int, ...]

#: What 32 bits hold, less what the last block may overhang.
NARROW = 2**31 - 2**16


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


def alignment(
    itemsize: int, groups: Sequence[tuple[Tuple, Tuple]], others: Tuple = ()
) -> tuple[int, int | None]:
    """Return how many neighbours in memory may be moved as one, and the group that holds them.

    ``groups`` are the merged sizes and strides of sets of modes that are walked one by one. The
    first with a last stride of 1 is the contiguous one. All its other strides, those of the other
    groups, ``others``, and its last size are multiples of the number returned, a power of two of at
    most 16 bytes. ``(1, None)`` where no group is contiguous.
    """
    for place, (sizes, steps) in enumerate(groups):
        if steps[-1] == 1:
            elsewhere = [s for n, (_, other) in enumerate(groups) if n != place for s in other]
            strides = (*steps[:-1], *elsewhere, *others)
            return math.gcd(16 // itemsize, sizes[-1], *strides), place
    return 1, None


def span(sizes: Tuple, strides: Tuple) -> int:
    """Return the greatest offset in memory over modes of these sizes and strides."""
    return sum((size - 1) * step for size, step in zip(sizes, strides, strict=True) if size > 1)


def wide(*largest: int) -> bool:
    """Whether lengths or offsets of this size take more than 32 bits."""
    return max(largest) > NARROW


def plain(shape: Tuple, strides: Tuple, itemsize: int) -> bool:
    """Whether a tensor has at most three modes, is loaded 16 bytes at a time, and is not `wide`.

    Of any other, pointers and indices take more registers.
    """
    modes = [n for n in range(len(shape)) if shape[n] > 1]
    fastest = min(modes, key=lambda n: strides[n], default=None)
    if len(shape) > 3 or fastest is None or strides[fastest] != 1:
        return False
    others = (strides[n] for n in modes if n != fastest)
    aligned = math.gcd(shape[fastest], *others) * itemsize % 16 == 0
    return aligned and not wide(span(shape, strides))


@triton.jit
def multiple(n, UNIT: tl.constexpr):
    """Return ``n``, a multiple of ``UNIT``, in a form that shows the compiler that it is one."""
    return n // UNIT * UNIT


@triton.jit
def offset(index, sizes, strides, UNIT: tl.constexpr, CONTIGUOUS: tl.constexpr, WIDE: tl.constexpr):
    """Return the offset in memory of flat C-order indices over modes of these sizes and strides.

    All strides are multiples of ``UNIT``; if ``CONTIGUOUS`` the last is 1 instead, and the last
    size a multiple. In 64 bits where ``WIDE``, else in 32, which takes half the registers.
    """
    # Digits are widened before they meet a stride; in the interpreter a loop's index is a number.
    zero = tl.full([], 0, tl.int64 if WIDE else tl.int32)
    last: tl.constexpr = len(sizes) - 1
    out = zero
    for step in tl.static_range(len(sizes)):
        if step == 0 and CONTIGUOUS:
            size, stride = multiple(sizes[last], UNIT), 1
        else:
            size, stride = sizes[last - step], multiple(strides[last - step], UNIT)
        if step == last:
            out += (zero + index) * stride
        else:
            out += (zero + index % size) * stride
            index = index // size
    return out


@triton.jit
def khatri_rao_rows(factors, sizes, index, columns, rank, mask, WIDE: tl.constexpr):
    """Form rows ``index`` of the Khatri-Rao product of C-ordered factors ``[I_n, rank]``.

    At ``columns``; these and ``index`` broadcast against each other and ``mask``. Offsets take 64
    bits where ``WIDE``.
    """
    zero = tl.full([], 0, tl.int64 if WIDE else tl.int32)
    last: tl.constexpr = len(sizes) - 1
    out = tl.load(factors[last] + (zero + index % sizes[last]) * rank + columns, mask, 0.0)
    for step in tl.static_range(1, len(sizes)):
        index = index // sizes[last - step + 1]
        row = zero + index % sizes[last - step]
        out *= tl.load(factors[last - step] + row * rank + columns, mask, 0.0)
    return out
