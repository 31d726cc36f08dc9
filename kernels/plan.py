"""How a contraction runs: sweep, tile and splits by the time that a roofline predicts for each.

Nothing here touches a GPU: a plan is a pure function of shapes, strides, precision and the chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from .configs import Setting, Tile, arithmetic, overhead, rate, tiles_for
from .devices import IN_CACHE, ITEMSIZE, LAUNCH, REACHED, Chip, chip_of
from .indexing import plain

__all__ = ["Contraction", "Plan", "candidates", "expected", "plan"]

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
class Contraction:
    """What is to be planned.

    Attributes
    ----------
    shape, strides : tuple of int
        Of ``x``.
    kept : tuple of int
        The modes that are left; for a slab pass the one that is cut, then the others.
    rank : int
    dtype, precision : str
        The storage type of ``x``, and what the user asks for.
    chip : Chip
    """

    shape: Ints
    strides: Ints
    kept: Ints
    rank: int
    dtype: str
    precision: str
    chip: Chip

    @classmethod
    def of(
        cls, x: Tensor, kept: Iterable[int], rank: int, precision: str, chip: Chip | None = None
    ) -> Contraction:
        """Describe a tensor; ``chip`` is that of ``x`` if not given."""
        dtype = str(x.dtype).removeprefix("torch.")
        chip = chip or chip_of(x.device)
        return cls(tuple(x.shape), x.stride(), tuple(kept), rank, dtype, precision, chip)

    @property
    def itemsize(self) -> int:
        """Bytes of an element of ``x``."""
        return ITEMSIZE[self.dtype]

    @property
    def computing(self) -> int:
        """Bytes of an element of the result."""
        return max(4, self.itemsize)

    @property
    def flops(self) -> float:
        """Flops of one contraction of all of ``x``."""
        return 2.0 * math.prod(self.shape) * self.rank

    @property
    def slowest_first(self) -> Ints:
        """All modes in the order of the memory."""
        return tuple(sorted(range(len(self.shape)), key=lambda n: (-self.strides[n], n)))

    def length(self, modes: Iterable[int]) -> int:
        """Return how many indices these modes have together."""
        return math.prod(self.shape[n] for n in modes)


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
    bytes: float = 0.0
    seconds: float = 0.0


@lru_cache(maxsize=1024)
def plan(c: Contraction) -> Plan:
    """Choose how to contract: the quickest way by prediction.

    Sums of at most `STEPS` steps come first, whatever their time, where partial results stay small.
    """
    return min(candidates(c), key=lambda p: (p.per_split > STEPS, p.seconds))


def expected(c: Contraction) -> tuple[float, float, float]:
    """Flops, bytes and seconds of a contraction as it is planned."""
    p = plan(c)
    return c.flops, p.bytes, p.seconds


def candidates(
    c: Contraction, tiles: Callable[[Setting, Chip], Iterable[Tile]] | None = None
) -> Iterator[Plan]:
    """Yield every way to contract that is worth its partial results.

    With ``tiles``, if given, in place of `tiles_for`.
    """
    tiles = tiles or tiles_for
    rows = tuple(n for n in c.slowest_first if n in c.kept)
    summed = tuple(n for n in c.slowest_first if n not in c.kept)
    # The mode that lies closest together decides how a tile is loaded.
    fastest = [n for n in c.slowest_first if c.shape[n] > 1][-1:]
    rows_contiguous = bool(fastest) and fastest[0] in c.kept and c.strides[fastest[0]] == 1
    mode = arithmetic(c.dtype, c.precision, c.chip, rows_contiguous)
    order, simple = len(c.shape), plain(c.shape, c.strides, c.itemsize)
    length, results = c.length(rows), c.length(rows) * c.rank
    size = math.prod(c.shape) * c.itemsize
    allowed = max(IN_CACHE, PARTIALS * size / (2 * c.computing))
    for cut in range(len(summed)):
        outer, inner = summed[:cut], summed[cut:]
        sweep = "outer" if outer else "inner"
        setting = Setting.of(length, c.rank, mode, c.itemsize, sweep, order, simple)
        for tile in tiles(setting, c.chip):
            k_blocks = -(-c.length(inner) // tile.block_k)
            blocks = -(-length // tile.block_m) * -(-c.rank // tile.block_r)
            at_once, steps = (k_blocks, c.length(outer)) if outer else (1, k_blocks)
            if at_once > 1 and at_once * results > allowed:
                continue
            most = max(1, int(allowed // (results * at_once)))
            filling = (n * c.chip.multiprocessors // (blocks * at_once) for n in ROUNDS)
            for parts in {min(max(1, n), steps, most) for n in (1, *filling, -(-steps // STEPS))}:
                per_split = -(-steps // parts)
                splits = -(-steps // per_split) * at_once
                programs = blocks * splits
                way = Plan(sweep, mode, tile, rows, outer, inner, splits, per_split, programs)
                nbytes, seconds = _predicted(c, way)
                yield replace(way, bytes=nbytes, seconds=seconds)


def _predicted(c: Contraction, p: Plan) -> tuple[float, float]:
    """Bytes and seconds, by the multiprocessor that has most to do.

    Tiles count whole, the empty part of the last one too; memory does not see that part. Columns
    beyond one block read ``x`` again, from the L2 cache, twice as fast.
    """
    tile, chip, results = p.tile, c.chip, c.length(p.kept) * c.rank
    read, written = math.prod(c.shape) * c.itemsize, results * c.computing
    share = -(-p.programs // chip.multiprocessors) * chip.multiprocessors * p.per_split
    resident = min(p.programs / chip.multiprocessors, WARPS / tile.warps)
    # Half of what one waits for is hidden by its own instructions, half by other warps.
    busy = 0.5 + 0.5 * resident * tile.warps / WARPS
    multiply = share * 2.0 * tile.volume / rate(tile, p.mode, c.dtype, chip) / busy
    besides = share * overhead(tile, p.mode, p.sweep, chip) / busy
    in_flight = resident * (tile.stages - 1) * tile.block_m * tile.block_k * c.itemsize
    bandwidth = REACHED * chip.bandwidth
    drawn = min(bandwidth, chip.multiprocessors * in_flight / LATENCY)
    again = -(-c.rank // tile.block_r) / 2
    move = (read * max(1.0, again) + written) / max(drawn, 1.0)
    costs = sorted([multiply, besides, move])
    seconds = costs[-1] + EXPOSED * sum(costs[:-1]) + LAUNCH
    nbytes = float(read + written)
    if p.splits > 1:
        partials = 2.0 * p.splits * written
        nbytes += partials
        # Small ones do not leave the L2 cache.
        faster = 2 if p.splits * results <= IN_CACHE else 1
        seconds += partials / (faster * bandwidth) + LAUNCH
    return nbytes, seconds
