"""Two exact ALS updates in one read of ``x``.

With the modes of ``x`` in three groups, a slab mode ``i``, a group ``j`` and the rest ``k``::

    Y_i[j, r] = sum_k x(i, j, k) C[k, r]        on tensor cores, kept in the L2 cache
    M[i, r]   = sum_j Y_i[j, r] B[j, r]         the MTTKRP of mode i
    A[i, :]   = (M[i, :] + shift * A_old[i, :]) H^-1
    Z[j, r]   = sum_i Y_i[j, r] A[i, r]         with the new A: the partial result for the modes j

The row ``A[i, :]`` depends on nothing outside its slab, since ``H`` comes from ``B`` and ``C``
only; so ``Z`` is built while ``Y_i`` is still on the chip. ``B`` and ``C`` are factors, or the
Khatri-Rao products of several. Where ``j`` is a single mode, ``Z`` is its MTTKRP.

Programs never wait for each other: each takes every P-th slab, whole, and has a ``Z`` of its own;
the P of them are added at the end, in the same order every time.

What only the kernel reads, ``B``, ``C``, ``H^-1``, ``Y`` and ``Z``, lies in memory tile by tile and
is filled up with zeros: a tile is one piece, whose addresses take one register and no mask.

`slab_plan` counts flops and bytes, and decides over tiles and programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import Chip
from .indexing import multiple, offset
from .plan import Contraction
from .products import product
from .slab_plan import SlabPlan, plan

__all__ = ["Pass", "slab_kernel", "slab_pass"]


@triton.jit
def _places(SLABS: tl.constexpr, BLOCK_J: tl.constexpr):
    """Return of each row of a tile the slab that it is of, and its place ``j`` in there."""
    row = tl.arange(0, SLABS * BLOCK_J)
    return (row % SLABS, row // SLABS) if SLABS > 1 else (tl.zeros([1], tl.int32), row)


@triton.jit
def _inside(row, COLUMNS: tl.constexpr):
    """Offsets of rows inside a tile that lies in one piece."""
    return row[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]


@triton.jit
def _solve(
    m_ptr,
    old_ptr,
    new_ptr,
    inverse_ptr,
    shift_ptr,
    start,
    slabs,
    rank,
    SLABS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Form the new rows of the slabs from ``start`` on, in float64."""
    i = start + tl.arange(0, SLABS)[:, None]
    r_blocks = tl.cdiv(rank, BLOCK_R)
    for r_start in range(0, rank, BLOCK_R):
        a = tl.zeros([SLABS, BLOCK_R], tl.float64)
        for s_start in range(0, rank, BLOCK_S):
            s = (s_start + tl.arange(0, BLOCK_S))[None, :]
            mask = (i < slabs) & (s < rank)
            right = tl.load(m_ptr + i * rank + s, mask, 0.0).to(tl.float64)
            if shift_ptr is not None:
                old = tl.load(old_ptr + i * rank + s, mask, 0.0).to(tl.float64)
                right += tl.load(shift_ptr + s, s < rank, 0.0) * old
            tile = (s_start // BLOCK_S * r_blocks + r_start // BLOCK_R) * (BLOCK_S * BLOCK_R)
            h = tl.load(inverse_ptr + tile + _inside(tl.arange(0, BLOCK_S), BLOCK_R))
            a += tl.sum(right[:, :, None] * h[None, :, :], 1)
        r = (r_start + tl.arange(0, BLOCK_R))[None, :]
        a = a.to(new_ptr.dtype.element_ty)
        tl.store(new_ptr + i * rank + r, a, (i < slabs) & (r < rank))


@triton.jit
def _accumulate(
    y_ptr,
    z_ptr,
    new_ptr,
    start,
    slabs,
    group,
    rank,
    fresh,
    SLABS: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Add the slabs from ``start`` on to ``Z``; begin it where that is ``fresh``."""
    slab, _ = _places(SLABS, BLOCK_J)
    i = (start + slab)[:, None]
    # In the interpreter a loop's index is a number.
    zero, r_blocks = tl.full([], 0, tl.int64), tl.cdiv(rank, BLOCK_R)
    for r_start in range(0, rank, BLOCK_R):
        r = (r_start + tl.arange(0, BLOCK_R))[None, :]
        a = tl.load(new_ptr + i * rank + r, (i < slabs) & (r < rank), 0.0)
        for j_start in range(0, group, BLOCK_J):
            tile = (zero + j_start // BLOCK_J * r_blocks + r_start // BLOCK_R) * (BLOCK_J * BLOCK_R)
            y_tile = y_ptr + tile * SLABS + _inside(tl.arange(0, SLABS * BLOCK_J), BLOCK_R)
            z_tile = z_ptr + tile + _inside(tl.arange(0, BLOCK_J), BLOCK_R)
            z = tl.sum(tl.reshape(tl.load(y_tile) * a, [BLOCK_J, SLABS, BLOCK_R]), 1)
            if not fresh:
                z += tl.load(z_tile)
            tl.store(z_tile, z)


@triton.jit(
    # What matters of these to the machine code is told by constants, so that other shapes do not
    # compile anew.
    do_not_specialize=[
        "stride_x_i",
        "group_sizes",
        "group_strides",
        "inner_sizes",
        "inner_strides",
        "slabs",
        "group",
        "inner",
        "rank",
        "stretch",
    ]
)
def slab_kernel(
    x_ptr,
    y_ptr,
    z_ptr,
    m_ptr,
    old_ptr,
    new_ptr,
    b_ptr,
    c_ptr,
    inverse_ptr,
    shift_ptr,
    stride_x_i,
    group_sizes,
    group_strides,
    inner_sizes,
    inner_strides,
    slabs,
    group,
    inner,
    rank,
    stretch,
    CONTIGUOUS: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    SLABS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Every P-th batch of ``SLABS`` slabs; ``y`` and ``z`` are the program's own.

    ``m``, ``old`` and ``new`` are ``[slabs, rank]``. By tiles, ``[row blocks, column blocks, rows,
    BLOCK_R]``, lie ``y`` (``BLOCK_M`` rows, of all slabs of a batch), ``z`` and ``b`` (the rows of
    one slab), ``c`` (``BLOCK_K``) and ``inverse`` (``BLOCK_S``). ``CONTIGUOUS`` is what lies side
    by side in ``x``, ``"slabs"``, ``"group"`` or ``"inner"``, and ``UNIT`` its `alignment`.
    ``WIDE``: an offset in ``x`` does not fit into 32 bits.

    Blocks of columns take turns every ``stretch`` terms: the part of ``x`` that they share comes
    from memory for the first of them, and from the L2 cache for the others.
    """
    BLOCK_J: tl.constexpr = BLOCK_M // SLABS
    stretch = multiple(stretch, BLOCK_K)
    if CONTIGUOUS == "slabs":
        slabs, stride_x_i = multiple(slabs, UNIT), 1
    else:
        stride_x_i = multiple(stride_x_i, UNIT)
    if CONTIGUOUS == "group":
        group = multiple(group, UNIT)
    if CONTIGUOUS == "inner":
        inner = multiple(inner, UNIT)
    pid, r_blocks = tl.program_id(0).to(tl.int64), tl.cdiv(rank, BLOCK_R)
    own = pid * tl.cdiv(group, BLOCK_J) * BLOCK_J * r_blocks * BLOCK_R
    y_ptr += own * SLABS
    z_ptr += own
    slab, place = _places(SLABS, BLOCK_J)
    # In the interpreter a loop's index is a number.
    zero = tl.full([], 0, tl.int64)
    slab_at = (zero if WIDE else tl.full([], 0, tl.int32)) + slab * stride_x_i
    for batch in range(pid, tl.cdiv(slabs, SLABS), tl.num_programs(0)):
        start = batch * SLABS
        x_slabs = x_ptr + start * stride_x_i
        i = start + tl.arange(0, SLABS)[:, None]
        for j_start in range(0, group, BLOCK_J):
            j = j_start + place
            row = offset(j, group_sizes, group_strides, UNIT, CONTIGUOUS == "group", WIDE)
            row = (slab_at + row)[:, None]
            row_mask = ((start + slab < slabs) & (j < group))[:, None]
            for k_first in range(0, inner, stretch):
                for r_start in range(0, rank, BLOCK_R):
                    r_block = zero + r_start // BLOCK_R
                    y = tl.zeros([BLOCK_M, BLOCK_R], y_ptr.dtype.element_ty)
                    for k_start in range(k_first, tl.minimum(k_first + stretch, inner), BLOCK_K):
                        k = k_start + tl.arange(0, BLOCK_K)
                        at = offset(
                            k, inner_sizes, inner_strides, UNIT, CONTIGUOUS == "inner", WIDE
                        )
                        mask = row_mask & (k < inner)[None, :]
                        x = tl.load(x_slabs + (row + at[None, :]), mask, 0.0)
                        tile = (k_start // BLOCK_K * r_blocks + r_block) * (BLOCK_K * BLOCK_R)
                        c = tl.load(c_ptr + tile + _inside(tl.arange(0, BLOCK_K), BLOCK_R))
                        y += product(x, c, PRECISION)
                    tile = (j_start // BLOCK_J * r_blocks + r_block) * (BLOCK_J * BLOCK_R)
                    b = tl.load(b_ptr + tile + _inside(place, BLOCK_R))
                    m = tl.sum(tl.reshape(y * b, [BLOCK_J, SLABS, BLOCK_R]), 0)
                    y_tile = y_ptr + tile * SLABS
                    y_tile += _inside(tl.arange(0, BLOCK_M), BLOCK_R)
                    r = (r_start + tl.arange(0, BLOCK_R))[None, :]
                    m_row, m_mask = m_ptr + i * rank + r, (i < slabs) & (r < rank)
                    if k_first > 0:
                        y += tl.load(y_tile)
                    if j_start + k_first > 0:
                        m += tl.load(m_row, m_mask, 0.0)
                    tl.store(y_tile, y)
                    tl.store(m_row, m, m_mask)
                # What was stored is read from here on, perhaps by other threads.
                tl.debug_barrier()
        _solve(
            m_ptr,
            old_ptr,
            new_ptr,
            inverse_ptr,
            shift_ptr,
            start,
            slabs,
            rank,
            SLABS,
            BLOCK_R,
            BLOCK_S,
        )
        # The new rows are complete.
        tl.debug_barrier()
        _accumulate(
            y_ptr,
            z_ptr,
            new_ptr,
            start,
            slabs,
            group,
            rank,
            batch == pid,
            SLABS,
            BLOCK_J,
            BLOCK_R,
        )
        # The next batch overwrites Y.
        tl.debug_barrier()


class Pass(NamedTuple):
    """What one read gives.

    Attributes
    ----------
    factor, mttkrp : Tensor
        The new factor of the mode that was cut, and the MTTKRP it solves for, both ``[I, R]``.
    partial : Tensor
        ``x`` contracted to the group with the new factor, ``[modes ..., R]`` in the order of the
        memory of ``x``, the slowest first, in whatever order the group was given. Of a single mode,
        its MTTKRP.
    """

    factor: Tensor
    mttkrp: Tensor
    partial: Tensor


def slab_pass(
    x: Tensor,
    factors: Sequence[Tensor],
    mode: int,
    group: Sequence[int],
    inverse: Tensor,
    shift: Tensor | None = None,
    precision: str = "ieee",
    chip: Chip | None = None,
    way: SlabPlan | None = None,
) -> Pass:
    """Update the factor of ``mode`` exactly, then contract ``x`` to the modes ``group`` with it.

    ``factors[n]`` ``[I_n, R]`` are all current; ``x`` has any strides. That ``mode`` and ``group``
    are different modes, and leave at least one, is the caller's to check. ``inverse`` is ``H^-1``
    and ``shift [R]`` the weights of the current rows on the right side, both float64. ``chip`` is
    that of ``x`` and ``way`` is `plan`'s if not given.
    """
    rank, shape = inverse.shape[0], tuple(x.shape)
    p = way or plan(Contraction.of(x, (mode, *group), rank, precision, chip))
    tile, block_j = p.tile, p.tile.block_m // p.together
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    b, c = (reduce(_khatri_rao, [factors[n].to(wide) for n in ns]) for ns in (p.group, p.inner))
    b_tiles = _tiled(b, block_j, tile.block_r)
    y = x.new_empty(p.programs, *b_tiles.shape[:2], tile.block_m, tile.block_r, dtype=wide)
    z = x.new_empty(p.programs, *b_tiles.shape, dtype=wide)
    m, new = (x.new_empty(shape[mode], rank, dtype=wide) for _ in range(2))
    with torch.cuda.device_of(x):
        slab_kernel[(p.programs,)](
            x,
            y,
            z,
            m,
            None if shift is None else factors[mode].to(wide).contiguous(),
            new,
            b_tiles,
            _tiled(c, tile.block_k, tile.block_r),
            _tiled(inverse, p.block_s, tile.block_r),
            shift,
            x.stride(mode),
            *p.walks[0],
            *p.walks[1],
            shape[mode],
            b.shape[0],
            c.shape[0],
            rank,
            p.stretch,
            CONTIGUOUS=p.contiguous,
            UNIT=p.unit,
            WIDE=p.wide,
            SLABS=p.together,
            BLOCK_M=tile.block_m,
            BLOCK_K=tile.block_k,
            BLOCK_R=tile.block_r,
            BLOCK_S=p.block_s,
            PRECISION=p.how,
            num_warps=tile.warps,
            num_stages=tile.stages,
            maxnreg=tile.registers,
        )
    partial = z.sum(0).transpose(1, 2).flatten(2).flatten(0, 1)[: b.shape[0], :rank]
    return Pass(new, m, partial.contiguous().view(*(shape[n] for n in p.group), rank))


def _khatri_rao(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] * b).flatten(0, 1)


def _tiled(a: Tensor, rows: int, columns: int) -> Tensor:
    """Lay a matrix out by tiles and fill it up with zeros; it is not copied if it lies so."""
    short = (-a.shape[0] % rows, -a.shape[1] % columns)
    if any(short):
        a = torch.nn.functional.pad(a, (0, short[1], 0, short[0]))
    return a.unflatten(0, (-1, rows)).unflatten(2, (-1, columns)).transpose(1, 2).contiguous()
