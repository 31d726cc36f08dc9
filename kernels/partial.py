"""Contraction of a partial result, column by column: the second level of a dimension tree.

``out[a, b, r] = sum_g p[a, g, b, r] k[g, r]`` with ``k`` a Khatri-Rao product whose rows are formed
in registers. No reuse, hence no tensor cores: a streaming kernel. Flops ``2 numel(p)``; bytes:
``p`` once, the result, and partial sums twice where few results have long sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import IN_CACHE, LAUNCH, REACHED, Chip, chip_of
from .indexing import khatri_rao_rows, multiple, wide

__all__ = ["contract_partial", "contract_partial_kernel", "expected", "splits_for"]

#: Bytes of the results of one block, and its terms: eight loads in flight.
RESULTS, BLOCK_G = 1024, 8
WARPS = 4

#: A bound on what a thread may take, without which ptxas spills to make room for another program:
#: three of them fit on a multiprocessor.
REGISTERS = 168


@triton.jit(do_not_specialize=["modes", "results", "group", "stride_g", "rank", "per_split"])
def contract_partial_kernel(
    p_ptr,
    out_ptr,
    factors,
    modes,
    results,
    group,
    stride_g,
    rank,
    per_split,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Sum a block of results, flat over ``[a, b, r]``; ``stride_g`` is that of ``[b, r]``.

    ``UNIT`` divides ``rank``, and so everything that is a multiple of it.
    """
    rank, stride_g = multiple(rank, UNIT), multiple(stride_g, UNIT)
    results = multiple(results, UNIT)
    pid, split = tl.program_id(0), tl.program_id(1)
    if WIDE:
        pid, split = pid.to(tl.int64), split.to(tl.int64)
    q = pid * BLOCK_Q + tl.arange(0, BLOCK_Q)
    column = q % stride_g
    base = (q // stride_g) * group * stride_g + column
    first = split * per_split
    last = tl.minimum(first + per_split, group)
    acc = tl.zeros([BLOCK_Q], out_ptr.dtype.element_ty)
    for start in range(first, last, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)[:, None]
        mask = (g < last) & (q < results)[None, :]
        p = tl.load(p_ptr + base[None, :] + g * stride_g, mask, 0.0)
        rows = khatri_rao_rows(factors, modes, g, (column % rank)[None, :], rank, mask, WIDE)
        acc += tl.sum(p * rows, 0)
    tl.store(out_ptr + split * results + q, acc, q < results)


def splits_for(blocks: int, group: int, multiprocessors: int) -> int:
    """Parts of each sum: enough programs to fill the chip, at least 8 blocks of terms a part."""
    wanted = -(-4 * multiprocessors // blocks)
    return max(1, min(wanted, group // (8 * BLOCK_G)))


def expected(results: int, group: int, itemsize: int, chip: Chip) -> tuple[float, int]:
    """Seconds of a contraction of this many terms to this many results, and elements it takes.

    What fits into the L2 cache is still there from when it was made, and read twice as fast.
    """
    parts = splits_for(-(-results * itemsize // RESULTS), group, chip.multiprocessors)
    read, written = results * group, results * (1 if parts == 1 else 1 + 2 * parts)
    bandwidth = REACHED * chip.bandwidth * (2 if read <= IN_CACHE else 1)
    seconds = (read + written) * itemsize / bandwidth + LAUNCH * (1 if parts == 1 else 2)
    return seconds, results * (1 if parts == 1 else 1 + parts)


def contract_partial(
    p: Tensor, lo: int, hi: int, factors: Sequence[Tensor], chip: Chip | None = None
) -> Tensor:
    """Contract axes ``lo ... hi-1`` of ``p [..., R]`` with one factor each."""
    p = p.contiguous()
    kept = [*p.shape[:lo], *p.shape[hi:]]
    sizes = tuple(p.shape[lo:hi])
    results, group = math.prod(kept), math.prod(sizes)
    chip = chip_of(p.device) if chip is None else chip
    block = RESULTS // p.element_size()
    blocks = -(-results // block)
    parts = splits_for(blocks, group, chip.multiprocessors)
    per_split = -(-group // (parts * BLOCK_G)) * BLOCK_G
    parts = -(-group // per_split)
    out = p.new_empty(parts, *kept)
    with torch.cuda.device_of(p):
        contract_partial_kernel[(blocks, parts)](
            p,
            out,
            tuple(f.to(p.dtype).contiguous() for f in factors),
            sizes,
            results,
            group,
            math.prod(p.shape[hi:]),
            p.shape[-1],
            per_split,
            UNIT=math.gcd(p.shape[-1], 16 // p.element_size()),
            WIDE=wide(p.numel(), out.numel(), parts * per_split),
            BLOCK_Q=block,
            BLOCK_G=BLOCK_G,
            num_warps=WARPS,
            maxnreg=REGISTERS,
        )
    return out[0] if parts == 1 else out.sum(0)
