"""Two exact ALS updates in one read of ``x``.

With the modes of ``x`` in three groups, a slab mode ``i``, a group ``j`` and the rest ``k``::

    Y_i[j, r] = sum_k x(i, j, k) C[k, r]        on tensor cores, kept in the L2 cache
    M[i, r]   = sum_j Y_i[j, r] B[j, r]         the MTTKRP of mode i
    A[i, :]   = (M[i, :] + shift * A_old[i, :]) H^-1
    Z[j, r]   = sum_i Y_i[j, r] A[i, r]         with the new A: the partial result for the modes j

The row ``A[i, :]`` depends on nothing outside its slab, since ``H`` comes from ``B`` and ``C``
only; so ``Z`` is built while ``Y_i`` is still on the chip. ``B`` and ``C`` are Khatri-Rao products
formed in registers. Where ``j`` is a single mode, ``Z`` is its MTTKRP.

Flops ``2 numel(x) R``, and ``4 I J R`` that do not count where K is long; bytes: ``x`` once.
Through the L2 cache go ``Y`` twice and the partial ``Z`` twice, ``4 R / K`` of the bytes of ``x``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import Setting, arithmetic, tiles_for
from .devices import Chip, chip_of
from .indexing import khatri_rao_rows, merged, offset
from .products import product

__all__ = ["Pass", "refused", "slab_kernel", "slab_pass"]

#: Bytes of ``Y`` and ``Z`` that all programs may keep in the L2 cache together: half of Hopper's.
IN_CACHE = 24 << 20


@triton.jit
def slab_kernel(
    x_ptr,
    y_ptr,
    m_ptr,
    old_ptr,
    new_ptr,
    inverse_ptr,
    shift_ptr,
    z_ptr,
    group_factors,
    inner_factors,
    stride_x_i,
    group_sizes,
    group_strides,
    inner_sizes,
    inner_strides,
    group_modes,
    inner_modes,
    slabs,
    group,
    inner,
    rank,
    per_program,
    TOGETHER: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Do a stretch of slabs, ``TOGETHER`` at a time; ``y`` and ``z`` are the program's own."""
    pid = tl.program_id(0).to(tl.int64)
    y_ptr += pid * TOGETHER * group * rank
    z_ptr += pid * group * rank
    first = pid * per_program
    last = tl.minimum(first + per_program, slabs)
    for start in range(first, last, TOGETHER):
        stop = tl.minimum(start + TOGETHER, last)
        for i in range(start, stop):
            x_slab = x_ptr + i * stride_x_i
            y_slab = y_ptr + (i - start) * group * rank
            for r_start in range(0, rank, BLOCK_R):
                r = r_start + tl.arange(0, BLOCK_R)
                total = tl.zeros([BLOCK_R], m_ptr.dtype.element_ty)
                for j_start in range(0, group, BLOCK_J):
                    j = j_start + tl.arange(0, BLOCK_J)
                    row = x_slab + offset(j, group_sizes, group_strides, 1, False, True)[:, None]
                    inside = (j < group)[:, None] & (r < rank)[None, :]
                    y = tl.zeros([BLOCK_J, BLOCK_R], m_ptr.dtype.element_ty)
                    for k_start in range(0, inner, BLOCK_K):
                        k = k_start + tl.arange(0, BLOCK_K)
                        in_k = k < inner
                        mask = in_k[:, None] & (r < rank)[None, :]
                        c = khatri_rao_rows(
                            inner_factors, inner_modes, k[:, None], r[None, :], rank, mask, True
                        )
                        tile = row + offset(k, inner_sizes, inner_strides, 1, False, True)[None, :]
                        x = tl.load(tile, (j < group)[:, None] & in_k[None, :], 0.0)
                        y += product(x, c, PRECISION)
                    tl.store(y_slab + j[:, None].to(tl.int64) * rank + r[None, :], y, inside)
                    b = khatri_rao_rows(
                        group_factors, group_modes, j[:, None], r[None, :], rank, inside, True
                    )
                    total += tl.sum(y * b, 0)
                tl.store(m_ptr + i * rank + r, total, r < rank)
        # Every row of M is complete before any is solved for.
        tl.debug_barrier()
        for i in range(start, stop):
            for r_start in range(0, rank, BLOCK_R):
                r = r_start + tl.arange(0, BLOCK_R)
                a = tl.zeros([BLOCK_R], tl.float64)
                for s in range(rank):
                    right = tl.load(m_ptr + i * rank + s).to(tl.float64)
                    right += tl.load(shift_ptr + s) * tl.load(old_ptr + i * rank + s).to(tl.float64)
                    a += right * tl.load(inverse_ptr + s * rank + r, r < rank, 0.0)
                tl.store(new_ptr + i * rank + r, a.to(new_ptr.dtype.element_ty), r < rank)
        tl.debug_barrier()
        for r_start in range(0, rank, BLOCK_R):
            r = r_start + tl.arange(0, BLOCK_R)
            for j_start in range(0, group, BLOCK_J):
                j = j_start + tl.arange(0, BLOCK_J)
                inside = (j < group)[:, None] & (r < rank)[None, :]
                at = j[:, None].to(tl.int64) * rank + r[None, :]
                z = tl.load(z_ptr + at, inside, 0.0)
                for i in range(start, stop):
                    y = tl.load(y_ptr + (i - start) * group * rank + at, inside, 0.0)
                    z += y * tl.load(new_ptr + i * rank + r, r < rank, 0.0)[None, :]
                tl.store(z_ptr + at, z, inside)
        # The next slabs overwrite Y.
        tl.debug_barrier()


