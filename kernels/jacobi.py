"""Eigenvectors of a small positive semidefinite matrix, by Jacobi's method from one side.

The columns of ``W = (T + I) V``, ``T`` scaled so that its largest entry is 1 to 2, are made
orthogonal by rotations of two of them; when all are, they are the eigenvectors times ``1 +``
eigenvalues. ``V`` is never formed, half of the work. With the identity all columns are about as
long: one whose eigenvalue is zero, or rounding, is as good as the others, and what is rounding
beside the largest entry needs no rotation.

The longer of two columns gets the lower index, and steps follow the order of a sweep row by row:
equal eigenvalues side by side converge in half the sweeps that they take scattered. A sweep is the
last if twice ``n`` times the largest cosine it found, times the largest tangent it rotated by, is
below the tolerance: what later rotations put back of a pair is no more. Sweeps of a NumPy model at
n = 24, 64, 96 and 192: 7, 9, 9 and 9 for Gram matrices of normal numbers; 8, 8, 9 and 9 where only
the first third is nearly diagonal; 8, 10, 9 and 10 of rank n / 3; 14, 18, 17 and 18 for eigenvalues
from 1 to 1e-16 in random directions; 2 to 4 of rank 1.

One launch of one program. Four columns at a time, two of one block and two of another, so that each
load and store, of two columns side by side, serves two rotations. A sweep takes ``3 n^3``
multiply-adds, ``4 n^3`` bytes of loads and as many of stores. For a tile, as many groups of four
columns as registers hold, in cycles of an H200: 24 multiply-adds for each element of a column, also
of what is masked, 64 a cycle; 128 bytes loaded a cycle, 64 beyond n = 170, where L1 is too small;
64 bytes stored; and 950 of waiting: eight sums over rows of 60 to 80, two times two reciprocal
roots, memory and barriers. Predicted so at 1.8 GHz, with 4 us for the launch, and not measured yet:
55 us at n = 24, 0.35 ms at 64, 1.2 ms at 96, 10 ms at 192, for as many sweeps as Gram matrices of
normal numbers take.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["LARGEST", "eigenvectors", "eigenvectors_kernel"]

#: Largest side.
LARGEST = 192

#: Of a side, what is a tile: groups of four columns; rows, where all columns are; and warps.
TILES = {16: (4, 16, 1), 32: (8, 16, 4), 64: (16, 16, 8), 128: (16, 8, 8), 256: (8, 8, 8)}

#: A bound on what a thread may take, without which ptxas spills to make room for another program.
REGISTERS = 255

#: Sweeps that are made at most.
SWEEPS = tl.constexpr(40)

#: Rounding of float64.
ROUNDING = tl.constexpr(2.0**-53)


@triton.jit
def _start(matrix_ptr, work_ptr, n, blocks, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr):
    """Store ``T``, scaled, plus the identity; return the scale, and 0, or NaN if not finite."""
    k, v = tl.arange(0, BLOCK_K)[:, None], tl.arange(0, BLOCK_N)[None, :]
    largest = tl.zeros([BLOCK_K, BLOCK_N], tl.float64)
    lost = tl.zeros([BLOCK_K, BLOCK_N], tl.float64)
    for start in range(0, n, BLOCK_K):
        row = start + k
        t = tl.load(matrix_ptr + row * n + v, (row < n) & (v < n), 0.0)
        largest = tl.maximum(largest, tl.abs(t))
        lost += 0 * t
    largest, lost = tl.max(tl.max(largest, 0), 0), tl.sum(tl.sum(lost, 0), 0)
    # A power of two, by its exponent.
    exponent = tl.minimum(largest.to(tl.int64, bitcast=True) >> 52, 2045)
    scale = ((2046 - exponent) << 52).to(tl.float64, bitcast=True)
    for start in range(0, n, BLOCK_K):
        row = start + k
        t = tl.load(matrix_ptr + row * n + v, (row < n) & (v < n), 0.0) * scale + lost
        # Beyond the last column there are zeros up to a whole block.
        target, mask = work_ptr + row * BLOCK_N + v, (row < n) & (v < 2 * blocks)
        tl.store(target, tl.where(row == v, t + 1, t), mask)
    return scale, lost


@triton.jit
def _rotate(x, y, xx, yy, cosine, tangent, tol):
    """Make columns of ``x`` and ``y`` orthogonal where they are not, the longer one first.

    Also returns their squared lengths, from ``xx`` and ``yy``, and the largest cosine, and tangent
    of a rotation, so far.
    """
    xy, difference = tl.sum(x * y, 0), xx - yy
    lengths, squared = xx * yy, difference * difference + 4 * xy * xy
    found = tl.abs(xy) * tl.rsqrt(tl.where(lengths > 0, lengths, 1.0))
    needed = found > tol
    root = tl.rsqrt(tl.where(squared > 0, squared, 1.0))
    # Of the angle, at most 45 degrees, that keeps the longer one where it is.
    half = 0.5 + 0.5 * tl.abs(difference) * root
    secant = tl.rsqrt(half)
    c, s = half * secant, xy * root * secant
    t = tl.where(needed, s * secant, 0.0)
    shorter = needed & (difference < 0)
    c, s = tl.where(needed, tl.where(shorter, s, c), 1.0), tl.where(shorter, c, s)
    s = tl.where(needed, s, 0.0)
    xx, yy = tl.where(shorter, yy, xx) + t * xy, tl.where(shorter, xx, yy) - t * xy
    cosine = tl.maximum(cosine, tl.where(needed, found, 0.0))
    tangent = tl.maximum(tangent, tl.abs(t))
    c, s = c[None, :], s[None, :]
    return c * x + s * y, c * y - s * x, xx, yy, cosine, tangent


@triton.jit
def _apart(w):
    """Return every second column, and the others."""
    return tl.split(tl.reshape(w, [w.shape[0], w.shape[1] // 2, 2]))


@triton.jit
def _together(x, y):
    """Return columns of ``x`` and ``y`` by turns."""
    return tl.reshape(tl.join(x, y), [x.shape[0], 2 * x.shape[1]])


@triton.jit
def _step(
    work_ptr,
    n,
    blocks,
    step,
    start,
    cosine,
    tangent,
    tol,
    BLOCK_N: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Rotate the columns of one block with those of another, before that once those within."""
    row, column = tl.arange(0, BLOCK_N)[:, None], tl.arange(0, 2 * BLOCK_G)
    k, last, half = start + column // 2, blocks - 1, blocks // 2
    # The last stays where it is while the others go round: i + j is the step, modulo their number.
    turn = step * half % last
    i, j = (turn + k) % last, tl.where(k == 0, last, (turn - k + last) % last)
    i, j = 2 * tl.minimum(i, j) + column % 2, 2 * tl.maximum(i, j) + column % 2
    i, j = tl.max_contiguous(tl.multiple_of(i, 2), 2), tl.max_contiguous(tl.multiple_of(j, 2), 2)
    rows, mask = work_ptr + row * BLOCK_N, (row < n) & (k < half)[None, :]
    # Columns a and b of one block, p and q of the other.
    wa, wb = _apart(tl.load(rows + i[None, :], mask, 0.0))
    wp, wq = _apart(tl.load(rows + j[None, :], mask, 0.0))
    aa, bb = tl.sum(wa * wa, 0), tl.sum(wb * wb, 0)
    pp, qq = tl.sum(wp * wp, 0), tl.sum(wq * wq, 0)
    if step == 0:
        wa, wb, aa, bb, cosine, tangent = _rotate(wa, wb, aa, bb, cosine, tangent, tol)
        wp, wq, pp, qq, cosine, tangent = _rotate(wp, wq, pp, qq, cosine, tangent, tol)
    wa, wp, aa, pp, cosine, tangent = _rotate(wa, wp, aa, pp, cosine, tangent, tol)
    wb, wq, bb, qq, cosine, tangent = _rotate(wb, wq, bb, qq, cosine, tangent, tol)
    wa, wq, aa, qq, cosine, tangent = _rotate(wa, wq, aa, qq, cosine, tangent, tol)
    wb, wp, bb, pp, cosine, tangent = _rotate(wb, wp, bb, pp, cosine, tangent, tol)
    tl.store(rows + i[None, :], _together(wa, wb), mask)
    tl.store(rows + j[None, :], _together(wp, wq), mask)
    return cosine, tangent


