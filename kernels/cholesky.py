"""Cholesky factor of the normal equations, inverted, with a ridge that rises where it must.

``H``, the Hadamard product of Gram matrices, has a factor ``L L^T``, and what solves with it is
``L^-1``. `elimination` gives both. Where a pivot is no more than rounding it starts anew, with a
larger ridge.

One launch of one program: what is R x R is small, and a second launch, or a decision of the host
in between, would take longer than most of it. Flops ``2 R^3 / 3``, half of them for ``L``; bytes:
the Gram matrices once, ``H`` twice an attempt, the result.

Up to `TILE` columns there is one tile, and nothing but its elimination, 150 cycles a column. Above,
blocks: row after row, those beside the diagonal are what is left of ``H``, or of the identity,
after a product with the rows above, solved with the block on the diagonal by a product with its
inverse and one correction. A product of 16 x 32 x 128 takes a multiprocessor of an H200, which does
256 flops a cycle, 512 cycles and about 150 of waiting; a block of 16 x 128 takes three more, with
a wait each, about 1100; one on the diagonal 450 for 32 terms. Predicted so at 1.8 GHz, with 1.5 us
for the launch and the first loads, and not measured yet: 3 us at R = 16, 7 us at 64, 120 us at 256,
560 us at 512, of which 190 are flops.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import Chip, chip_of
from .elimination import ROUNDING, SOUND, diagonal_block, eliminate, form, weigh
from .indexing import multiple
from .products import product

__all__ = ["TILE", "factor_kernel", "factorize", "workspace"]

Ints = tuple[int, ...]

#: Largest side that is eliminated as a single tile, and its warps by side: at most 16 elements a
#: thread.
TILE, TILE_WARPS = 64, {16: 1, 32: 4, 64: 8}

#: Above, the side of a block, the terms of a product, and warps.
BLOCK, TERMS, WARPS = 16, 32, 8

#: A bound on what a thread may take, without which ptxas spills to make room for another program.
REGISTERS = 255

#: Largest rank: its square fits into 32 bits, with room for what is beside.
LARGEST = 1 << 15

#: Ridges that are tried; the last outweighs all beside the diagonal.
ATTEMPTS = tl.constexpr(40)


@triton.jit
def _double(bits):
    """Return the number that was sent as the integer of its bits: a float would come in 32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _end(
    inverse_ptr, shift_ptr, ridge_ptr, active_ptr, state, ridge, stride, rank, BLOCK: tl.constexpr
):
    """Note the ridge if the fit is active; where there is no factor, let the results say so."""
    largest, counts = tl.load(ridge_ptr), (state == SOUND) & (tl.load(active_ptr) != 0)
    tl.store(ridge_ptr, tl.where(counts & (ridge > largest), ridge, largest))
    if state != SOUND:
        # All that was stored is overwritten.
        tl.debug_barrier()
        for start in range(0, rank, BLOCK):
            k = start + tl.arange(0, BLOCK)
            nan = tl.full([BLOCK], float("nan"), tl.float64)
            tl.store(shift_ptr + k, nan, k < rank)
            for row in range(rank):
                tl.store(inverse_ptr + row * stride + k, nan, k < rank)


@triton.jit
def _terms(acc, left_ptr, right_ptr, stride, first, last, PRECISION: tl.constexpr, K: tl.constexpr):
    """Return ``acc`` less the product of two stretches of rows, the left one transposed."""
    rows, columns = tl.arange(0, acc.shape[0]), tl.arange(0, acc.shape[1])
    for start in range(first, last, K):
        k = start + tl.arange(0, K)
        left = tl.load(left_ptr + k[None, :] * stride + rows[:, None], (k < last)[None, :], 0.0)
        right = tl.load(
            right_ptr + k[:, None] * stride + columns[None, :], (k < last)[:, None], 0.0
        )
        acc -= product(left, right, PRECISION)
    return acc


