"""How a contraction runs: sweep, tile and splits by the time that a roofline predicts for each.

Nothing here touches a GPU: a plan is a pure function of shapes, strides, precision and the chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from .configs import Setting, Tile, arithmetic, overhead, rate, tiles_for
from .devices import IN_CACHE, ITEMSIZE, LAUNCH, REACHED, Chip
from .indexing import plain

__all__ = ["Plan", "candidates", "expected", "plan"]

Ints = tuple[int, ...]

#: Largest share of the bytes of ``x`` that partial results may cost.
PARTIALS = 0.125

#: Steps that one program may add to its sum, each a rounding of float32. At 128 the error of long
#: sums is that of a CPU's product within a factor of three (``bench/splitting.py``).
STEPS = 128

#: Programs a multiprocessor that are tried.
ROUNDS = (1, 2, 3, 4, 6, 8)

#: Warps that registers leave room for on a multiprocessor at the 255 a thread that these kernels
#: may take, and seconds from a load to its data.
WARPS, LATENCY = 8, 7e-7

#: Share of the lesser costs that does not hide behind the greatest.
EXPOSED = 0.1


@dataclass(frozen=True)
class Plan:
    """How one contraction runs.

    Attributes
    ----------
    sweep : str
        ``"outer"`` or ``"inner"``.
    mode : str
        ``PRECISION`` of the kernel.
    tile : Tile
    kept, outer, inner : tuple of int
        The modes of each part of the sum, the slowest in memory first.
    splits, per_split : int
        Partial results, and the steps of each.
    programs : int
        The size of the grid.
    bytes, seconds : float
        Expected traffic with the memory, and time.
    """

    sweep: str
    mode: str
    tile: Tile
    kept: Ints
    outer: Ints
    inner: Ints
    splits: int
    per_split: int
    programs: int
    bytes: float
    seconds: float


@lru_cache(maxsize=1024)
def plan(
    shape: Ints,
    strides: Ints,
    kept: Ints,
    rank: int,
    dtype: str,
    precision: str,
    chip: Chip,
) -> Plan:
    """Choose how to contract to the modes ``kept``: the quickest by prediction.

    Sums of at most `STEPS` steps come first, whatever their time, where partial results stay small.
    """
    ways = candidates(shape, strides, kept, rank, dtype, precision, chip)
    return min(ways, key=lambda p: (p.per_split > STEPS, p.seconds))


def expected(
    shape: Ints,
    strides: Ints,
    kept: Ints,
    rank: int,
    dtype: str,
    precision: str,
    chip: Chip,
) -> tuple[float, float, float]:
    """Flops, bytes and seconds of a contraction as it is planned."""
    p = plan(shape, strides, kept, rank, dtype, precision, chip)
    return 2.0 * math.prod(shape) * rank, p.bytes, p.seconds


def candidates(
    shape: Ints,
    strides: Ints,
    kept: Ints,
    rank: int,
    dtype: str,
    precision: str,
    chip: Chip,
    tiles: Callable[[Setting, Chip], Iterable[Tile]] | None = None,
) -> Iterator[Plan]:
    """Yield every way to contract to the modes ``kept`` that is worth its partial results.

    With ``tiles``, if given, in place of `tiles_for`.
    """
    tiles = tiles_for if tiles is None else tiles
    slowest_first = sorted(range(len(shape)), key=lambda n: (-strides[n], n))
    rows = tuple(n for n in slowest_first if n in kept)
    summed = tuple(n for n in slowest_first if n not in kept)
    # The mode that lies closest together decides how a tile is loaded.
    fastest = [n for n in slowest_first if shape[n] > 1][-1:]
    rows_contiguous = bool(fastest) and fastest[0] in kept and strides[fastest[0]] == 1
    mode, itemsize = arithmetic(dtype, precision, chip, rows_contiguous), ITEMSIZE[dtype]
    simple = plain(shape, strides, itemsize)
    results = math.prod(shape[n] for n in rows) * rank
    allowed = max(IN_CACHE, PARTIALS * math.prod(shape) * itemsize / (2 * max(4, itemsize)))
    for cut in range(len(summed)):
        outer, inner = summed[:cut], summed[cut:]
        sweep = "outer" if outer else "inner"
        lengths = [math.prod(shape[n] for n in modes) for modes in (rows, outer, inner)]
        setting = Setting.of(lengths[0], rank, mode, itemsize, sweep, len(shape), simple)
        for tile in tiles(setting, chip):
            k_blocks = -(-lengths[2] // tile.block_k)
            blocks = -(-lengths[0] // tile.block_m) * -(-rank // tile.block_r)
            at_once, steps = (k_blocks, lengths[1]) if outer else (1, k_blocks)
            if at_once > 1 and at_once * results > allowed:
                continue
            most = max(1, int(allowed // (results * at_once)))
            filling = (n * chip.multiprocessors // (blocks * at_once) for n in ROUNDS)
            for parts in {min(max(1, n), steps, most) for n in (1, *filling, -(-steps // STEPS))}:
                per_split = -(-steps // parts)
                splits = -(-steps // per_split) * at_once
                programs = blocks * splits
                nbytes, seconds = _predicted(
                    tile, mode, sweep, dtype, lengths, rank, splits, per_split, programs, chip
                )
                yield Plan(
                    sweep,
                    mode,
                    tile,
                    rows,
                    outer,
                    inner,
                    splits,
                    per_split,
                    programs,
                    nbytes,
                    seconds,
                )


def _predicted(
    tile: Tile,
    mode: str,
    sweep: str,
    dtype: str,
    lengths: list[int],
    rank: int,
    splits: int,
    per_split: int,
    programs: int,
    chip: Chip,
) -> tuple[float, float]:
    """Bytes and seconds, by the multiprocessor that has most to do.

    Tiles count whole, the empty part of the last one too; memory does not see that part. Columns
    beyond one block read ``x`` again, from the L2 cache, twice as fast.
    """
    itemsize = ITEMSIZE[dtype]
    size, results = math.prod(lengths) * itemsize, lengths[0] * rank * max(4, itemsize)
    share = -(-programs // chip.multiprocessors) * chip.multiprocessors * per_split
    resident = min(programs / chip.multiprocessors, WARPS / tile.warps)
    # Half of what one waits for is hidden by its own instructions, half by other warps.
    busy = 0.5 + 0.5 * resident * tile.warps / WARPS
    multiply = share * 2.0 * tile.volume / rate(tile, mode, dtype, chip) / busy
    besides = share * overhead(tile, mode, sweep, chip) / busy
    in_flight = resident * (tile.stages - 1) * tile.block_m * tile.block_k * itemsize
    bandwidth = REACHED * chip.bandwidth
    drawn = min(bandwidth, chip.multiprocessors * in_flight / LATENCY)
    again = -(-rank // tile.block_r) / 2
    costs = sorted([multiply, besides, (size * max(1.0, again) + results) / max(drawn, 1.0)])
    seconds = costs[-1] + EXPOSED * sum(costs[:-1]) + LAUNCH
    nbytes = float(size + results)
    if splits > 1:
        partials = 2.0 * splits * results
        nbytes += partials
        # Small ones do not leave the L2 cache.
        rate_of = 2 if splits * lengths[0] * rank <= IN_CACHE else 1
        seconds += partials / (rate_of * bandwidth) + LAUNCH
    return nbytes, seconds
