"""The fused contraction under `mttkrp`, `ttm` and the first level of a dimension tree.

``out[m, r] = sum_{o, k} x(m, o, k) outer[o, r] inner[k, r]``: ``m`` runs over the modes kept, ``o``
and ``k`` over those contracted, and ``outer``, ``inner`` are Khatri-Rao products whose rows are
formed in registers; neither they nor an unfolding of ``x`` exist in memory.

Two ways through the sum, of which `plan` chooses one by shape:

- *outer sweep*: a program keeps one block of ``inner`` and walks over ``o``; a row of ``outer``
  scales each block of results, one multiply-add for ``BLOCK_K`` of them, which also flushes the
  tensor core's accumulator. Each block of ``k`` gives a partial result.
- *inner sweep*: a program walks over ``k`` with nothing outside it, a matrix product whose right
  operand is formed on the way.

Partial results are added by a second stage in a fixed order: the same bits every time.

Flops ``2 numel(x) R`` (times the products that `PRECISION` takes); bytes: ``x`` once, since the
programs that need a tile for other columns run side by side, and the partial results twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import Chip
from .indexing import alignment, khatri_rao_rows, merged, multiple, offset, span, wide
from .plan import Contraction, Plan, plan
from .products import product

__all__ = ["contract", "contraction_kernel"]

Ints = tuple[int, ...]


@triton.jit(
    # What matters of these to the machine code is told by constants, so that other shapes do not
    # compile anew.
    do_not_specialize=[
        "row_sizes",
        "row_strides",
        "out_strides",
        "outer_sizes",
        "outer_strides",
        "inner_sizes",
        "inner_strides",
        "outer_modes",
        "inner_modes",
        "rows",
        "outer",
        "inner",
        "rank",
        "out_stride_r",
        "out_stride_split",
        "per_split",
    ]
)
def contraction_kernel(
    x_ptr,
    out_ptr,
    outer_factors,
    inner_factors,
    row_sizes,
    row_strides,
    out_strides,
    outer_sizes,
    outer_strides,
    inner_sizes,
    inner_strides,
    outer_modes,
    inner_modes,
    rows,
    outer,
    inner,
    rank,
    out_stride_r,
    out_stride_split,
    per_split,
    CONTIGUOUS: tl.constexpr,
    UNIT: tl.constexpr,
    OUT_CONTIGUOUS: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    RANK_UNIT: tl.constexpr,
    SWEEP: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One block ``[BLOCK_M, BLOCK_R]`` of one partial result.

    ``row_sizes`` describe ``m`` in ``x`` and ``out`` at once; ``outer_sizes`` and ``inner_sizes``
    are the merged modes of ``x``, ``outer_modes`` and ``inner_modes`` the modes themselves, one a
    factor. A split is ``per_split`` steps: of ``o`` for one block of ``k``, or blocks of ``k``.
    ``CONTIGUOUS`` is what lies side by side in ``x``, ``"rows"`` or ``"inner"``, and ``UNIT`` its
    `alignment`; of ``out``, ``"rows"`` or ``"columns"``; ``RANK_UNIT`` divides ``rank``. ``WIDE``:
    an index or an offset does not fit into 32 bits.
    """
    rank = multiple(rank, RANK_UNIT)
    if CONTIGUOUS == "rows":
        rows = multiple(rows, UNIT)
    if CONTIGUOUS == "inner":
        inner = multiple(inner, UNIT)
    pid = tl.program_id(0)
    # Blocks of columns side by side, so that their tile of x is in the L2 cache.
    r_blocks, m_blocks = tl.cdiv(rank, BLOCK_R), tl.cdiv(rows, BLOCK_M)
    pid_r, pid_m, split = pid % r_blocks, (pid // r_blocks) % m_blocks, pid // (r_blocks * m_blocks)
    if WIDE:
        pid_m, pid_r, split = pid_m.to(tl.int64), pid_r.to(tl.int64), split.to(tl.int64)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    r = pid_r * BLOCK_R + tl.arange(0, BLOCK_R)
    row = offset(m, row_sizes, row_strides, UNIT, CONTIGUOUS == "rows", WIDE)[:, None]
    m_inside, r_inside = (m < rows)[:, None], (r < rank)[None, :]
    acc = tl.zeros([BLOCK_M, BLOCK_R], out_ptr.dtype.element_ty)

    if SWEEP == "outer":
        k_blocks = tl.cdiv(inner, BLOCK_K)
        k = (split % k_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
        first = (split // k_blocks) * per_split
        # [K, R], the same for every step.
        inside = (k < inner)[:, None] & r_inside
        w = khatri_rao_rows(inner_factors, inner_modes, k[:, None], r[None, :], rank, inside, WIDE)
        column = offset(k, inner_sizes, inner_strides, UNIT, CONTIGUOUS == "inner", WIDE)
        tile = row + column[None, :]
        mask = m_inside & (k < inner)[None, :]
        for o in range(first, tl.minimum(first + per_split, outer)):
            slab = x_ptr + offset(o, outer_sizes, outer_strides, UNIT, False, WIDE)
            x = tl.load(slab + tile, mask, 0.0)
            scale = khatri_rao_rows(outer_factors, outer_modes, o, r, rank, r < rank, WIDE)
            acc += product(x, w, PRECISION) * scale[None, :]
    else:
        first = split * per_split * BLOCK_K
        for start in range(first, tl.minimum(first + per_split * BLOCK_K, inner), BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            inside = (k < inner)[:, None] & r_inside
            w = khatri_rao_rows(
                inner_factors, inner_modes, k[:, None], r[None, :], rank, inside, WIDE
            )
            column = offset(k, inner_sizes, inner_strides, UNIT, CONTIGUOUS == "inner", WIDE)
            x = tl.load(x_ptr + row + column[None, :], m_inside & (k < inner)[None, :], 0.0)
            acc += product(x, w, PRECISION)

    at = offset(m, row_sizes, out_strides, OUT_UNIT, OUT_CONTIGUOUS == "rows", WIDE)[:, None]
    if OUT_CONTIGUOUS == "columns":
        at += r[None, :]
    else:
        at += r[None, :] * multiple(out_stride_r, OUT_UNIT)
    at += split * multiple(out_stride_split, OUT_UNIT)
    tl.store(out_ptr + at, acc, m_inside & r_inside)


class _Walk(NamedTuple):
    """What the kernel is told of shapes and strides, in the order of its arguments."""

    row_sizes: Ints
    row_strides: Ints
    out_strides: Ints
    outer_sizes: Ints
    outer_strides: Ints
    inner_sizes: Ints
    inner_strides: Ints
    outer_modes: Ints
    inner_modes: Ints
    rows: int
    outer: int
    inner: int
    rank: int
    out_stride_r: int
    out_stride_split: int


@lru_cache(maxsize=1024)
def _walk(c: Contraction, p: Plan, out_strides: Ints) -> tuple[_Walk, dict[str, int | str | bool]]:
    """Return how the kernel walks, and the constants that say what of it is aligned.

    ``out_strides`` are those of the splits, the modes kept in the order of ``x``, and the columns.
    """

    def of(modes: Ints, values: Ints) -> Ints:
        return tuple(values[n] for n in modes)

    split, *kept, column = out_strides
    place = dict(zip(sorted(p.kept), kept, strict=True))
    rows, row_strides, out_rows = merged(
        of(p.kept, c.shape), of(p.kept, c.strides), tuple(place[n] for n in p.kept)
    )
    outer, outer_strides = merged(of(p.outer, c.shape), of(p.outer, c.strides))
    inner, inner_strides = merged(of(p.inner, c.shape), of(p.inner, c.strides))
    lengths = tuple(map(c.length, (p.kept, p.outer, p.inner)))
    largest = (
        *lengths,
        # The last split may overhang.
        p.splits * p.per_split * p.tile.block_k if p.sweep == "inner" else 0,
        span(c.shape, c.strides),
        span((p.splits, *of(tuple(sorted(p.kept)), c.shape), c.rank), out_strides),
        max(c.shape) * c.rank,
    )
    unit, at = alignment(c.itemsize, [(rows, row_strides), (inner, inner_strides)], outer_strides)
    columns = ((c.rank,), (column,))
    out_unit, out_at = alignment(c.computing, [(rows, out_rows), columns], (split,))
    known = {
        "CONTIGUOUS": "" if at is None else ("rows", "inner")[at],
        "UNIT": unit,
        "OUT_CONTIGUOUS": "" if out_at is None else ("rows", "columns")[out_at],
        "OUT_UNIT": out_unit,
        "RANK_UNIT": math.gcd(c.rank, 16 // c.computing),
        "WIDE": wide(*largest),
    }
    walk = _Walk(
        row_sizes=rows,
        row_strides=row_strides,
        out_strides=out_rows,
        outer_sizes=outer,
        outer_strides=outer_strides,
        inner_sizes=inner,
        inner_strides=inner_strides,
        outer_modes=of(p.outer, c.shape),
        inner_modes=of(p.inner, c.shape),
        rows=lengths[0],
        outer=lengths[1],
        inner=lengths[2],
        rank=c.rank,
        out_stride_r=column,
        out_stride_split=split,
    )
    return walk, known


def contract(
    x: Tensor,
    factors: Mapping[int, Tensor],
    out: Tensor,
    precision: str = "ieee",
    chip: Chip | None = None,
    way: Plan | None = None,
) -> Tensor:
    """Contract the modes that have a factor; ``out [kept modes in order ..., R]``, any strides.

    ``factors[n]`` is ``[I_n, R]``; ``out`` has the computing type and is returned. ``chip`` is that
    of ``x`` and ``way`` is `plan`'s if not given.
    """
    kept = (n for n in range(x.ndim) if n not in factors)
    c = Contraction.of(x, kept, out.shape[-1], precision, chip)
    p = way or plan(c)
    target = out[None] if p.splits == 1 else out.new_empty(p.splits, *out.shape)
    walk, known = _walk(c, p, target.stride())
    matrices = {n: f.to(out.dtype).contiguous() for n, f in factors.items()}
    with torch.cuda.device_of(x):
        contraction_kernel[(p.programs,)](
            x,
            target,
            tuple(matrices[n] for n in p.outer),
            tuple(matrices[n] for n in p.inner),
            *walk,
            p.per_split,
            SWEEP=p.sweep,
            BLOCK_M=p.tile.block_m,
            BLOCK_K=p.tile.block_k,
            BLOCK_R=p.tile.block_r,
            PRECISION=p.mode,
            num_warps=p.tile.warps,
            num_stages=p.tile.stages,
            maxnreg=p.tile.registers,
            **known,
        )
    return out if p.splits == 1 else torch.sum(target, 0, out=out)
