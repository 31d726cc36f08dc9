"""Khatri-Rao product of any number of factors in one write of the result.

Flops ``(N - 1) numel(out)``; bytes: the result, and the factors, which stay in cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import ITEMSIZE, LAUNCH, REACHED, Chip
from .indexing import khatri_rao_rows, multiple, wide

__all__ = ["cost", "khatri_rao", "khatri_rao_kernel"]

#: Bytes of the results of one block: eight of float32 a thread.
BLOCK = 4096
WARPS = 4


@triton.jit(do_not_specialize=["sizes", "rows", "rank"])
def khatri_rao_kernel(
    out_ptr,
    factors,
    sizes,
    rows,
    rank,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """One block ``[BLOCK_M, BLOCK_R]`` of the product; ``rank`` is a multiple of ``UNIT``."""
    rank = multiple(rank, UNIT)
    pid = tl.program_id(0)
    r_blocks = tl.cdiv(rank, BLOCK_R)
    pid_m, pid_r = pid // r_blocks, pid % r_blocks
    if WIDE:
        pid_m = pid_m.to(tl.int64)
    m = (pid_m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    r = (pid_r * BLOCK_R + tl.arange(0, BLOCK_R))[None, :]
    mask = (m < rows) & (r < rank)
    out = khatri_rao_rows(factors, sizes, m, r, rank, mask, WIDE)
    tl.store(out_ptr + m * rank + r, out, mask)


def khatri_rao(
    factors: Sequence[Tensor],
    weights: Tensor | None = None,
    precision: str = "ieee",
    chip: Chip | None = None,
) -> Tensor:
    """``[prod I_n, R]`` from factors ``[I_n, R]`` of one type, the first index slowest.

    Products are full float32 whatever the ``precision``, and one configuration serves every chip.
    """
    if weights is not None:
        factors = [factors[0] * weights, *factors[1:]]
    sizes, rank = tuple(f.shape[0] for f in factors), factors[0].shape[1]
    rows = math.prod(sizes)
    out = factors[0].new_empty(rows, rank)
    # As wide as the rows that lie one after the other, so that no thread is idle.
    columns = min(64, 1 << (rank - 1).bit_length())
    block = BLOCK // (columns * out.element_size())
    with torch.cuda.device_of(out):
        khatri_rao_kernel[(-(-rows // block) * -(-rank // columns),)](
            out,
            tuple(f.contiguous() for f in factors),
            sizes,
            rows,
            rank,
            UNIT=math.gcd(rank, 16 // out.element_size()),
            WIDE=wide(out.numel()),
            BLOCK_M=block,
            BLOCK_R=columns,
            num_warps=WARPS,
        )
    return out


def cost(shape: tuple[int, ...], rank: int, dtype: str, chip: Chip) -> tuple[float, float, float]:
    """Flops, bytes and seconds that are expected."""
    results = math.prod(shape) * rank
    nbytes = float(results * max(4, ITEMSIZE[dtype]))
    return (
        float((len(shape) - 1) * results),
        nbytes,
        nbytes / (REACHED * chip.bandwidth) + LAUNCH,
    )
