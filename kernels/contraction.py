"""The fused contraction under `mttkrp`, `ttm` and the first level of a dimension tree.

``out[m, r] = sum_{o, k} x(m, o, k) outer[o, r] inner[k, r]``: ``m`` runs over the modes kept, ``o``
and ``k`` over those contracted, and ``outer``, ``inner`` are Khatri-Rao products whose rows are
formed in registers; neither they nor an unfolding of ``x`` exist in memory.

Two ways through the sum, chosen by shape:

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
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import Tile, arithmetic, rate, tile_for
from .devices import ITEMSIZE, LAUNCH, REACHED, Chip, chip_of
from .indexing import khatri_rao_rows, merged, offset
from .products import product

__all__ = ["Plan", "contract", "contraction_kernel", "expected", "plan"]

Ints = tuple[int, ...]

#: Programs a multiprocessor that there should be, so that the last wave is a small part.
WAVES = 4

#: Largest share of the bytes of ``x`` that partial results may cost.
PARTIALS = 0.125

#: Elements of partial results that are cheap whatever ``x`` is: they stay in the L2 cache.
IN_CACHE = 1 << 20

#: Steps that one program may add to its sum, each a rounding of float32. At 128 the error of long
#: sums is that of a CPU's product within a factor of three (``bench/splitting.py``).
STEPS = 128

#: Terms that the fastest contracted modes should have together before slower ones are swept over.
TERMS = 32


@triton.jit
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
    """
    pid = tl.program_id(0)
    # Blocks of columns side by side, so that their tile of x is in the L2 cache.
    r_blocks, m_blocks = tl.cdiv(rank, BLOCK_R), tl.cdiv(rows, BLOCK_M)
    pid_r, pid_m, split = pid % r_blocks, (pid // r_blocks) % m_blocks, pid // (r_blocks * m_blocks)
    if WIDE:
        pid_m, split = pid_m.to(tl.int64), split.to(tl.int64)
    m = pid_m * BLOCK_M + tl.arange(0, BLOCK_M)
    r = pid_r * BLOCK_R + tl.arange(0, BLOCK_R)
    row = x_ptr + offset(m, row_sizes, row_strides)[:, None]
    m_inside, r_inside = (m < rows)[:, None], (r < rank)[None, :]
    acc = tl.zeros([BLOCK_M, BLOCK_R], out_ptr.dtype.element_ty)

    if SWEEP == "outer":
        k_blocks = tl.cdiv(inner, BLOCK_K)
        k = (split % k_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
        first = (split // k_blocks) * per_split
        # [K, R], the same for every step.
        inside = (k < inner)[:, None] & r_inside
        w = khatri_rao_rows(inner_factors, inner_modes, k[:, None], r[None, :], rank, inside)
        tile = row + offset(k, inner_sizes, inner_strides)[None, :]
        mask = m_inside & (k < inner)[None, :]
        for o in range(first, tl.minimum(first + per_split, outer)):
            x = tl.load(tile + offset(o, outer_sizes, outer_strides), mask, 0.0)
            scale = khatri_rao_rows(outer_factors, outer_modes, o, r, rank, r < rank)
            acc += product(x, w, PRECISION) * scale[None, :]
    else:
        first = split * per_split * BLOCK_K
        for start in range(first, tl.minimum(first + per_split * BLOCK_K, inner), BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            inside = (k < inner)[:, None] & r_inside
            w = khatri_rao_rows(inner_factors, inner_modes, k[:, None], r[None, :], rank, inside)
            tile = row + offset(k, inner_sizes, inner_strides)[None, :]
            x = tl.load(tile, m_inside & (k < inner)[None, :], 0.0)
            acc += product(x, w, PRECISION)

    at = split.to(tl.int64) * out_stride_split + offset(m, row_sizes, out_strides)[:, None]
    at += r[None, :].to(tl.int64) * out_stride_r
    tl.store(out_ptr + at, acc, m_inside & r_inside)


@dataclass(frozen=True)
class Plan:
    """How one contraction runs; a pure function of shapes, strides and the chip.

    Attributes
    ----------
    sweep : str
        ``"outer"`` or ``"inner"``.
    mode : str
        ``PRECISION`` of the kernel.
    tile : Tile
    kept, outer, inner : tuple of int
        The modes of each part of the sum, the slowest in memory first.
    splits, per_split : int
        Partial results, and the steps of each.
    programs : int
        The size of the grid.
    wide : bool
        Whether an index does not fit into 32 bits.
    """

    sweep: str
    mode: str
    tile: Tile
    kept: Ints
    outer: Ints
    inner: Ints
    splits: int
    per_split: int
    programs: int
    wide: bool


@lru_cache(maxsize=1024)
def plan(
    shape: Ints,
    strides: Ints,
    kept: Ints,
    rank: int,
    dtype: str,
    precision: str,
    chip: Chip,
) -> Plan:
    """Choose sweep, arithmetic, tile and splits for a contraction to the modes ``kept``."""
    slowest_first = sorted(range(len(shape)), key=lambda n: (-strides[n], n))
    rows = [n for n in slowest_first if n in kept]
    outer = [n for n in slowest_first if n not in kept]
    inner: list[int] = []
    while outer and math.prod(shape[n] for n in inner) < TERMS:
        inner.insert(0, outer.pop())
    itemsize = ITEMSIZE[dtype]
    # The mode that lies closest together decides how a tile is loaded.
    fastest = [n for n in slowest_first if shape[n] > 1][-1:]
    rows_contiguous = bool(fastest) and fastest[0] in kept and strides[fastest[0]] == 1
    mode = arithmetic(dtype, precision, chip, rows_contiguous)
    length, size = math.prod(shape[n] for n in rows), math.prod(shape)
    # Elements of partial results that are worth it; each is written and read.
    allowed = max(IN_CACHE, PARTIALS * size * itemsize / (2 * max(4, itemsize)))
    sweep, terms = "outer", math.prod(shape[n] for n in inner)
    tile = tile_for(length, terms, rank, mode, itemsize, sweep, chip)
    k_blocks = -(-terms // tile.block_k)
    if not outer or k_blocks * length * rank > allowed:
        sweep, inner, outer = "inner", outer + inner, []
        terms = math.prod(shape[n] for n in inner)
        tile = tile_for(length, terms, rank, mode, itemsize, sweep, chip)
        k_blocks = -(-terms // tile.block_k)
    blocks = -(-length // tile.block_m) * -(-rank // tile.block_r)
    wanted = -(-WAVES * chip.multiprocessors // blocks)
    at_once = k_blocks if sweep == "outer" else 1
    steps = math.prod(shape[n] for n in outer) if sweep == "outer" else k_blocks
    # As many as fill the chip, or as keep sums short, while they are worth it.
    parts = max(min(-(-wanted // at_once), -(-steps // 8)), -(-steps // STEPS))
    parts = max(1, min(parts, int(allowed // (length * rank * at_once))))
    per_split = -(-steps // parts)
    splits = -(-steps // per_split) * at_once
    return Plan(
        sweep,
        mode,
        tile,
        tuple(rows),
        tuple(outer),
        tuple(inner),
        splits,
        per_split,
        blocks * splits,
        max(length, terms, math.prod(shape[n] for n in outer)) > 2**30,
    )


def expected(
    shape: Ints,
    strides: Ints,
    kept: Ints,
    rank: int,
    dtype: str,
    precision: str,
    chip: Chip,
) -> tuple[float, float, float]:
    """Flops, bytes and seconds of a contraction: the lower of two roofs, and its launches."""
    p = plan(shape, strides, kept, rank, dtype, precision, chip)
    size, itemsize = math.prod(shape), ITEMSIZE[dtype]
    results = math.prod(shape[n] for n in kept) * rank * max(4, itemsize)
    flops = 2.0 * size * rank
    nbytes = float(size * itemsize + results * (1 if p.splits == 1 else 1 + 2 * p.splits))
    launches = 1 if p.splits == 1 else 2
    seconds = max(flops / rate(p.mode, dtype, chip), nbytes / (REACHED * chip.bandwidth))
    return flops, nbytes, seconds + launches * LAUNCH


@lru_cache(maxsize=1024)
def _walk(p: Plan, shape: Ints, strides: Ints, out_strides: Ints) -> tuple[Ints | int, ...]:
    """Return the tuples and lengths by which the kernel walks, in the order of its arguments.

    ``out_strides`` are those of the modes kept, in the order of ``x``.
    """

    def of(modes: Ints, values: Ints) -> Ints:
        return tuple(values[n] for n in modes)

    place = dict(zip(sorted(p.kept), out_strides, strict=True))
    groups = (p.kept, p.outer, p.inner)
    return (
        *merged(of(p.kept, shape), of(p.kept, strides), tuple(place[n] for n in p.kept)),
        *merged(of(p.outer, shape), of(p.outer, strides)),
        *merged(of(p.inner, shape), of(p.inner, strides)),
        of(p.outer, shape),
        of(p.inner, shape),
        *(math.prod(of(modes, shape)) for modes in groups),
    )


def contract(
    x: Tensor,
    factors: Mapping[int, Tensor],
    out: Tensor,
    precision: str = "ieee",
    chip: Chip | None = None,
) -> Tensor:
    """Contract the modes that have a factor; ``out [kept modes in order ..., R]``, any strides.

    ``factors[n]`` is ``[I_n, R]``; ``out`` has the computing type and is returned. ``chip`` is that
    of ``x`` if not given.
    """
    shape, strides = tuple(x.shape), x.stride()
    kept = tuple(n for n in range(x.ndim) if n not in factors)
    chip = chip_of(x.device) if chip is None else chip
    dtype = str(x.dtype).removeprefix("torch.")
    p = plan(shape, strides, kept, out.shape[-1], dtype, precision, chip)
    target = out[None] if p.splits == 1 else out.new_empty(p.splits, *out.shape)
    split_stride, *out_strides, r_stride = target.stride()
    walk = _walk(p, shape, strides, tuple(out_strides))
    matrices = {n: f.to(out.dtype).contiguous() for n, f in factors.items()}
    with torch.cuda.device_of(x):
        contraction_kernel[(p.programs,)](
            x,
            target,
            tuple(matrices[n] for n in p.outer),
            tuple(matrices[n] for n in p.inner),
            *walk,
            out.shape[-1],
            r_stride,
            split_stride,
            p.per_split,
            SWEEP=p.sweep,
            WIDE=p.wide,
            BLOCK_M=p.tile.block_m,
            BLOCK_K=p.tile.block_k,
            BLOCK_R=p.tile.block_r,
            PRECISION=p.mode,
            num_warps=p.tile.warps,
            num_stages=p.tile.stages,
            maxnreg=p.tile.registers,
        )
    return out if p.splits == 1 else torch.sum(target, 0, out=out)
