"""The error of a sweep and whether to go on, decided on the GPU.

Three sums give the error: ``<X, M>``, the entries of the MTTKRP times those of the new factor; the
squared norm of the model, all entries of the Hadamard product of the Gram matrices; and its trace,
which tells how much components cancel. They are noted in a log, and compared with limits. As long
as nothing asks for attention sweeps go on; the host reads the log when it likes, and whatever needs
a decision of its own finds the factors as the sweep left them that asked for it.

Partial sums by program and a second launch, of one program, that adds them in a fixed order; where
there is little, only the latter. Flops ``2 I R + N R^2``; bytes: factor, MTTKRP and Gram matrices
once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import Chip, chip_of
from .indexing import multiple

__all__ = ["State", "judge", "judge_kernel", "sums_kernel"]

#: Elements of a block, its warps, and how many blocks one program takes before there are several.
BLOCK, WARPS, FEW = 2048, 8, 8

#: Programs a multiprocessor.
FILL = 2


class State(NamedTuple):
    """What a sweep leaves for the next, each of one element in the memory of the GPU.

    Attributes
    ----------
    active : Tensor
        Boolean: whether nothing has asked for attention.
    count : Tensor
        int64: sweeps so far.
    previous : Tensor
        float64: the relative error of the last; infinite before the first.
    """

    active: Tensor
    count: Tensor
    previous: Tensor


@triton.jit
def _sums(
    grams,
    factor_ptr,
    mttkrp_ptr,
    elements,
    rank,
    first,
    step,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the three sums over every ``step``-th block from block ``first`` on."""
    elements, at = multiple(elements, UNIT), tl.arange(0, BLOCK)
    inner, model = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    trace = tl.zeros([BLOCK], tl.float64)
    for block in range(first, tl.cdiv(elements, BLOCK), step):
        start = tl.full([], block, tl.int64) * BLOCK
        mask = at < elements - start
        a = tl.load(factor_ptr + start + at, mask, 0.0).to(tl.float64)
        inner += a * tl.load(mttkrp_ptr + start + at, mask, 0.0).to(tl.float64)
    for block in range(first, tl.cdiv(rank * rank, BLOCK), step):
        q = block * BLOCK + at
        h = tl.load(grams[0] + q, q < rank * rank, 0.0)
        for n in tl.static_range(1, len(grams)):
            h *= tl.load(grams[n] + q, q < rank * rank, 0.0)
        model += h
        trace += tl.where(q % (rank + 1) == 0, h, 0.0)
    return tl.sum(inner, 0), tl.sum(model, 0), tl.sum(trace, 0)


@triton.jit(do_not_specialize=["elements", "rank"])
def sums_kernel(
    grams,
    factor_ptr,
    mttkrp_ptr,
    out_ptr,
    elements,
    rank,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program's part of the three sums, ``out [3, P]``."""
    pid, programs = tl.program_id(0), tl.num_programs(0)
    inner, model, trace = _sums(
        grams, factor_ptr, mttkrp_ptr, elements, rank, pid, programs, UNIT, BLOCK
    )
    tl.store(out_ptr + pid, inner)
    tl.store(out_ptr + programs + pid, model)
    tl.store(out_ptr + 2 * programs + pid, trace)


@triton.jit
def _total(part_ptr, parts, BLOCK: tl.constexpr):
    """Return the sum of what the programs have."""
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, parts, BLOCK):
        p = start + tl.arange(0, BLOCK)
        total += tl.load(part_ptr + p, p < parts, 0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["elements", "rank", "parts", "rows"])
