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
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .devices import Chip, chip_of
from .indexing import multiple

__all__ = [
    "State",
    "judge",
    "judge_kernel",
    "judge_sums",
    "programs_for",
    "sums",
    "sums_kernel",
    "verdict",
]

#: Elements of a block, its warps, and how many blocks one program takes before there are several.
BLOCK, WARPS, FEW = 2048, 8, 8

#: Programs a multiprocessor.
FILL = 2


@dataclass(frozen=True)
class State:
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
    BLOCK_Q: tl.constexpr,
):
    """Return the three sums over every ``step``-th block from block ``first`` on."""
    elements, at = multiple(elements, UNIT), tl.arange(0, BLOCK_Q)
    inner, model = tl.zeros([BLOCK_Q], tl.float64), tl.zeros([BLOCK_Q], tl.float64)
    trace = tl.zeros([BLOCK_Q], tl.float64)
    for block in range(first, tl.cdiv(elements, BLOCK_Q), step):
        start = tl.full([], block, tl.int64) * BLOCK_Q
        mask = at < elements - start
        a = tl.load(factor_ptr + start + at, mask, 0.0).to(tl.float64)
        inner += a * tl.load(mttkrp_ptr + start + at, mask, 0.0).to(tl.float64)
    for block in range(first, tl.cdiv(rank * rank, BLOCK_Q), step):
        q = block * BLOCK_Q + at
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
    BLOCK_Q: tl.constexpr,
):
    """Each program's part of the three sums, ``out [3, P]``."""
    pid, programs = tl.program_id(0), tl.num_programs(0)
    inner, model, trace = _sums(
        grams, factor_ptr, mttkrp_ptr, elements, rank, pid, programs, UNIT, BLOCK_Q
    )
    tl.store(out_ptr + pid, inner)
    tl.store(out_ptr + programs + pid, model)
    tl.store(out_ptr + 2 * programs + pid, trace)


@triton.jit
def _total(part_ptr, parts, BLOCK_Q: tl.constexpr):
    """Return the sum of what the programs have."""
    total = tl.zeros([BLOCK_Q], tl.float64)
    for start in range(0, parts, BLOCK_Q):
        p = start + tl.arange(0, BLOCK_Q)
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
    ALONE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):
    """Add the parts, or form the sums if ``ALONE``, and judge."""
    if ALONE:
        inner, model, trace = _sums(
            grams, factor_ptr, mttkrp_ptr, elements, rank, 0, 1, UNIT, BLOCK_Q
        )
    else:
        inner = _total(part_ptr, parts, BLOCK_Q)
        model = _total(part_ptr + parts, parts, BLOCK_Q)
        trace = _total(part_ptr + 2 * parts, parts, BLOCK_Q)
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
    # A rise, too: the error that the host last trusted may lie below it.
    falls = fall >= tol * (1 + 1e-6) + 1e-12
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
    chip: Chip | None = None,
) -> None:
    """Note the sums of a sweep in ``log``, and in ``state`` whether it needs attention.

    ``grams``, float64 ``[R, R]``, are those of all modes, ``factor`` and ``mttkrp``, ``[I, R]``,
    those of the last. ``log``, float64 ``[rows, 3]``, C-ordered, takes ``(inner, model, trace)`` in
    row ``count % rows``. ``limits``, float64 ``[4]``, are the squared norm of the data; the
    relative error below which three sums have lost their digits; that below which it cannot be
    expected to go; and the fall of the error, a sweep, with which it has converged, 0 for none. A
    sweep that needs attention by these is the last that counts.
    """
    if factor.shape != mttkrp.shape or not (log.is_contiguous() and log.shape[1:] == (3,)):
        raise ValueError(
            f"judge: factor {tuple(factor.shape)}, mttkrp {tuple(mttkrp.shape)}, log "
            f"{tuple(log.shape)}; expected one shape of the first two, and a C-ordered (rows, 3)"
        )
    chip = chip_of(factor.device) if chip is None else chip
    programs = programs_for(factor.numel(), factor.shape[1], chip)
    parts = sums(grams, factor, mttkrp, programs) if programs > 1 else None
    verdict(grams, factor, mttkrp, parts, log, state, limits)


def judge_sums(sums: Tensor, log: Tensor, state: State, limits: Tensor) -> None:
    """Do the same for sums that are known, float64 ``[3]``."""
    parts = sums.view(3, 1)
    verdict((parts,), parts, parts, parts, log, state, limits)


def programs_for(elements: int, rank: int, chip: Chip) -> int:
    """Return how many programs share the sums."""
    blocks = -(-max(elements, rank * rank) // BLOCK)
    return 1 if blocks <= FEW else min(blocks, FILL * chip.multiprocessors)


def sums(grams: Sequence[Tensor], factor: Tensor, mttkrp: Tensor, programs: int) -> Tensor:
    """Return the parts of the sums, ``[3, programs]``."""
    parts = grams[0].new_empty(3, programs)
    with torch.cuda.device_of(factor):
        sums_kernel[(programs,)](
            *_data(grams, factor, mttkrp),
            parts,
            factor.numel(),
            factor.shape[1],
            UNIT=_unit(factor, mttkrp),
            BLOCK_Q=BLOCK,
            num_warps=WARPS,
        )
    return parts


def verdict(
    grams: Sequence[Tensor],
    factor: Tensor,
    mttkrp: Tensor,
    parts: Tensor | None,
    log: Tensor,
    state: State,
    limits: Tensor,
) -> None:
    """Do the rest of `judge`, all of it where there are no parts."""
    with torch.cuda.device_of(factor):
        judge_kernel[(1,)](
            *_data(grams, factor, mttkrp),
            parts,
            log,
            state.active,
            state.count,
            state.previous,
            limits,
            factor.numel(),
            factor.shape[1],
            0 if parts is None else parts.shape[1],
            log.shape[0],
            UNIT=_unit(factor, mttkrp),
            ALONE=parts is None,
            BLOCK_Q=BLOCK,
            num_warps=WARPS,
        )


def _data(
    grams: Sequence[Tensor], factor: Tensor, mttkrp: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    return tuple(g.contiguous() for g in grams), factor.contiguous(), mttkrp.contiguous()


def _unit(factor: Tensor, mttkrp: Tensor) -> int:
    return math.gcd(factor.numel(), *(16 // m.element_size() for m in (factor, mttkrp)))