@triton.jit
def _finish(
    values_ptr,
    vectors_ptr,
    work_ptr,
    square_ptr,
    scale,
    n,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Store the lengths of the columns, less 1, and their directions, the longest first."""
    k, v = tl.arange(0, BLOCK_K)[:, None], tl.arange(0, BLOCK_N)
    total = tl.zeros([BLOCK_K, BLOCK_N], tl.float64)
    for start in range(0, n, BLOCK_K):
        row = start + k
        source = work_ptr + row * BLOCK_N + v[None, :]
        w = tl.load(source, (row < n) & (v < n)[None, :], 0.0)
        total += w * w
    square = tl.where(v < n, tl.sum(total, 0), 1.0)
    tl.store(square_ptr + v, square, v < n)
    # The lengths are complete.
    tl.debug_barrier()
    rank = tl.zeros([BLOCK_N], tl.int32)
    for start in range(0, n, BLOCK_K):
        u = start + k
        other, mine = tl.load(square_ptr + u, u < n, -1.0), square[None, :]
        # Of equals, and where nothing is a number, the first comes first.
        before = (other > mine) | (((other < mine) == 0) & (u < v[None, :]))
        rank += tl.sum(before.to(tl.int32), 0)
    length = tl.sqrt(square)
    tl.store(values_ptr + rank, tl.where(length < 1, 0.0, length - 1) / scale, v < n)
    inverse, target = (1 / length)[None, :], vectors_ptr + rank[None, :]
    for start in range(0, n, BLOCK_K):
        row = start + k
        source = work_ptr + row * BLOCK_N + v[None, :]
        mask = (row < n) & (v < n)[None, :]
        tl.store(target + row * n, tl.load(source, mask, 0.0) * inverse, mask)


@triton.jit(do_not_specialize=["n", "blocks"])
def eigenvectors_kernel(
    matrix_ptr,
    values_ptr,
    vectors_ptr,
    work_ptr,
    square_ptr,
    n,
    blocks,
    BLOCK_N: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``work``, ``[n, BLOCK_N]``, has the columns, and ``square``, ``[n]``, squared lengths.

    Columns are in ``blocks`` blocks of two, an even number, some of them zero.
    """
    scale, lost = _start(matrix_ptr, work_ptr, n, blocks, BLOCK_K, BLOCK_N)
    # The columns are complete.
    tl.debug_barrier()
    tol = tl.sqrt(tl.full([], 0.0, tl.float64) + n) * ROUNDING
    # What is not a number needs no rotation.
    going, sweep = lost == 0, tl.full([], 0, tl.int32)
    while going & (sweep < SWEEPS):
        cosine, tangent = tl.zeros([BLOCK_G], tl.float64), tl.zeros([BLOCK_G], tl.float64)
        for step in range(blocks - 1):
            for start in range(0, blocks // 2, BLOCK_G):
                cosine, tangent = _step(
                    work_ptr, n, blocks, step, start, cosine, tangent, tol, BLOCK_N, BLOCK_G
                )
            # The next step has other pairs.
            tl.debug_barrier()
        going = 2 * n * tl.max(cosine, 0) * tl.max(tangent, 0) > tol
        sweep += 1
    _finish(values_ptr, vectors_ptr, work_ptr, square_ptr, scale, n, BLOCK_K, BLOCK_N)


def eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues ``[n]``, descending, and in the columns of ``[n, n]`` their eigenvectors.

    ``matrix`` is symmetric and positive semidefinite, to rounding, float64, of 1 to `LARGEST` rows
    and any strides; all of it is read. The columns are orthonormal, and ``T V - V diag(values)`` is
    of the size of the rounding of ``T``, whatever its rank, scale and eigenvalues. Eigenvalues are
    as exact as that, beside the largest, and none is negative; of equal ones the columns are in the
    order in which they were found. Where anything is not finite all is NaN.
    """
    n = matrix.shape[0]
    if matrix.shape != (n, n) or not 0 < n <= LARGEST or matrix.dtype != torch.float64:
        raise ValueError(
            f"eigenvectors: matrix {tuple(matrix.shape)} of {matrix.dtype}; expected a square one "
            f"of float64, of 1 to {LARGEST} rows"
        )
    side = max(16, triton.next_power_of_2(n))
    groups, rows, warps = TILES[side]
    values, vectors = matrix.new_empty(n), matrix.new_empty(n, n)
    with torch.cuda.device_of(matrix):
        eigenvectors_kernel[(1,)](
            matrix.contiguous(),
            values,
            vectors,
            matrix.new_empty(n, side),
            matrix.new_empty(n),
            n,
            2 * -(-n // 4),
            BLOCK_N=side,
            BLOCK_G=groups,
            BLOCK_K=rows,
            num_warps=warps,
            maxnreg=REGISTERS,
        )
    return values, vectors