@triton.jit
def _solved(acc, inverse_ptr, upper_ptr, stride, PRECISION: tl.constexpr):
    """Return ``L^-1 acc`` with the block on the diagonal."""
    at = tl.arange(0, acc.shape[0])
    w = tl.load(inverse_ptr + at[:, None] * stride + at[None, :])
    lower = tl.load(upper_ptr + at[None, :] * stride + at[:, None])
    out = product(w, acc, PRECISION)
    # An inverse leaves more than the rounding of a substitution: once more with what it leaves.
    return out + product(w, acc - product(lower, out, PRECISION), PRECISION)


@triton.jit
def _blocks(
    inverse_ptr,
    upper_ptr,
    h_ptr,
    rows_ptr,
    square_ptr,
    rank,
    stride,
    least,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Eliminate one row of blocks after the other; return how it ended."""
    r, c = tl.arange(0, BLOCK_R)[:, None], tl.arange(0, BLOCK_C)[None, :]
    state, start = tl.full([], SOUND, tl.int32), tl.full([], 0, tl.int32)
    while (state == SOUND) & (start < rank):
        start = multiple(start, BLOCK_R)
        # A block of columns, of which those above the diagonal are what rows are made with.
        above, square, down = upper_ptr + start, square_ptr + start, start * stride
        w, u = inverse_ptr + down + start, upper_ptr + down + start
        t = diagonal_block(h_ptr + down + start, square, stride, BLOCK_R)
        t = _terms(t, above, above, stride, 0, start, PRECISION, BLOCK_K)
        state = eliminate(t, square, rows_ptr, w, u, stride, BLOCK_R, least, BLOCK_R)
        # The block on the diagonal is complete.
        tl.debug_barrier()
        if state == SOUND:
            target = down + r * stride + c
            for left in range(0, start, BLOCK_C):
                out = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
                right = inverse_ptr + left
                out = _terms(out, above, right, stride, left, start, PRECISION, BLOCK_K)
                out = _solved(out, w, u, stride, PRECISION)
                tl.store(right + target, out, left + c < start)
            for left in range(start + BLOCK_R, rank, BLOCK_C):
                right, out = upper_ptr + left, tl.load(h_ptr + left + target)
                out = _terms(out, above, right, stride, 0, start, PRECISION, BLOCK_K)
                out = _solved(out, w, u, stride, PRECISION)
                tl.store(right + target, out)
                tl.store(inverse_ptr + left + target, tl.zeros_like(out))
        # The row of blocks is complete.
        tl.debug_barrier()
        start += BLOCK_R
    return state


@triton.jit(do_not_specialize=["rank", "stride", "l2", "least"])
def factor_kernel(
    grams,
    inverse_ptr,
    upper_ptr,
    h_ptr,
    shift_ptr,
    ridge_ptr,
    active_ptr,
    rows_ptr,
    square_ptr,
    rank,
    stride,
    l2,
    least,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """``H`` by blocks, of which ``inverse``, ``upper`` and ``h`` have whole ones, and one more.

    As a single tile where there is no ``upper``; ``inverse`` is ``[rank, rank]`` then.
    """
    l2, least = _double(l2), _double(least)
    if upper_ptr is None:
        stride, h_stride = rank, BLOCK_R
    else:
        stride = multiple(stride, BLOCK_R)
        h_stride = stride
    state, attempt = tl.full([], ROUNDING, tl.int32), tl.full([], 0, tl.int32)
    ridge, following = tl.full([], 0.0, tl.float64), tl.full([], 0.0, tl.float64)
    form(grams, h_ptr, h_stride, l2, rank, BLOCK_R, BLOCK_C)
    # H is complete.
    tl.debug_barrier()
    while (state == ROUNDING) & (attempt < ATTEMPTS):
        ridge = following
        weigh(h_ptr, shift_ptr, square_ptr, h_stride, ridge, rank, BLOCK_R)
        # The diagonal is complete.
        tl.debug_barrier()
        if upper_ptr is None:
            t = diagonal_block(h_ptr, square_ptr, h_stride, BLOCK_R)
            state = eliminate(
                t, square_ptr, rows_ptr, inverse_ptr, None, stride, rank, least, BLOCK_R
            )
            # The next attempt overwrites the diagonal and the rows.
            tl.debug_barrier()
        else:
            state = _blocks(
                inverse_ptr,
                upper_ptr,
                h_ptr,
                rows_ptr,
                square_ptr,
                rank,
                stride,
                least,
                PRECISION,
                BLOCK_R,
                BLOCK_K,
                BLOCK_C,
            )
        following = tl.where(ridge > 0, 10 * ridge, 2 * least)
        attempt += 1
    _end(inverse_ptr, shift_ptr, ridge_ptr, active_ptr, state, ridge, stride, rank, BLOCK_R)


def factorize(
    grams: Sequence[Tensor],
    l2: float,
    least: float,
    ridge: Tensor,
    active: Tensor,
    chip: Chip | None = None,
) -> tuple[Tensor, Tensor]:
    """Factor ``H + mu diag(w) = L L^T``; return ``L^-1 [R, R]`` and ``mu w [R]``, float64.

    ``H`` is the Hadamard product of the ``grams``, symmetric float64 ``[R, R]``, plus ``l2 I``. Its
    relative ridge ``mu`` is the smallest of 0, ``2 least``, ``20 least``, ... with which every
    pivot is above ``least`` of its diagonal; ``w`` is the diagonal of ``H``, or its mean where that
    is not positive. ``ridge``, float64, one element, becomes the larger of itself and ``mu`` if
    ``active``, a boolean of one element. There are zeros above the diagonal of ``L^-1``. Where
    ``H`` is not finite both are NaN.
    """
    rank, like = grams[0].shape[0], grams[0]
    if not 0 < rank <= LARGEST:
        raise ValueError(f"factorize: rank {rank}; expected 1 to {LARGEST}")
    chip = chip_of(like.device) if chip is None else chip
    matrices, numbers = tuple(g.contiguous() for g in grams), (_bits(l2), _bits(least))
    shapes, blocks = _Shapes.of(rank, chip), rank > TILE
    inverse, shift, h, rows, square = map(like.new_empty, shapes[:5])
    side = rows.shape[-1]
    with torch.cuda.device_of(like):
        factor_kernel[(1,)](
            matrices,
            inverse,
            like.new_empty(shapes.upper) if shapes.upper else None,
            h,
            shift,
            ridge,
            active,
            rows,
            square,
            rank,
            inverse.stride(0),
            *numbers,
            PRECISION="ieee" if blocks else None,
            BLOCK_R=side,
            BLOCK_K=TERMS,
            BLOCK_C=_columns(chip) if blocks else side,
            num_warps=WARPS if blocks else TILE_WARPS[side],
            maxnreg=REGISTERS,
        )
    return inverse[:rank, :rank], shift


class _Shapes(NamedTuple):
    """The arrays that `factorize` makes; ``inverse`` and ``shift`` are what it returns.

    ``upper`` is None where there is one tile.
    """

    inverse: Ints
    shift: Ints
    h: Ints
    rows: Ints
    square: Ints
    upper: Ints | None

    @classmethod
    def of(cls, rank: int, chip: Chip) -> _Shapes:
        """Return those of a rank."""
        if rank <= TILE:
            side = max(BLOCK, triton.next_power_of_2(rank))
            return cls((rank, rank), (rank,), (side, side), (2, 4, side), (side,), None)
        whole = -(-rank // BLOCK) * BLOCK
        blocks = (whole, whole + _columns(chip))
        return cls(blocks, (rank,), blocks, (2, 4, BLOCK), (whole,), blocks)


def workspace(rank: int, chip: Chip) -> tuple[int, int]:
    """Bytes of what `factorize` returns, and of what it takes besides while it runs."""
    inverse, shift, *others = (
        torch.float64.itemsize * math.prod(shape) for shape in _Shapes.of(rank, chip) if shape
    )
    return inverse + shift, sum(others)


def _columns(chip: Chip) -> int:
    """Return the columns of a product."""
    return 128 if chip.double_cores else 64


def _bits(number: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", number))[0])
