"""The new factor ``A = (M + shift * A_current) H^-1`` and its Gram matrix, with ``H^-1 = W^T W``.

Two products with the triangular ``W = L^-1`` (`cholesky`), in float64, rounded once. Each program
takes every P-th tile of rows. Nothing is written unless a flag in the memory of the GPU is set.

What is between the two products goes through memory, where it stays in cache. Where all columns
are one block, the Gram matrix of a program's rows is added up beside, from the rounded factor, and
a second launch adds the programs' in a fixed order, where there are several. For more columns
`gram` gives it in launches of its own.

Flops ``2 I R^2``, those of triangles, twice that in a single block, and ``I R^2`` of the Gram
matrix; bytes: ``M`` and the factor once, and the current factor where there is a shift.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import Chip, chip_of
from .gram import partial_grams, workspace_in_double
from .indexing import multiple
from .products import product

__all__ = ["add_grams", "add_grams_kernel", "apply", "solve", "solve_kernel", "workspace"]

Ints = tuple[int, ...]

#: Rows of a tile, and warps.
ROWS, WARPS = 16, 8

#: Programs a multiprocessor, and tiles that one program takes before there are several.
FILL, ALONE = 2, 4

#: Elements of the result of one program that adds Gram matrices, and of those it loads at a time.
RESULTS, PARTS = 128, 16

#: A bound on what a thread may take, without which ptxas spills to make room for another program.
REGISTERS = 255


@triton.jit
def _right(m_ptr, old_ptr, shift_ptr, i, r, rows, rank):
    """Return a tile of ``M + shift * A_current``; the latter is read where there is a shift."""
    mask = (i < rows) & (r < rank)
    m = tl.load(m_ptr + i * rank + r, mask, 0.0).to(tl.float64)
    # Weights are positive.
    shifted = tl.where(tl.load(shift_ptr) > 0, rank, 0)
    old = tl.load(old_ptr + i * rank + r, mask & (r < shifted), 0.0).to(tl.float64)
    return m + tl.load(shift_ptr + r, r < rank, 0.0) * old


@triton.jit(do_not_specialize=["rows", "rank", "stride"])
def solve_kernel(
    m_ptr,
    y_ptr,
    old_ptr,
    new_ptr,
    gram_ptr,
    inverse_ptr,
    shift_ptr,
    active_ptr,
    rows,
    rank,
    stride,
    UNIT: tl.constexpr,
    GRAM: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Every P-th tile of rows; ``y``, ``[P, BLOCK_I, whole blocks]``, has the first product's.

    ``GRAM`` is what ``gram``, ``[P, rank, rank]``, takes of its rows, if all columns are one block:
    the ``"lower"`` half, ``"all"``, or ``""`` for nothing.
    """
    rank = multiple(rank, UNIT)
    whole = tl.cdiv(rank, BLOCK_R) * BLOCK_R
    if tl.load(active_ptr):
        i, k, b = tl.arange(0, BLOCK_I)[:, None], tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_R)
        pid = tl.program_id(0).to(tl.int64)
        y_ptr += pid * BLOCK_I * whole
        gram = tl.zeros([BLOCK_R, BLOCK_R], tl.float64)
        for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK_I), tl.num_programs(0)):
            start = tile * BLOCK_I
            left, at = rows - start, tl.full([], start, tl.int64) * rank
            for r_start in range(0, rank, BLOCK_R):
                r = r_start + b[None, :]
                y = tl.zeros([BLOCK_I, BLOCK_R], tl.float64)
                # W has zeros above the diagonal.
                for s_start in range(0, tl.minimum(r_start + BLOCK_R, rank), BLOCK_K):
                    s = s_start + k
                    a = _right(m_ptr + at, old_ptr + at, shift_ptr, i, s[None, :], left, rank)
                    s = s[:, None]
                    w = tl.load(inverse_ptr + r * stride + s, (r < rank) & (s < rank), 0.0)
                    y += product(a, w, PRECISION)
                tl.store(y_ptr + i * whole + r, y)
            # The first product is complete, and what it was made of may be overwritten.
            tl.debug_barrier()
            for r_start in range(0, rank, BLOCK_R):
                r = r_start + b[None, :]
                a = tl.zeros([BLOCK_I, BLOCK_R], tl.float64)
                for s_start in range(r_start, rank, BLOCK_K):
                    s = s_start + k
                    y = tl.load(y_ptr + i * whole + s[None, :], (s < whole)[None, :], 0.0)
                    s = s[:, None]
                    w = tl.load(inverse_ptr + s * stride + r, (r < rank) & (s < rank), 0.0)
                    a += product(y, w, PRECISION)
                a = a.to(new_ptr.dtype.element_ty)
                tl.store(new_ptr + at + i * rank + r, a, (i < left) & (r < rank))
                if GRAM != "":
                    # Beyond the last row there are zeros.
                    a = a.to(tl.float64)
                    gram += product(tl.trans(a), a, PRECISION)
            # The next tile overwrites the first product.
            tl.debug_barrier()
        if GRAM != "":
            row, column = b[:, None], b[None, :]
            gram_ptr += pid * rank * rank
            lower = (row < rank) & (column <= row)
            tl.store(gram_ptr + row * rank + column, gram, lower)
            if GRAM == "all":
                tl.store(gram_ptr + column * rank + row, gram, lower & (column < row))


