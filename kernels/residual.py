"""The squared distance of a tensor to a CP model, ``||x - [[factors]]||^2``, in one read of it.

With the modes of ``x`` in the order of the memory cut in rows and columns, the model is a matrix
product, ``model(m, n) = sum_r L[m, r] R[n, r]``, of two Khatri-Rao products whose rows are formed
in registers. A program takes tiles of ``x`` one by one, forms the same tile of the model, subtracts
in the computing type, and adds squares in float64: nothing but the sum leaves the chip, not even
for a moment. Up to `HELD` columns ``R`` is formed once for all tiles below each other, beyond that
both sides are formed for every tile and block of ``r``.

Flops ``2 numel(x) R`` (times the products that `PRECISION` takes); bytes: ``x`` once. Of an H200,
512^3 in float32 is expected to take 0.15 ms at R = 16, where the memory is the bound (0.13 ms),
0.19 ms at R = 64 and 0.66 ms at R = 256, where the products of parts are (0.15 and 0.60 ms).
One partial sum a program, added by a second stage: the same bits every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import Tile, arithmetic, rate
from .devices import ITEMSIZE, LAUNCH, REACHED, Chip, chip_of
from .indexing import alignment, khatri_rao_rows, merged, multiple, offset, span, wide
from .norm import ROUNDS, slowest_first, squares
from .plan import EXPOSED
from .products import product

__all__ = [
    "cost",
    "residual",
    "residual_kernel",
    "tile_for",
    "workspace",
]

Ints = tuple[int, ...]

#: Columns of factors up to which the right side of a tile is formed once: as registers allow, on
#: chips whose matrix unit takes it from shared memory and on others.
HELD, HELD_IN_REGISTERS = 64, 32

#: Modes from which on indices take so many registers that there are fewer for the tile.
MODES = 6

#: Blocks of columns that have a program of their own, at most.
ACROSS = 1 << 14

#: Instructions for an element of an operand, for another factor of it, and for one of ``x``,
#: counted in the code compiled for sm_90 (`bench.sass`).
FORMED, SPLIT, FACTOR, EACH = 5, 9, 3, 12


@triton.jit(
    # What matters of these to the machine code is told by constants, so that other shapes do not
    # compile anew.
    do_not_specialize=[
        "row_sizes",
        "row_strides",
        "column_sizes",
        "column_strides",
        "row_modes",
        "column_modes",
        "rows",
        "columns",
        "rank",
        "down",
        "along",
        "across",
    ]
)
def residual_kernel(
    x_ptr,
    row_factors,
    column_factors,
    out_ptr,
    row_sizes,
    row_strides,
    column_sizes,
    column_strides,
    row_modes,
    column_modes,
    rows,
    columns,
    rank,
    down,
    along,
    across,
    CONTIGUOUS: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    LONG: tl.constexpr,
    HELD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One partial sum, of ``down`` blocks of rows by ``along`` blocks of columns.

    ``row_sizes`` and ``column_sizes`` are the merged modes of ``x``, ``row_modes`` and
    ``column_modes`` the modes themselves, one a factor ``[I_n, rank]``; ``rank`` is a multiple of
    ``BLOCK_R``, filled up with zeros, and equal to it if ``HELD``. ``across`` programs stand side
    by side. ``CONTIGUOUS``: the columns lie side by side, and ``UNIT`` is their `alignment`.
    ``WIDE``: an offset in ``x`` does not fit into 32 bits; ``LONG``: nor does an index.
    """
    if HELD:
        rank = BLOCK_R
    rank = multiple(rank, BLOCK_R)
    if CONTIGUOUS:
        columns = multiple(columns, UNIT)
    pid = tl.program_id(0)
    if LONG:
        pid = pid.to(tl.int64)
    n_first, m_first = (pid % across) * along * BLOCK_N, (pid // across) * down * BLOCK_M
    n_last = tl.minimum(n_first + along * BLOCK_N, columns)
    m_last = tl.minimum(m_first + down * BLOCK_M, rows)
    r = tl.arange(0, BLOCK_R)
    total = tl.zeros([BLOCK_M], tl.float64)
    for n_start in range(n_first, n_last, BLOCK_N):
        n = n_start + tl.arange(0, BLOCK_N)
        column = offset(n, column_sizes, column_strides, UNIT, CONTIGUOUS, WIDE)[None, :]
        n, n_inside = n[None, :], (n < columns)[None, :]
        if HELD:
            right = khatri_rao_rows(
                column_factors, column_modes, n, r[:, None], rank, n_inside, LONG
            )
        for m_start in range(m_first, m_last, BLOCK_M):
            m = m_start + tl.arange(0, BLOCK_M)
            m_inside = (m < rows)[:, None]
            if HELD:
                # On its way while the model is formed.
                row = offset(m, row_sizes, row_strides, UNIT, False, WIDE)[:, None]
                x = tl.load(x_ptr + (row + column), m_inside & n_inside, 0.0)
                left = khatri_rao_rows(
                    row_factors, row_modes, m[:, None], r[None, :], rank, m_inside, LONG
                )
                model = product(left, right, PRECISION)
            else:
                model = tl.zeros([BLOCK_M, BLOCK_N], row_factors[0].dtype.element_ty)
                for r_start in range(0, rank, BLOCK_R):
                    q = r_start + r
                    left = khatri_rao_rows(
                        row_factors, row_modes, m[:, None], q[None, :], rank, m_inside, LONG
                    )
                    right = khatri_rao_rows(
                        column_factors, column_modes, n, q[:, None], rank, n_inside, LONG
                    )
                    model += product(left, right, PRECISION)
                # Only now, addresses and all: there are no registers for it beside the loop.
                row = offset(m, row_sizes, row_strides, UNIT, False, WIDE)[:, None]
                x = tl.load(x_ptr + (row + column), m_inside & n_inside, 0.0)
            difference = (x.to(model.dtype) - model).to(tl.float64)
            total += tl.sum(difference * difference, 1)
    tl.store(out_ptr + pid, tl.sum(total, 0))


class _Walk(NamedTuple):
    """What the kernel is told of shapes and strides, in the order of its arguments."""

    row_sizes: Ints
    row_strides: Ints
    column_sizes: Ints
    column_strides: Ints
    row_modes: Ints
    column_modes: Ints
    rows: int
    columns: int
    rank: int
    down: int
    along: int
    across: int


class _Way(NamedTuple):
    """How a residual is computed, and what is expected of it.

    Attributes
    ----------
    rows, columns : tuple of int
        The modes of each side.
    walk : _Walk
    tile : Tile
        Rows, terms and columns of a product.
    mode : str
        ``PRECISION`` of the kernel.
    fill : int
        Columns of zeros that the factors get.
    programs : int
    known : dict
        What the kernel is told by constants.
    seconds : float
        Expected time.
    """

    rows: Ints
    columns: Ints
    walk: _Walk
    tile: Tile
    mode: str
    fill: int
    programs: int
    known: dict[str, bool | int]
    seconds: float


def tile_for(mode: str, dtype: str, rank: int, crowded: bool, chip: Chip) -> tuple[Tile, bool]:
    """Return rows, terms and columns of a product, and whether its right side is held.

    ``dtype`` is that of the model; ``crowded``: indices take more registers than usual.
    """
    if mode == "ieee":
        # A thread that multiplies float64 without tensor cores holds all terms of its rows and
        # columns.
        rows = 64 if dtype == "float32" or (chip.double_cores and not crowded) else 32
        return Tile(rows, 16, 64, 8, 1), rank <= 16
    from_shared_memory = chip.matrix_rows == 64
    if rank <= (HELD if from_shared_memory and not crowded else HELD_IN_REGISTERS):
        # One stage: what hides the latency is other programs, for which there are registers so.
        warps = 8 if crowded and not from_shared_memory else 4
        return Tile(64, max(16, 1 << (rank - 1).bit_length()), 64, warps, 1), True
    return Tile(128, 16, 64, 8, 3), False


@lru_cache(maxsize=1024)
def _plan(shape: Ints, strides: Ints, dtype: str, computing: str, rank: int, chip: Chip) -> _Way:
    """Choose the cut by the time that is expected; one whose indices fit into 32 bits if any."""
    order = slowest_first(shape, strides)
    ways = (
        _way(shape, strides, order[:cut], order[cut:], dtype, computing, rank, chip)
        for cut in range(1, len(order))
    )
    return min(ways, key=lambda way: (way.known["LONG"], way.seconds))


def _way(
    shape: Ints,
    strides: Ints,
    rows: Ints,
    columns: Ints,
    dtype: str,
    computing: str,
    rank: int,
    chip: Chip,
) -> _Way:
    """Describe how a tensor is walked whose modes are cut so."""

    def of(modes: Ints, values: Ints) -> Ints:
        return tuple(values[n] for n in modes)

    row_sizes, row_strides = merged(of(rows, shape), of(rows, strides))
    column_sizes, column_strides = merged(of(columns, shape), of(columns, strides))
    groups = [(column_sizes, column_strides), (row_sizes, row_strides)]
    unit, at = alignment(ITEMSIZE[dtype], groups)
    mode = arithmetic(computing, "ieee", chip)
    # Where the tensor core takes operands from registers, four modes that are not aligned are many.
    many = 4 if chip.matrix_rows == 16 and mode != "ieee" and unit == 1 else MODES
    # Blocks that overhang and columns that are filled up are less than as much again.
    lengths = (math.prod(of(rows, shape)), math.prod(of(columns, shape)))
    long = wide(2 * max(*lengths, max(shape) * max(16, rank)))
    tile, held = tile_for(mode, computing, rank, long or len(shape) >= many, chip)
    padded = -(-rank // tile.block_k) * tile.block_k
    row_blocks, column_blocks = -(-lengths[0] // tile.block_m), -(-lengths[1] // tile.block_r)
    along = -(-column_blocks // ACROSS)
    across = -(-column_blocks // along)
    parts = min(row_blocks, max(1, ROUNDS * chip.multiprocessors // across))
    down = -(-row_blocks // parts)
    programs = across * -(-row_blocks // down)
    largest = (
        # The last program may overhang.
        across * along * tile.block_r,
        -(-row_blocks // down) * down * tile.block_m,
        max(shape) * padded,
    )
    known = {
        "CONTIGUOUS": at == 0,
        "UNIT": unit if at == 0 else 1,
        "WIDE": wide(span(shape, strides)),
        "LONG": wide(*largest),
        "HELD": held,
    }
    tiles = row_blocks * column_blocks
    size = tiles * tile.block_m * tile.block_r
    sides = (tile.block_m, len(rows), 1), (tile.block_r, len(columns), down if held else 1)
    instructions = float(EACH * size)
    for length, factors, times in sides:
        each = FORMED + (SPLIT if mode != "ieee" else 0) + FACTOR * (factors - 1)
        instructions += tiles / times * length * padded * each
    costs = sorted(
        [
            2.0 * size * padded / rate(tile, mode, computing, chip),
            instructions / (0.5 * chip.fp32),
            squares(size, chip),
            math.prod(shape) * ITEMSIZE[dtype] / (REACHED * chip.bandwidth),
        ]
    )
    seconds = costs[-1] + EXPOSED * sum(costs[:-1]) + 2 * LAUNCH
    walk = _Walk(
        row_sizes=row_sizes,
        row_strides=row_strides,
        column_sizes=column_sizes,
        column_strides=column_strides,
        row_modes=of(rows, shape),
        column_modes=of(columns, shape),
        rows=lengths[0],
        columns=lengths[1],
        rank=padded,
        down=down,
        along=along,
        across=across,
    )
    return _Way(rows, columns, walk, tile, mode, padded - rank, programs, known, seconds)


def residual(
    x: Tensor, factors: Sequence[Tensor], double: bool = False, chip: Chip | None = None
) -> Tensor:
    """``||x - [[factors]]||^2``, a 0-d float64 tensor on the device of ``x``.

    ``factors[n]`` is ``[I_n, R]``, of all modes and one type; ``x`` has any strides and 1 to 8
    modes. Model and difference are float32, or float64 if anything is, or if ``double``; squares
    are float64. ``chip`` is that of ``x`` if not given.
    """
    chip = chip_of(x.device) if chip is None else chip
    doubled = double or torch.float64 in (x.dtype, *(f.dtype for f in factors))
    computing = torch.float64 if doubled else torch.float32
    matrices = [f.to(computing) for f in factors]
    if x.ndim == 1:
        # A matrix of one row: there are two sides.
        x, matrices = x[None], [matrices[0].new_ones(1, matrices[0].shape[1]), *matrices]
    names = [str(t).removeprefix("torch.") for t in (x.dtype, computing)]
    way = _plan(tuple(x.shape), x.stride(), names[0], names[1], matrices[0].shape[1], chip)
    if way.fill:
        matrices = [torch.nn.functional.pad(f, (0, way.fill)) for f in matrices]
    matrices = [f.contiguous() for f in matrices]
    out = x.new_empty(way.programs, dtype=torch.float64)
    with torch.cuda.device_of(x):
        residual_kernel[(way.programs,)](
            x,
            tuple(matrices[n] for n in way.rows),
            tuple(matrices[n] for n in way.columns),
            out,
            *way.walk,
            BLOCK_M=way.tile.block_m,
            BLOCK_N=way.tile.block_r,
            BLOCK_R=way.tile.block_k,
            PRECISION=way.mode,
            num_warps=way.tile.warps,
            num_stages=way.tile.stages,
            maxnreg=way.tile.registers,
            **way.known,
        )
    return out.sum()


def cost(
    shape: Ints, strides: Ints, rank: int, dtype: str, double: bool, chip: Chip
) -> tuple[float, float, float]:
    """Flops, bytes and seconds that are expected of `residual`."""
    if len(shape) == 1:
        shape, strides = (1, *shape), (0, *strides)
    computing = "float64" if double or dtype == "float64" else "float32"
    size = math.prod(shape)
    way = _plan(shape, strides, dtype, computing, rank, chip)
    return 2.0 * size * rank, float(size * ITEMSIZE[dtype]), way.seconds


def workspace(shape: Ints, strides: Ints, rank: int, dtype: str, double: bool, chip: Chip) -> int:
    """Bytes that `residual` takes, of two modes or more and factors of the computing type."""
    computing = "float64" if double or dtype == "float64" else "float32"
    way = _plan(shape, strides, dtype, computing, rank, chip)
    columns = (rank if double and dtype != "float64" else 0) + (way.walk.rank if way.fill else 0)
    sums = (way.programs + 1) * ITEMSIZE["float64"]
    return sum(shape) * columns * ITEMSIZE[computing] + sums
