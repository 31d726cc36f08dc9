"""Forward elimination of ``[H | I]`` to ``[L^T | L^-1]``, a block in the registers of a program.

What is above the diagonal is of ``L^T``, what is on and below it of ``L^-1``: each takes the place
of what it was made from. Four columns at a time: each thread has a part of the four rows that they
need, so these are stored, in what stays in cache, and loaded by all. Every thread factors the 4 x 4
numbers in their corner for itself, and subtracts the product of four columns and four rows.

The chain of a step, in cycles of an H200: store, barrier and load 100 to 300; four times a
reciprocal root and three operations, 4 x 70; two solves with the corner and the product, 100. About
600 for four columns, 150 a column; each column by itself would take two reductions across warps, a
reciprocal root and a product, 500.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["LOST", "ROUNDING", "SOUND", "diagonal_block", "eliminate", "form", "weigh"]

#: How an elimination ends: well, with a pivot that is rounding, with one that is not finite.
SOUND, ROUNDING, LOST = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def form(
    grams,
    h_ptr,
    stride,
    l2,
    rank,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Store the Hadamard product and ``l2 I``, continued by the identity beyond the rank.

    The blocks on and above the diagonal, and what ``COLUMNS`` overhangs.
    """
    for start in range(0, rank, BLOCK):
        row = start + tl.arange(0, BLOCK)[:, None]
        for left in range(start, rank, COLUMNS):
            column = left + tl.arange(0, COLUMNS)[None, :]
            inside = (row < rank) & (column < rank)
            h = tl.load(grams[0] + row * rank + column, inside, 0.0)
            for n in tl.static_range(1, len(grams)):
                h *= tl.load(grams[n] + row * rank + column, inside, 0.0)
            diagonal = tl.where(row < rank, h + l2, 1.0)
            tl.store(h_ptr + row * stride + column, tl.where(row == column, diagonal, h))


@triton.jit
def weigh(h_ptr, shift_ptr, square_ptr, stride, ridge, rank, BLOCK: tl.constexpr):
    """Store what the ridge adds to the diagonal, and the diagonal with it."""
    total = tl.full([], 0.0, tl.float64)
    for start in range(0, rank, BLOCK):
        k = start + tl.arange(0, BLOCK)
        total += tl.sum(tl.load(h_ptr + k * stride + k, k < rank, 0.0), 0)
    mean = total / rank
    for start in range(0, rank, BLOCK):
        k = start + tl.arange(0, BLOCK)
        square = tl.load(h_ptr + k * stride + k)
        # A column that has vanished gets the mean weight, so that it stays where it is.
        weight = tl.where(square > 0, square, tl.where(mean > 0, mean, 1.0))
        shift = tl.where(k < rank, tl.where(ridge > 0, ridge * weight, 0.0), 0.0)
        tl.store(shift_ptr + k, shift, k < rank)
        tl.store(square_ptr + k, square + shift)


@triton.jit
def diagonal_block(h_ptr, square_ptr, stride, BLOCK: tl.constexpr):
    """Return a block of ``H`` with its ridge."""
    at = tl.arange(0, BLOCK)
    row, column = at[:, None], at[None, :]
    h = tl.load(h_ptr + row * stride + column)
    return tl.where(row == column, tl.load(square_ptr + column), h)


@triton.jit
def _pivot(d, square_ptr, least, state):
    """Return the reciprocal root of a pivot, and how things stand after it."""
    sound = (d > 0) & (d > least * tl.load(square_ptr))
    failed = tl.where(tl.abs(d) < float("inf"), ROUNDING, LOST)
    return tl.rsqrt(d), tl.where(sound | (state != SOUND), state, failed)


