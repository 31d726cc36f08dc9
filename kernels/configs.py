"""Tile shapes: what is valid, what is tried for a problem, and what arithmetic it takes.

Every decision is a pure function of plain numbers, so that the tests can walk through all of them
without a GPU. ``tuned/<gpu>.json`` overrides the tiles that are tried; see ``bench/tune.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .devices import Chip

__all__ = ["Tile", "arithmetic", "invalid", "overhead", "products_of", "rate", "tiles_for"]

#: Tensor-core products one product of computing type takes.
_PRODUCTS = {
    "ieee": 1,
    "bf16x6": 6,
    "bf16x5": 5,
    "bf16w3": 3,
    "bf16x3": 3,
    "half": 1,
    "tf32": 1,
    "bf16": 1,
}

#: Parts that an operand is split into at most.
_PARTS = {"bf16x6": 3, "bf16x5": 3, "bf16w3": 3, "bf16x3": 2, "half": 1, "tf32": 1, "bf16": 1}

#: Share of the vendor's rate that tiles of these sizes are expected to reach. Reasoned, not yet
#: measured: FFMA tiles read both operands from shared memory for every multiply-add.
_EFFICIENCY = {mode: 0.4 if mode == "ieee" else 0.7 for mode in _PRODUCTS}

#: Share of the rate that the instructions of older chips reach on those whose own take more rows.
_OLD_INSTRUCTIONS = {90: 0.6, 100: 0.3}

#: Instructions for each element of ``x`` before it is multiplied: conversions, and differences
#: between an element and its parts.
_SPLITTING = {
    "ieee": 0,
    "bf16x6": 8,
    "bf16x5": 6,
    "bf16w3": 0,
    "bf16x3": 5,
    "half": 0,
    "tf32": 3,
    "bf16": 1,
}


@dataclass(frozen=True)
class Tile:
    """Block sizes of one program, its warps, and how many tiles are in flight."""

    block_m: int
    block_k: int
    block_r: int
    warps: int
    stages: int

    @property
    def volume(self) -> int:
        """Products that one step takes."""
        return self.block_m * self.block_k * self.block_r

    @property
    def registers(self) -> int:
        """Registers that a thread may take.

        Without a bound ptxas spills a few to make room for one more block on a multiprocessor.
        """
        return 255


def products_of(mode: str) -> int:
    """Products of halves that one product takes in a ``PRECISION`` of the kernels."""
    return _PRODUCTS[mode]


def rate(tile: Tile | None, mode: str, dtype: str, chip: Chip) -> float:
    """Flops a second that are expected, counted in products of the computing type.

    Of the best tile if none is given.
    """
    if dtype == "float64":
        peak = chip.fp64
    elif mode == "ieee":
        peak = chip.fp32
    else:
        peak = chip.tf32 if mode.startswith("tf32") else chip.bf16
        if tile is not None and tile.block_m < chip.matrix_rows:
            peak *= _OLD_INSTRUCTIONS[chip.capability]
    return _EFFICIENCY[mode] * peak / _PRODUCTS[mode]


def overhead(tile: Tile, mode: str, sweep: str, chip: Chip) -> float:
    """Seconds on a full chip, one step of one program, for what is no product.

    Splitting ``x``; scaling the block of results, or forming and splitting one of the right side.
    """
    instructions = tile.block_m * tile.block_k * _SPLITTING[mode] + tile.block_m * tile.block_r
    if sweep == "inner":
        instructions += tile.block_k * tile.block_r * (_SPLITTING[mode] + 6)
    return instructions / (0.5 * chip.fp32)


def arithmetic(dtype: str, precision: str, chip: Chip, rows_contiguous: bool = False) -> str:
    """Choose the ``PRECISION`` of a kernel for a storage type and the user's ``precision``.

    ``rows_contiguous``: the tile of ``x`` lies transposed; Hopper's matrix unit takes that from
    shared memory for bfloat16 but not for TF32.
    """
    if dtype == "float64":
        return "ieee"
    if precision == "bf16":
        return "bf16"
    if dtype == "bfloat16":
        return "bf16w3"
    # Halves that are widened to TF32 reach Hopper's matrix unit from registers, and are loaded in
    # its layout, four bytes at a time.
    in_parts = dtype == "float16" or rows_contiguous
    if precision == "tf32":
        return "bf16x3" if in_parts else "tf32"
    split = "bf16x5" if dtype == "float16" else "bf16x6"
    return max(split, "ieee", key=lambda mode: rate(None, mode, dtype, chip))


def invalid(
    tile: Tile, mode: str, itemsize: int, sweep: str, chip: Chip, order: int = 3
) -> list[str]:
    """Every reason why a tile cannot be used, empty if it can; shared by heuristic and tuner.

    ``order`` is that of ``x``.
    """
    reasons = []
    sides = {"block_m": tile.block_m, "block_k": tile.block_k, "block_r": tile.block_r}
    reasons += [
        f"{name} is {side}; expected a power of two, at least 16"
        for name, side in sides.items()
        if side < 16 or side & (side - 1)
    ]
    if tile.warps not in (2, 4, 8):
        reasons.append(f"warps is {tile.warps}; expected 2, 4 or 8")
    if not 1 <= tile.stages <= 6:
        reasons.append(f"stages is {tile.stages}; expected 1 ... 6")
    if reasons:
        return reasons
    wide = 8 if itemsize == 8 else 4
    held = tile.block_m * tile.block_r * (wide // 4) // (32 * tile.warps)
    # The sum and the block's product, and what splitting the operands takes besides.
    if 2 * held > 128:
        reasons.append(f"{held} accumulator registers a thread; expected at most 64")
    shared = shared_memory(tile, mode, itemsize, sweep, order)
    if shared > chip.shared_memory:
        reasons.append(f"{shared} bytes of shared memory; the chip has {chip.shared_memory}")
    return reasons


def shared_memory(tile: Tile, mode: str, itemsize: int, sweep: str, order: int) -> int:
    """Bytes of shared memory that a program takes at most.

    All stages but one of what is loaded in the loop, and the operands of one product.
    """
    wide = 8 if itemsize == 8 else 4
    x, right = tile.block_m * tile.block_k, tile.block_k * tile.block_r
    # The rows of each factor are loaded on their own.
    loaded = x * itemsize + (right * wide * (order - 1) if sweep == "inner" else 0)
    operands = (x + right) * (wide if mode == "ieee" else max(wide, 2 * _PARTS[mode]))
    return max(1, tile.stages - 1) * loaded + operands


def tiles_for(
    rows: int, rank: int, mode: str, itemsize: int, sweep: str, chip: Chip, order: int = 3
) -> tuple[Tile, ...]:
    """Return the tiles to choose from, each valid; none of them spills (``make test-compile``)."""
    few, columns = rows <= 16, min(64, max(16, 1 << (rank - 1).bit_length()))
    if mode == "ieee":
        columns = min(32, columns)
        if few:
            tiles = [Tile(16, 64 if sweep == "outer" else 32, columns, 4, 3)]
        elif itemsize == 8 and chip.capability < 100:
            tiles = [Tile(64, 32, columns, 4, 3)]
        elif sweep == "outer":
            # Of fused multiply-adds: what a thread holds of both operands decides.
            tiles = [Tile(64, 32, columns, 8, 3)]
        else:
            tiles = [Tile(64, 16, columns, 4, 3)]
    else:
        if chip.matrix_rows == 16 and order > 3:
            # Operands are held in registers, beside more indices.
            columns = min(32, columns)
        if few:
            tiles = [Tile(16, 64 if sweep == "outer" else 32, columns, 4, 4)]
        elif sweep == "inner":
            tiles = [Tile(64, 32, columns, 4, 3), Tile(128, 32, columns, 8, 3)]
        elif chip.matrix_rows == 16:
            tiles = [Tile(64, 32, columns, 4, 3)]
        else:
            tiles = [Tile(64, 32, columns, 4, 3), Tile(64, 64, columns, 4, 3)]
    return tuple(_fitting(tile, mode, itemsize, sweep, chip, order) for tile in tiles)


def _fitting(tile: Tile, mode: str, itemsize: int, sweep: str, chip: Chip, order: int) -> Tile:
    """Take as many stages as there is shared memory for."""
    while tile.stages > 1 and invalid(tile, mode, itemsize, sweep, chip, order):
        tile = replace(tile, stages=tile.stages - 1)
    return tile