@triton.jit(do_not_specialize=["parts", "rank"])
def add_grams_kernel(
    part_ptr,
    gram_ptr,
    active_ptr,
    parts,
    rank,
    BLOCK_Q: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Add ``[parts, rank, rank]``, of which the lower half is read, and mirror it."""
    q = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    row, column, size = q // rank, q % rank, rank * rank
    lower = tl.maximum(row, column) * rank + tl.minimum(row, column)
    if tl.load(active_ptr):
        total = tl.zeros([BLOCK_Q], tl.float64)
        for start in range(0, parts, BLOCK_P):
            p = start + tl.arange(0, BLOCK_P)[:, None]
            mask = (p < parts) & (q < size)[None, :]
            total += tl.sum(
                tl.load(part_ptr + p.to(tl.int64) * size + lower[None, :], mask, 0.0), 0
            )
        tl.store(gram_ptr + q, total, q < size)


def apply(
    mttkrp: Tensor,
    current: Tensor,
    inverse: Tensor,
    shift: Tensor,
    active: Tensor,
    factor: Tensor,
    gram: Tensor,
    chip: Chip | None = None,
) -> None:
    """``factor = (mttkrp + shift * current) inverse^T inverse`` and ``gram = factor^T factor``.

    Only where ``active``, a boolean of one element, is true. ``mttkrp`` and ``current`` are
    ``[I, R]``, and so is ``factor``, C-ordered, which may be ``current``; ``inverse`` and ``shift``
    are those of `cholesky.factorize`; ``gram``, float64 ``[R, R]``, C-ordered, is that of the
    factor as it was rounded.
    """
    if not (factor.is_contiguous() and gram.is_contiguous()):
        raise ValueError("apply: factor and gram are written in C order; expected contiguous ones")
    chip = chip_of(factor.device) if chip is None else chip
    parts = solve(mttkrp, current, inverse, shift, active, factor, gram, chip)
    if parts is None:
        parts = partial_grams(factor, 1, torch.float64, chip=chip)
    if parts is not gram:
        add_grams(parts, gram, active)


def solve(
    mttkrp: Tensor,
    current: Tensor,
    inverse: Tensor,
    shift: Tensor,
    active: Tensor,
    factor: Tensor,
    gram: Tensor,
    chip: Chip,
) -> Tensor | None:
    """Write the factor; return what adds up to its Gram matrix, ``gram`` itself, or None of it."""
    rows, rank = factor.shape
    matrices = (mttkrp.contiguous(), current.contiguous())
    way = _Way.of(rows, rank, chip)
    parts = gram if way.parts is None else gram.new_empty(way.parts)
    with torch.cuda.device_of(factor):
        solve_kernel[(way.programs,)](
            matrices[0],
            gram.new_empty(way.first),
            matrices[1],
            factor,
            parts,
            inverse,
            shift,
            active,
            rows,
            rank,
            inverse.stride(0),
            UNIT=math.gcd(rank, *(16 // m.element_size() for m in (*matrices, factor))),
            GRAM=way.gram,
            PRECISION="ieee",
            BLOCK_I=ROWS,
            BLOCK_K=way.terms,
            BLOCK_R=way.columns,
            num_warps=WARPS,
            maxnreg=REGISTERS,
        )
    return parts if way.gram else None


class _Way(NamedTuple):
    """How a factor is solved for.

    Attributes
    ----------
    programs, columns, terms : int
        The size of the grid, and the columns and terms of a product.
    gram : str
        What of the Gram matrix comes with it, ``GRAM`` of the kernel.
    first : tuple of int
        The shape of what holds the first products.
    parts : tuple of int or None
        That of the parts of the Gram matrix; None where there are none besides itself.
    """

    programs: int
    columns: int
    terms: int
    gram: str
    first: Ints
    parts: Ints | None

    @classmethod
    def of(cls, rows: int, rank: int, chip: Chip) -> _Way:
        """Return the way for a factor of this shape."""
        widest = 64 if chip.double_cores else 32
        tiles, fits = -(-rows // ROWS), rank <= widest
        gram = ("all" if tiles <= ALONE else "lower") if fits else ""
        programs = 1 if gram == "all" else min(tiles, FILL * chip.multiprocessors)
        columns = max(16, triton.next_power_of_2(rank)) if fits else widest
        # Beside a Gram matrix of 64 columns registers hold no more than 16 terms, nor do they of
        # multiply-adds, where a thread holds all terms of its rows and columns.
        terms = 32 if chip.double_cores and not (fits and columns == 64) else 16
        first = (programs, ROWS, -(-rank // columns) * columns)
        parts = (programs, rank, rank) if gram == "lower" else None
        return cls(programs, columns, terms, gram, first, parts)


def workspace(rows: int, rank: int, dtype: str, chip: Chip) -> int:
    """Bytes that `apply` takes for a factor of this shape and type."""
    way = _Way.of(rows, rank, chip)
    elements = math.prod(way.first) + (math.prod(way.parts) if way.parts else 0)
    # For what comes in launches of its own, the first products make room.
    later = 0 if way.gram else workspace_in_double((rows, rank), dtype, chip)
    return max(torch.float64.itemsize * elements, later)


def add_grams(parts: Tensor, gram: Tensor, active: Tensor) -> None:
    """Add ``parts [P, R, R]``, on and below the diagonal, where ``active``."""
    with torch.cuda.device_of(gram):
        add_grams_kernel[(-(-gram.numel() // RESULTS),)](
            parts,
            gram,
            active,
            *parts.shape[:2],
            BLOCK_Q=RESULTS,
            BLOCK_P=PARTS,
            num_warps=4,
        )