@triton.jit
def _corner(at, square_ptr, least, state, BLOCK: tl.constexpr):
    """Factor the 4 x 4 numbers at ``at``, each thread for itself.

    Returns the reciprocal roots of the pivots, the rows below the diagonal, and how it ended.
    """
    d0, a01, a02, a03 = tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)
    d1, a12, a13 = tl.load(at + BLOCK + 1), tl.load(at + BLOCK + 2), tl.load(at + BLOCK + 3)
    d2, a23 = tl.load(at + 2 * BLOCK + 2), tl.load(at + 2 * BLOCK + 3)
    d3 = tl.load(at + 3 * BLOCK + 3)
    r0, state = _pivot(d0, square_ptr, least, state)
    l10, l20, l30 = a01 * r0, a02 * r0, a03 * r0
    d1 -= l10 * l10
    r1, state = _pivot(d1, square_ptr + 1, least, state)
    l21, l31 = (a12 - l20 * l10) * r1, (a13 - l30 * l10) * r1
    d2 = d2 - l20 * l20 - l21 * l21
    r2, state = _pivot(d2, square_ptr + 2, least, state)
    l32 = (a23 - l30 * l20 - l31 * l21) * r2
    d3 = d3 - l30 * l30 - l31 * l31 - l32 * l32
    r3, state = _pivot(d3, square_ptr + 3, least, state)
    pivots = (d0 * r0, d1 * r1, d2 * r2, d3 * r3)
    return pivots, (r0, r1, r2, r3), (l10, l20, l30, l21, l31, l32), state


@triton.jit
def _load_four(at, mask, BLOCK: tl.constexpr):
    """Return entries of four rows."""
    a0, a1 = tl.load(at, mask, 0.0), tl.load(at + BLOCK, mask, 0.0)
    return a0, a1, tl.load(at + 2 * BLOCK, mask, 0.0), tl.load(at + 3 * BLOCK, mask, 0.0)


@triton.jit
def _forward(rows, roots, below):
    """Solve with the 4 x 4 factor for four rows."""
    l10, l20, l30, l21, l31, l32 = below
    a0 = rows[0] * roots[0]
    a1 = (rows[1] - l10 * a0) * roots[1]
    a2 = (rows[2] - l20 * a0 - l21 * a1) * roots[2]
    a3 = (rows[3] - l30 * a0 - l31 * a1 - l32 * a2) * roots[3]
    return a0, a1, a2, a3


@triton.jit
def eliminate(
    t,
    square_ptr,
    rows_ptr,
    inverse_ptr,
    upper_ptr,
    stride,
    count,
    least,
    BLOCK: tl.constexpr,
):
    """Eliminate the first ``count`` columns of ``t``, whose part above the diagonal counts.

    Stores its ``L^-1``, and ``L^T`` if ``upper_ptr`` is not None; returns how it ended. Pivots are
    held against the diagonal ``square``; ``rows``, ``[2, 4, BLOCK]``, takes four rows and the next
    four in turn.
    """
    at = tl.arange(0, BLOCK)
    row, column = at[:, None], at[None, :]
    state, k = tl.full([], SOUND, tl.int32), tl.full([], 0, tl.int32)
    while (state == SOUND) & (k < count):
        four = rows_ptr + k % 8 * BLOCK
        tl.store(four + (row - k) * BLOCK + column, t, (row >= k) & (row < k + 4))
        # The four rows are complete.
        tl.debug_barrier()
        pivots, roots, below, state = _corner(four + k, square_ptr + k, least, state, BLOCK)
        # To the right of the corner L^T comes out, in it and to the left L^-1.
        inside = (column >= k) & (column < k + 4)
        a = _load_four(four + column, column < BLOCK, BLOCK)
        a0 = tl.where(column == k, 1.0, tl.where(inside, 0.0, a[0]))
        a1 = tl.where(column == k + 1, 1.0, tl.where(inside, 0.0, a[1]))
        a2 = tl.where(column == k + 2, 1.0, tl.where(inside, 0.0, a[2]))
        a3 = tl.where(column == k + 3, 1.0, tl.where(inside, 0.0, a[3]))
        a = _forward((a0, a1, a2, a3), roots, below)
        b = _forward(_load_four(four + row, row >= k + 4, BLOCK), roots, below)
        t = tl.where(inside, 0.0, t)
        for n in tl.static_range(4):
            t -= b[n] * a[n]
            target, mask = (k + n) * stride + column, (k + n < count) & (column < count)
            tl.store(inverse_ptr + target, tl.where(column <= k + n, a[n], 0.0), mask)
            if upper_ptr is not None:
                # A row of the corner: its own pivot, and the columns of those below.
                kept = tl.where(column > k + 3, a[n], 0.0)
                kept = tl.where(column == k + n, pivots[n], kept)
                for m in tl.static_range(n + 1, 4):
                    kept = tl.where(column == k + m, below[2 * n - n // 2 + m - 1], kept)
                tl.store(upper_ptr + target, kept, mask)
        k += 4
    return state
