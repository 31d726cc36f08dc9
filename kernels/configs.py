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

#: Share of the vendor's rate that tiles of these sizes are expected to reach. Reasoned, not yet
#: measured: FFMA tiles read both operands from shared memory for every multiply-add.
_EFFICIENCY = {mode: 0.4 if mode == "ieee" else 0.7 for mode in _PRODUCTS}

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
        if tile is not None and tile.block_m < 64:
            # The matrix units of Hopper and Blackwell take 64 rows; of fewer it is the old way.
            peak *= {90: 0.6, 100: 0.3}.get(chip.capability, 1.0)
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


def invalid(tile: Tile, mode: str, itemsize: int, sweep: str, chip: Chip) -> list[str]:
    """Every reason why a tile cannot be used, empty if it can; shared by heuristic and tuner."""
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
    x_tile = tile.block_m * tile.block_k * itemsize
    w_tile = tile.block_k * tile.block_r * wide * (2 if mode.startswith("bf16") else 1)
    shared = tile.stages * x_tile + w_tile * (tile.stages if sweep == "inner" else 1)
    if shared > chip.shared_memory:
        reasons.append(f"{shared} bytes of shared memory; the chip has {chip.shared_memory}")
    return reasons


def tiles_for(
    rows: int, rank: int, mode: str, itemsize: int, sweep: str, chip: Chip
) -> tuple[Tile, ...]:
    """Return the tiles to choose from, each valid."""
    columns = min(64, max(16, 1 << (rank - 1).bit_length()))
    if mode == "ieee":
        # Of fused multiply-adds many small blocks, instead of warps that wait for one another.
        tile = Tile(64 if rows > 16 else 16, 32, min(32, columns), 4, 3)
    elif rows <= 16:
        tile = Tile(16, 32, columns, 4, 3)
    elif sweep == "outer" and chip.capability < 100:
        tile = Tile(64, 32, columns, 4, 3)
    else:
        tile = Tile(128, 32, columns, 8, 3)
    while invalid(tile, mode, itemsize, sweep, chip) and tile.stages > 1:
        tile = replace(tile, stages=tile.stages - 1)
    return (tile,)