class Pass(NamedTuple):
    """What one read gives: the new factor, its MTTKRP, and the partial result of the group."""

    factor: Tensor
    mttkrp: Tensor
    partial: Tensor


def programs_for(slabs: int, chip: Chip) -> int:
    """One program a multiprocessor, each with at least one slab."""
    return max(1, min(slabs, chip.multiprocessors))


def refused(slabs: int, group: int, rank: int, itemsize: int, chip: Chip) -> list[str]:
    """Every reason why the pass would not pay, empty if it would."""
    kept = 2 * programs_for(slabs, chip) * group * rank * itemsize
    if kept > 2 * IN_CACHE:
        return [f"Y and Z of all programs take {kept >> 20} MiB; {2 * IN_CACHE >> 20} stay in L2"]
    return []


def slab_pass(
    x: Tensor,
    factors: Sequence[Tensor],
    mode: int,
    group: Sequence[int],
    inverse: Tensor,
    shift: Tensor | None = None,
    precision: str = "ieee",
    chip: Chip | None = None,
) -> Pass:
    """Update the factor of ``mode`` exactly and contract ``x`` to the modes ``group`` with it.

    ``inverse`` is ``H^-1 [R, R]`` in float64; ``factors[n] [I_n, R]`` are all current.
    """
    chip = chip_of(x.device) if chip is None else chip
    rank = inverse.shape[0]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    u = [f.to(wide).contiguous() for f in factors]
    inner = [n for n in range(x.ndim) if n != mode and n not in group]
    inner.sort(key=lambda n: -x.stride()[n])
    slabs = x.shape[mode]
    of_group, of_inner = (tuple(x.shape[n] for n in modes) for modes in (group, inner))
    group_sizes, group_strides = merged(of_group, tuple(x.stride(n) for n in group))
    inner_sizes, inner_strides = merged(of_inner, tuple(x.stride(n) for n in inner))
    length, terms = math.prod(of_group), math.prod(of_inner)
    dtype = str(x.dtype).removeprefix("torch.")
    rows_contiguous = bool(group) and x.stride(group[-1]) == 1
    how = arithmetic(dtype, precision, chip, rows_contiguous)
    setting = Setting.of(length, rank, how, x.element_size(), "inner", x.ndim)
    tile = tiles_for(setting, chip)[0]
    programs = programs_for(slabs, chip)
    per_program = -(-slabs // programs)
    programs = -(-slabs // per_program)
    one = programs * length * rank * wide.itemsize
    together = max(1, min(4, per_program, IN_CACHE // max(1, one)))
    y = x.new_empty(programs, together, length, rank, dtype=wide)
    z = x.new_zeros(programs, length, rank, dtype=wide)
    m, new = (x.new_empty(slabs, rank, dtype=wide) for _ in range(2))
    weight = inverse.new_zeros(rank) if shift is None else shift
    with torch.cuda.device_of(x):
        slab_kernel[(programs,)](
            x,
            y,
            m,
            u[mode],
            new,
            inverse.contiguous(),
            weight,
            z,
            tuple(u[n] for n in group),
            tuple(u[n] for n in inner),
            x.stride(mode),
            group_sizes,
            group_strides,
            inner_sizes,
            inner_strides,
            of_group,
            of_inner,
            slabs,
            length,
            terms,
            rank,
            per_program,
            TOGETHER=together,
            BLOCK_J=tile.block_m,
            BLOCK_K=tile.block_k,
            BLOCK_R=tile.block_r,
            PRECISION=how,
            num_warps=tile.warps,
            num_stages=tile.stages,
            maxnreg=tile.registers,
        )
    return Pass(new, m, z.sum(0).view(*of_group, rank))
