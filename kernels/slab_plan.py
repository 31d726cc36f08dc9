"""How a slab pass runs, and what it is expected to cost.

Flops: ``2 numel(x) R``, and ``4 I J R`` that do not count where K is long. Bytes: ``x`` once;
blocks of columns after the first read it from the L2 cache. Through that go ``Y``, twice, and a
``Z`` of each program, twice a slab: ``4 R / K`` of the bytes of ``x`` in all, on ``2 P J R``
numbers for P programs. What does not fit (`IN_CACHE`) goes through memory.

A slab is not shared, as programs would have to wait for each other: the balance is in their number.
Of an H200, 132 multiprocessors, float32, for R = 16 ... 64 is expected:

- 200^3: 200 programs at once, two on some multiprocessors; above R = 32, where one has no room for
  two, 100 programs of two slabs each. 25 to 34 us, where two contractions take 34 to 44.
- 512^3: 256 or 128 programs, 97 % of the chip. 180 to 210 us, where two contractions take 300 to
  370. With R = 256 half a megabyte of ``Y`` and of ``Z`` for each of 128 programs fits in no cache:
  2.6 times the bytes of ``x``, 0.8 ms, where two contractions take 1.4.
- 1024^3: the same programs. 1.25 to 1.55 ms, where two contractions take 2.3 to 2.8.

Nothing here touches a GPU: a plan is a pure function of shapes, strides, precision and the chip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from .configs import Setting, Tile, arithmetic, invalid, overhead, rate
from .devices import ITEMSIZE, LAUNCH, REACHED, Chip
from .indexing import alignment, merged, span, wide
from .plan import EXPOSED, LATENCY, STEPS, WARPS, Contraction

__all__ = ["SlabPlan", "candidates", "expected", "plan", "tile_for"]

Ints = tuple[int, ...]
Walk = tuple[Ints, Ints]

#: Bytes of ``Y`` and ``Z`` of all programs that stay in the L2 cache while ``x`` goes through it:
#: of the 50 MB that Hopper has.
IN_CACHE = 32 << 20

#: Bytes of ``x`` in a stretch, which a program reads again for every block of columns.
STRETCH = 256 << 10

#: Bytes that the memory hands over at least, and that a thread loads at once at most.
SECTOR, LOAD = 32, 16


@dataclass(frozen=True)
class SlabPlan:
    """How one pass runs.

    Attributes
    ----------
    how : str
        ``PRECISION`` of the kernel.
    tile : Tile
    group, inner : tuple of int
        The modes kept and those contracted first, the slowest in memory first.
    walks : pair of (sizes, strides)
        Of group and inner, neighbours merged.
    contiguous : str
        What lies side by side in memory: ``"slabs"``, ``"group"``, ``"inner"`` or ``""``.
    unit : int
        How many of those may be moved as one.
    wide : bool
        Whether an offset in ``x`` does not fit into 32 bits.
    together : int
        Slabs of one tile.
    programs : int
        The size of the grid.
    stretch : int
        Terms that are added before the next block of columns has its turn.
    bytes, seconds : float
        Expected traffic with the memory, and time.
    """

    how: str
    tile: Tile
    group: Ints
    inner: Ints
    walks: tuple[Walk, Walk]
    contiguous: str
    unit: int
    wide: bool
    together: int
    programs: int
    stretch: int
    bytes: float = 0.0
    seconds: float = 0.0

    @property
    def block_s(self) -> int:
        """Rows of ``H^-1`` at a time: at most 16 numbers, and 64 products, a thread."""
        numbers = 32 * self.tile.warps * min(16, 64 // self.together)
        return min(self.tile.block_r, numbers // self.tile.block_r)


@lru_cache(maxsize=1024)
def plan(c: Contraction) -> SlabPlan:
    """Choose how to update the first mode that is kept and contract to the others."""
    return min(candidates(c), key=lambda p: p.seconds)


def expected(c: Contraction) -> tuple[float, float, float]:
    """Flops, bytes and seconds of a pass as it is planned.

    To be held against ``plan.expected`` of the two contractions that it replaces.
    """
    p = plan(c)
    return c.flops + 4.0 * c.length(c.kept) * c.rank, p.bytes, p.seconds


def candidates(c: Contraction) -> Iterator[SlabPlan]:
    """Yield what differs in the programs of one multiprocessor: as many as there is room for.

    A tile holds rows of one slab, or of as many as one load brings where they lie side by side.
    """
    mode, *others = c.kept
    group = tuple(n for n in c.slowest_first if n in others)
    inner = tuple(n for n in c.slowest_first if n not in c.kept)
    slabs, *walks = (_walk(c, modes) for modes in ((mode,), group, inner))
    unit, at = alignment(c.itemsize, [slabs, *walks])
    contiguous = "" if at is None else ("slabs", "group", "inner")[at]
    how = arithmetic(c.dtype, c.precision, c.chip, contiguous in ("slabs", "group"))
    together = LOAD // c.itemsize if contiguous == "slabs" else 1
    long = wide(span(c.shape, c.strides))
    easy = together == 1 and unit * c.itemsize == LOAD and not long
    tile = tile_for(c.rank, how, c.dtype, easy, c.chip)
    again = c.rank > tile.block_r
    stretch = STRETCH // (tile.block_m * c.itemsize) if again else STEPS * tile.block_k
    batches = -(-c.shape[mode] // together)
    for each in range(1, WARPS // tile.warps + 1):
        per_program = -(-batches // min(batches, each * c.chip.multiprocessors))
        way = SlabPlan(
            how=how,
            tile=tile,
            group=group,
            inner=inner,
            walks=(walks[0], walks[1]),
            contiguous=contiguous,
            unit=unit,
            wide=long,
            together=together,
            programs=-(-batches // per_program),
            stretch=stretch,
        )
        nbytes, seconds = _predicted(c, way)
        yield replace(way, bytes=nbytes, seconds=seconds)


def _walk(c: Contraction, modes: Ints) -> Walk:
    sizes, steps = merged(tuple(c.shape[n] for n in modes), tuple(c.strides[n] for n in modes))
    return sizes, steps


def tile_for(rank: int, how: str, dtype: str, easy: bool, chip: Chip) -> Tile:
    """Return the tile: as large as registers allow (``make test-compile``).

    ``easy``: ``x`` is loaded 16 bytes at a time, at offsets of 32 bits, and rows are of one slab.
    Else the addresses take more of them.
    """
    columns = max(16, 1 << (rank - 1).bit_length())
    # Where operands of the tensor cores lie in registers, there is room for fewer.
    k = 16 if chip.matrix_rows == 16 else 32
    if dtype == "float64" and chip.double_cores:
        tile = Tile(64, 16, min(32, columns), 8, 1)
    elif dtype == "float64":
        # Tensor cores for it ended with Hopper.
        tile = Tile(32, 16, min(32 if easy else 16, columns), 8, 1)
    elif how == "ieee":
        tile = Tile(64 if easy else 32, 16, min(32, columns), 4, 1)
    elif not easy:
        # Where an instruction takes 64 rows, more than four warps would repeat each other's work.
        tile = Tile(64, 16, min(64, columns), 4 if chip.matrix_rows == 64 else 8, 1)
    elif columns <= 32:
        tile = Tile(64, k, columns, 4, 1)
    elif columns >= 128 and how in ("tf32", "bf16"):
        # A single product is quick, and twice the columns are half the loads.
        tile = Tile(128, 16, 128, 8, 1)
    else:
        tile = Tile(128, k, 64, 8, 1)
    # What is in flight, in all stages but one, is to cover the latency of the memory.
    needed = LATENCY * chip.bandwidth / chip.multiprocessors
    x_tiles = tile.block_m * tile.block_k * ITEMSIZE[dtype] * (WARPS // tile.warps)
    tile = replace(tile, stages=min(6 if easy else 4, max(3, 1 + math.ceil(needed / x_tiles))))
    # The right operand is a single matrix, whatever the order of x.
    setting = Setting.of(tile.block_m, rank, how, ITEMSIZE[dtype], "inner", 2)
    while invalid(tile, setting, chip) and tile.stages > 1:
        tile = replace(tile, stages=tile.stages - 1)
    return tile


def _predicted(c: Contraction, p: SlabPlan) -> tuple[float, float]:
    """Bytes and seconds, by the multiprocessor that has most to do.

    The L2 cache is taken to be twice as fast as the memory. There are the columns beyond one block,
    and slabs side by side that do not fill what the memory hands over: other programs read the
    rest of it at the same time.
    """
    slabs, group, inner = c.shape[c.kept[0]], c.length(p.group), c.length(p.inner)
    tile, chip, rank = p.tile, c.chip, c.rank
    batches = -(-slabs // p.together)
    columns, stretches = -(-rank // tile.block_r), -(-inner // p.stretch)
    blocks = -(-group * p.together // tile.block_m) * columns
    per_program = -(-batches // p.programs)
    rounds = -(-p.programs // chip.multiprocessors) * per_program
    steps = rounds * chip.multiprocessors * blocks * -(-inner // tile.block_k)
    multiply = steps * 2.0 * tile.volume / rate(tile, p.how, c.dtype, chip)
    besides = steps * overhead(tile, p.how, "inner", chip)

    size = float(math.prod(c.shape) * c.itemsize)
    partial = float(group * rank * c.computing)
    part = max(1.0, SECTOR / (c.itemsize * p.together)) if p.contiguous == "slabs" else 1.0
    own = p.programs * partial
    # Y for every slab and stretch, Z for every batch, then those of all programs.
    through = 2 * partial * (slabs * stretches + batches) + own
    fits = min(1.0, IN_CACHE / (own * (1 + p.together)))
    nbytes = size + (2 * slabs * rank * c.computing + partial) + through * (1 - fits)
    cached = (columns * part - 1) * size + through * fits + batches * rank * rank * 8
    # One multiprocessor alone may draw twice its share of the bandwidth.
    bandwidth = REACHED * chip.bandwidth * min(1.0, 2 * p.programs / chip.multiprocessors)
    move = max(nbytes, (nbytes + cached) / 2) / bandwidth

    # For the first tile of every sum, for Y, and for H^-1.
    solves = columns * -(-rank // p.block_s)
    wait = per_program * (blocks * (stretches + 1) + solves) * LATENCY
    costs = sorted([multiply, besides, move])
    return nbytes, costs[-1] + EXPOSED * sum(costs[:-1]) + wait + 2 * LAUNCH
