"""Tile shapes: what is valid, what is tried for a problem, and what arithmetic it takes.

Every decision is a pure function of plain numbers, so that the tests can walk through all of them
without a GPU. ``tuned/<gpu>.json`` overrides the tiles that are tried; see ``bench/tune.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from .devices import CHIPS, Chip

__all__ = ["Setting", "Tile", "arithmetic", "invalid", "overhead", "rate", "tiles_for", "tuned"]

#: Rows that take tiles of their own, up to this many.
FEW = 16

#: Where ``bench/tune.py`` leaves what it found.
TUNED = Path(__file__).parent / "tuned"

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
_PARTS = {mode: {"bf16x3": 2}.get(mode, min(3, count)) for mode, count in _PRODUCTS.items()}

#: Share of the vendor's rate that tiles of these sizes are expected to reach. Reasoned, not yet
#: measured: FFMA tiles read both operands from shared memory for every multiply-add.
_EFFICIENCY = {mode: 0.4 if mode == "ieee" else 0.7 for mode in _PRODUCTS}

#: Share of the rate that the instructions of older chips reach on those whose own take more rows.
_OLD_INSTRUCTIONS = {90: 0.6, 100: 0.3}

#: Instructions for each element of ``x`` before it is multiplied, and for each step of a thread
#: besides, counted in the code compiled for sm_90 (`bench.sass`).
_SPLITTING = {
    "ieee": 0,
    "bf16x6": 10,
    "bf16x5": 6,
    "bf16w3": 1,
    "bf16x3": 6,
    "half": 0,
    "tf32": 3,
    "bf16": 2,
}
_STEP = 100


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


@dataclass(frozen=True)
class Setting:
    """What the choice of a tile depends on besides the GPU.

    Attributes
    ----------
    sweep : str
        ``"outer"`` or ``"inner"``.
    mode : str
        ``PRECISION`` of the kernel.
    itemsize : int
        Bytes of an element of ``x``.
    rows : int
        `FEW`, or 64 for more.
    columns : int
        16, 32 or 64: the rank, rounded up as far as that.
    order : int
        Of ``x``.
    plain : bool
        Whether ``x`` is `indexing.plain`.
    """

    sweep: str
    mode: str
    itemsize: int
    rows: int
    columns: int
    order: int
    plain: bool = True

    @classmethod
    def of(
        cls,
        rows: int,
        rank: int,
        mode: str,
        itemsize: int,
        sweep: str,
        order: int,
        plain: bool = True,
    ) -> Setting:
        """Round the numbers of a problem."""
        columns = min(64, max(16, 1 << (rank - 1).bit_length()))
        return cls(sweep, mode, itemsize, FEW if rows <= FEW else 64, columns, order, plain)

    @property
    def wide(self) -> int:
        """Bytes of an element of the computing type."""
        return max(4, self.itemsize)


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
    instructions = tile.block_m * (tile.block_k * _SPLITTING[mode] + tile.block_r)
    instructions += _STEP * 32 * tile.warps
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


def invalid(tile: Tile, setting: Setting, chip: Chip) -> list[str]:
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
    held = tile.block_m * tile.block_r * (setting.wide // 4) // (32 * tile.warps)
    # The sum and the block's product, and what splitting the operands takes besides.
    if 2 * held > 128:
        reasons.append(f"{held} accumulator registers a thread; expected at most 64")
    shared = shared_memory(tile, setting)
    if shared > chip.shared_memory:
        reasons.append(f"{shared} bytes of shared memory; the chip has {chip.shared_memory}")
    return reasons


def shared_memory(tile: Tile, setting: Setting) -> int:
    """Bytes of shared memory that a program takes at most.

    All stages but one of what is loaded in the loop, and the operands of one product.
    """
    x, right = tile.block_m * tile.block_k, tile.block_k * tile.block_r
    # The rows of each factor are loaded on their own.
    factors = setting.order - 1 if setting.sweep == "inner" else 0
    loaded = x * setting.itemsize + factors * right * setting.wide
    parts = max(setting.wide, 2 * _PARTS[setting.mode])
    return max(1, tile.stages - 1) * loaded + (x + right) * parts


def tiles_for(setting: Setting, chip: Chip) -> tuple[Tile, ...]:
    """Return the tiles to choose from: what was measured to be best, or what was reasoned out.

    All are valid, and none of them spills registers (``make test-compile``).
    """
    measured = tuned(chip.name).get(setting)
    if measured is not None:
        return (measured,)
    few, outer, columns = setting.rows == FEW, setting.sweep == "outer", setting.columns
    if setting.mode == "ieee" or not setting.plain:
        columns = min(32, columns)
    tensor_cores = setting.mode != "ieee" or (setting.itemsize == 8 and chip.double_cores)
    if not tensor_cores and setting.itemsize == 8:
        # A thread holds all terms of its rows and columns.
        tiles = [Tile(16, 16, columns, 4, 4) if few else Tile(32, 16, columns, 8, 3)]
    elif not tensor_cores and (not setting.plain or (few and not outer)):
        # As many threads as there are 16 bytes for, and as many columns as these have room for.
        side, warps = (16, 2) if setting.itemsize == 2 else (32, 4)
        columns, stages = min(side, columns), 4 if setting.plain else 3
        tiles = [
            Tile(16, 32, columns, warps, stages) if few else Tile(32, 32, columns, 2 * warps, 3)
        ]
    elif few:
        # Of half precision a smaller tile has less than 16 bytes for a thread.
        if setting.plain and not outer and setting.itemsize == 2:
            tiles = [Tile(16, 64, min(32, columns), 4, 4)]
        else:
            tiles = [Tile(16, 64 if outer and setting.plain else 32, columns, 4, 4)]
    elif not setting.plain:
        rows = 64 if setting.mode != "ieee" else 32
        short = setting.itemsize == 8 or (not outer and chip.matrix_rows == 16)
        tiles = [Tile(rows, 16 if short else 32, columns, 4, 3)]
    elif not tensor_cores:
        # What a thread holds of both operands decides.
        tiles = [Tile(64, 32, columns, 8, 3) if outer else Tile(64, 16, columns, 4, 3)]
    else:
        tiles = [Tile(64, 32, columns, 4, 3)]
        if setting.mode != "ieee" and not outer:
            # Where operands are held in registers, fewer of them.
            tiles += [Tile(128, 32, min(columns, 2 * chip.matrix_rows), 8, 3)]
        elif setting.mode != "ieee" and chip.matrix_rows == 64:
            tiles += [Tile(64, 64, columns, 4, 3)]
    return tuple(_fitting(tile, setting, chip) for tile in tiles)


def _fitting(tile: Tile, setting: Setting, chip: Chip) -> Tile:
    """Take as many stages as there is shared memory for."""
    while tile.stages > 1 and invalid(tile, setting, chip):
        tile = replace(tile, stages=tile.stages - 1)
    return tile


@cache
def tuned(name: str) -> dict[Setting, Tile]:
    """Return the tiles that ``bench/tune.py`` found best on a GPU, by `Chip.name`.

    Raises
    ------
    ValueError
        If the file has a tile that the GPU cannot use.
    """
    path = TUNED / f"{name}.json"
    if not name or not path.is_file():
        return {}
    record = json.loads(path.read_text())
    chip = replace(CHIPS[record["capability"]], shared_memory=record["shared_memory"])
    found = {}
    for entry in record["tiles"]:
        setting, tile = Setting(**entry["setting"]), Tile(**entry["tile"])
        if reasons := invalid(tile, setting, chip):
            raise ValueError(f"{path.name}: {tile} for {setting}: {'; '.join(reasons)}")
        found[setting] = tile
    return found
