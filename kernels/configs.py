"""Tile shapes: what is valid, and what is taken for a problem where nothing has been tuned.

Every decision is a pure function of plain numbers, so that the tests can walk through all of them
without a GPU. ``tuned/<gpu>.json`` may override the choice; see ``bench/tune.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .devices import Chip

__all__ = ["Tile", "arithmetic", "invalid", "products_of", "tile_for"]

#: Tensor-core products one product of computing type takes.
_PRODUCTS = {"ieee": 1, "tf32x3": 3, "bf16x6": 6, "bf16w3": 3, "tf32": 1, "bf16": 1}

#: Share of the vendor's rate that tiles of these sizes are expected to reach. Reasoned, not yet
#: measured: FFMA tiles read both operands from shared memory for every multiply-add.
_EFFICIENCY = {"ieee": 0.4, "tf32x3": 0.7, "bf16x6": 0.7, "bf16w3": 0.7, "tf32": 0.7, "bf16": 0.7}


@dataclass(frozen=True)
class Tile:
    """Block sizes of one program, its warps, and how many tiles are in flight."""

    block_m: int
    block_k: int
    block_r: int
    warps: int
    stages: int


def products_of(mode: str) -> int:
    """Products of halves that one product takes in a ``PRECISION`` of the kernels."""
    return _PRODUCTS[mode]


def rate(mode: str, dtype: str, chip: Chip) -> float:
    """Flops a second that are expected, counted in products of the computing type."""
    if dtype == "float64":
        peak = chip.fp64
    elif mode == "ieee":
        peak = chip.fp32
    else:
        peak = chip.tf32 if mode.startswith("tf32") else chip.bf16
    return _EFFICIENCY[mode] * peak / _PRODUCTS[mode]


def arithmetic(dtype: str, precision: str, chip: Chip, rows_contiguous: bool = False) -> str:
    """Choose the ``PRECISION`` of a kernel for a storage type and the user's ``precision``.

    ``rows_contiguous``: the tile of ``x`` lies transposed; Hopper's matrix unit takes that from
    shared memory for bfloat16 but not for TF32.
    """
    if dtype == "float64":
        return "ieee"
    if precision != "ieee":
        return precision
    if dtype == "bfloat16":
        return "bf16w3"
    # float16 is exact in TF32, not in bfloat16.
    splits = ["bf16x6", "tf32x3"] if dtype == "float32" and rows_contiguous else ["tf32x3"]
    return max([*splits, "ieee"], key=lambda mode: rate(mode, dtype, chip))


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
    w_tile = tile.block_k * tile.block_r * wide * (2 if mode in ("tf32x3", "bf16x6") else 1)
    shared = tile.stages * x_tile + w_tile * (tile.stages if sweep == "inner" else 1)
    if shared > chip.shared_memory:
        reasons.append(f"{shared} bytes of shared memory; the chip has {chip.shared_memory}")
    return reasons


def tile_for(
    rows: int, terms: int, rank: int, mode: str, itemsize: int, sweep: str, chip: Chip
) -> Tile:
    """Choose a tile by shape; ``terms`` is the length of the sum a block of ``k`` is cut from."""
    columns = min(64, _at_least_16(rank))
    # Of fused multiply-adds many small blocks, instead of warps that wait for one another.
    tile = Tile(64, 32, min(32, columns), 4, 3) if mode == "ieee" else Tile(128, 32, columns, 8, 3)
    block_m = min(tile.block_m, _at_least_16(rows))
    if block_m < 64:
        # Fewer rows than two warps' worth of a tensor-core product.
        tile = Tile(block_m, tile.block_k, tile.block_r, 4 if block_m >= 32 else 2, tile.stages)
    if terms <= 16:
        tile = Tile(tile.block_m, 16, tile.block_r, tile.warps, tile.stages)
    while invalid(tile, mode, itemsize, sweep, chip) and tile.stages > 1:
        tile = Tile(tile.block_m, tile.block_k, tile.block_r, tile.warps, tile.stages - 1)
    return tile


def _at_least_16(n: int) -> int:
    return max(16, 1 << (n - 1).bit_length())
