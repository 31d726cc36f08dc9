"""The squared norm of a tensor, ``||x||^2``, in one read of it, in float64.

Flops ``2 numel(x)``; bytes: ``x`` once, which is what bounds it; of half precision where float64 is
slow (sm_120), the squares do. One partial sum a program, added by a second stage: the same bits
every time.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import ITEMSIZE, LAUNCH, REACHED, Chip, chip_of
from .indexing import alignment, merged, multiple, offset, span, wide

__all__ = ["cost", "slowest_first", "squared_norm", "squared_norm_kernel", "squares"]

Ints = tuple[int, ...]

#: Programs a multiprocessor that are wanted; they bound the number of partial sums.
ROUNDS = 32

#: Bytes of a row of a block, 16 a thread, and its rows, all in flight at once.
ROW, ROWS = 2048, 8
WARPS = 4

#: Registers that a thread may take, as `Tile.registers`: without a bound some layouts spill.
REGISTERS = 255


@triton.jit(do_not_specialize=["sizes", "strides", "size", "blocks"])
def squared_norm_kernel(
    x_ptr,
    out_ptr,
    sizes,
    strides,
    size,
    blocks,
    CONTIGUOUS: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One partial sum of squares, of ``blocks`` blocks of ``x``, flat in the order of the memory.

    ``CONTIGUOUS`` and ``UNIT`` as in `residual_kernel`; ``WIDE``: an index or an offset does not
    fit into 32 bits. A thread adds what it has loaded by itself, until the end.
    """
    if CONTIGUOUS:
        size = multiple(size, UNIT)
    pid = tl.program_id(0)
    if WIDE:
        pid = pid.to(tl.int64)
    first = pid * blocks * (BLOCK_M * BLOCK_N)
    inside = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros([BLOCK_N], tl.float64)
    last = tl.minimum(first + blocks * (BLOCK_M * BLOCK_N), size)
    for start in range(first, last, BLOCK_M * BLOCK_N):
        i = start + inside
        at = offset(i, sizes, strides, UNIT, CONTIGUOUS, WIDE)
        x = tl.load(x_ptr + at, i < size, 0.0).to(tl.float64)
        total += tl.sum(x * x, 0)
    tl.store(out_ptr + pid, tl.sum(total, 0))


def slowest_first(shape: Ints, strides: Ints) -> Ints:
    """Return the modes in the order of the memory; first those that do not move in it."""
    moves = [shape[n] > 1 and strides[n] > 0 for n in range(len(shape))]
    return tuple(sorted(range(len(shape)), key=lambda n: (moves[n], -strides[n], n)))


def squared_norm(x: Tensor, chip: Chip | None = None) -> Tensor:
    """``||x||^2``, a 0-d float64 tensor on the device of ``x``, of any strides and 1 to 8 modes.

    Squares and sums are float64. ``chip`` is that of ``x`` if not given.
    """
    chip = chip_of(x.device) if chip is None else chip
    shape, strides = tuple(x.shape), x.stride()
    order = slowest_first(shape, strides)
    sizes, steps = merged(tuple(shape[n] for n in order), tuple(strides[n] for n in order))
    unit, at = alignment(x.element_size(), [(sizes, steps)])
    block = ROWS * ROW // x.element_size()
    every = -(-x.numel() // block)
    blocks = -(-every // (ROUNDS * chip.multiprocessors))
    programs = -(-every // blocks)
    out = x.new_empty(programs, dtype=torch.float64)
    with torch.cuda.device_of(x):
        squared_norm_kernel[(programs,)](
            x,
            out,
            sizes,
            steps,
            x.numel(),
            blocks,
            CONTIGUOUS=at == 0,
            UNIT=unit,
            WIDE=wide(programs * blocks * block, span(shape, strides)),
            BLOCK_M=ROWS,
            BLOCK_N=ROW // x.element_size(),
            num_warps=WARPS,
            maxnreg=REGISTERS,
        )
    return out.sum()


def squares(size: int, chip: Chip) -> float:
    """Seconds for numbers that are widened and squared, each by an instruction of its own.

    One multiprocessor widens 16 numbers in the time of 128 multiply-adds, and no more than it
    multiplies in float64 without tensor cores, half of what these do.
    """
    multiplied = chip.fp64 / 2 / (2 if chip.double_cores else 1)
    return size / min(chip.fp32 / 16, multiplied) + size / multiplied


def cost(shape: Ints, dtype: str, chip: Chip) -> tuple[float, float, float]:
    """Flops, bytes and seconds that are expected of `squared_norm`."""
    size = math.prod(shape)
    nbytes = float(size * ITEMSIZE[dtype])
    seconds = max(squares(size, chip), nbytes / (REACHED * chip.bandwidth))
    return 2.0 * size, nbytes, seconds + 2 * LAUNCH