def judge_kernel(
    grams,
    factor_ptr,
    mttkrp_ptr,
    part_ptr,
    log_ptr,
    active_ptr,
    count_ptr,
    previous_ptr,
    limits_ptr,
    elements,
    rank,
    parts,
    rows,
    UNIT: tl.constexpr,
    MONOTONE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the parts, or form the sums where there are none, and judge."""
    if part_ptr is None:
        inner, model, trace = _sums(
            grams, factor_ptr, mttkrp_ptr, elements, rank, 0, 1, UNIT, BLOCK
        )
    else:
        inner = _total(part_ptr, parts, BLOCK)
        model = _total(part_ptr + parts, parts, BLOCK)
        trace = _total(part_ptr + 2 * parts, parts, BLOCK)
    active, count = tl.load(active_ptr), tl.load(count_ptr)
    # While nothing is active the row is that of a sweep that does not count.
    row = log_ptr + count % rows * 3
    tl.store(row, inner)
    tl.store(row + 1, model)
    tl.store(row + 2, trace)

    squared_norm, below = tl.load(limits_ptr), tl.load(limits_ptr + 1)
    floor, tol = tl.load(limits_ptr + 2), tl.load(limits_ptr + 3)
    # Every comparison is such that a NaN asks for attention.
    scale = tl.where(squared_norm > 0, squared_norm, 1.0)
    squared = (squared_norm - 2 * inner + model) / scale
    cancelling = tl.where(trace / scale > 1, trace / scale, 1.0)
    resolved = squared >= cancelling * (below * below) * (1 + 1e-9)
    error = tl.sqrt(tl.where(squared < 0, 0.0, squared))
    fall = tl.load(previous_ptr) - error
    falls = tl.abs(fall) >= tol * (1 + 1e-6) + 1e-12
    if MONOTONE:
        falls = falls & (fall > 0)
    finite = error < float("inf")
    above = error >= floor * (1 + 1e-9)
    going = resolved & above & finite & (falls | (tol <= 0))
    tl.store(count_ptr, count + 1, active)
    tl.store(previous_ptr, error, active)
    tl.store(active_ptr, going, active)


def judge(
    grams: Sequence[Tensor],
    factor: Tensor,
    mttkrp: Tensor,
    log: Tensor,
    state: State,
    limits: Tensor,
    monotone: bool,
    chip: Chip | None = None,
) -> None:
    """Note the sums of a sweep in ``log``, and in ``state`` whether it needs attention.

    ``grams``, float64 ``[R, R]``, are those of all modes, and ``factor`` and ``mttkrp``, ``[I, R]``,
    of the last. ``log``, float64 ``[rows, 3]``, C-ordered, takes ``(inner, model, trace)`` in row
    ``count % rows``. ``limits``, float64 ``[4]``, are the squared norm of the data; the relative
    error below which three sums have lost their digits; that below which it cannot be expected to
    go; and the fall of the error, a sweep, with which it has converged, 0 for none. A sweep that
    needs attention, by these, or by a rise of the error if ``monotone``, is the last that counts.
    """
    if factor.shape != mttkrp.shape or not (log.is_contiguous() and log.shape[1:] == (3,)):
        raise ValueError(
            f"judge: factor {tuple(factor.shape)}, mttkrp {tuple(mttkrp.shape)}, log "
            f"{tuple(log.shape)}; expected the same shape of the first two, and a C-ordered (rows, 3)"
        )
    chip = chip_of(factor.device) if chip is None else chip
    elements, rank = factor.numel(), factor.shape[1]
    data = (tuple(g.contiguous() for g in grams), factor.contiguous(), mttkrp.contiguous())
    blocks = max(-(-elements // BLOCK), -(-(rank * rank) // BLOCK))
    programs, parts = min(blocks, FILL * chip.multiprocessors), None
    unit = math.gcd(elements, 16 // factor.element_size(), 16 // mttkrp.element_size())
    with torch.cuda.device_of(factor):
        if blocks > FEW:
            parts = log.new_empty(3, programs)
            sums_kernel[(programs,)](
                *data, parts, elements, rank, UNIT=unit, BLOCK=BLOCK, num_warps=WARPS
            )
        judge_kernel[(1,)](
            *data,
            parts,
            log,
            *state,
            limits,
            elements,
            rank,
            programs,
            log.shape[0],
            UNIT=unit,
            MONOTONE=monotone,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
