"""What `cp_als_small` takes of a GPU, and whether it can serve: functions of plain numbers.

Nothing of this was measured yet: the rates below are reasoned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..kernels.devices import ITEMSIZE, LAUNCH, REACHED, Chip
from .compiler import Unit, missing
from .launcher import STATIC

__all__ = [
    "BLOCKS",
    "DTYPES",
    "MODES",
    "RANK",
    "THREADS",
    "WIDTHS",
    "Plan",
    "blocks_of",
    "plan",
    "reasons",
    "seconds",
]

#: Columns of the kernel's matrices: the rank, filled up.
WIDTHS = (4, 8, 16, 32)

#: By type the word of the source.
DTYPES = {"float32": "float", "float64": "double"}

#: Limits of the kernel: modes of a tensor, columns of a factor, threads of a block.
MODES, RANK, THREADS = (2, 5), WIDTHS[-1], 512

#: Blocks that a tensor may have. Clusters of eight have room on every GPU that has clusters: those
#: of compute capability 9.0 to 11.x.
BLOCKS, CLUSTERS = (1, 2, 4, 8), range(90, 120)

#: Rows that are solved for at once, lanes of a warp, and bytes of what all threads know, as in the
#: source.
_ROWS, _WARP, _KNOWN = 32, 32, 144

#: Of a multiprocessor: clock, registers, threads; shared memory that each block takes besides.
_CLOCK, _REGISTERS, _RESIDENT, _RESERVED = 1.7e9, 65536, 2048, 1024

#: Cycles of a barrier with what waits around it, of one of a cluster, and of a step of 16
#: multiply-adds that waits for its loads; the share of the peak that products from shared memory
#: reach, of five loads a step; bytes a cycle that a block reads of others' shared memory.
_BARRIER, _TOGETHER, _STEP, _SHARE, _FROM_PEERS = 80, 400, 40, 0.35, 16


@dataclass(frozen=True)
class Plan:
    """How tensors of one shape are fitted.

    Attributes
    ----------
    shape : tuple of int
        Of one tensor.
    rank : int
    dtype : str
    blocks : int
        Of a tensor; more than one are a cluster, and have some of its rows each.
    split : int
        Modes before this one are the rows of the tensor as a matrix.
    width : int
        Columns of a factor in shared memory, one of `WIDTHS`.
    threads : int
        Of a block.
    shared : int
        Bytes of shared memory of a block, `STATIC` ones apart.
    """

    shape: tuple[int, ...]
    rank: int
    dtype: str
    blocks: int
    split: int
    width: int
    threads: int
    shared: int

    @property
    def unit(self) -> Unit:
        """What is to be compiled."""
        macros = (
            ("REAL", DTYPES[self.dtype]),
            ("WIDTH", str(self.width)),
            ("CLUSTERED", str(int(self.blocks > 1))),
        )
        return Unit("cp_als_small.cu", macros)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the tensor as a matrix."""
        return math.prod(self.shape[: self.split]), math.prod(self.shape[self.split :])


def blocks_of(shape: Sequence[int], rank: int, dtype: str, chip: Chip) -> int:
    """Count the blocks that a tensor takes: as few as hold it; if none do, as many as there are."""
    there = BLOCKS if chip.capability in CLUSTERS else BLOCKS[:1]
    enough = (
        blocks
        for blocks in there
        if plan(shape, rank, dtype, blocks).shared + STATIC <= chip.shared_memory
    )
    return next(enough, there[-1])


def plan(shape: Sequence[int], rank: int, dtype: str, blocks: int = 1) -> Plan:
    """Decide; of a problem that `reasons` has nothing against, the shared memory apart."""
    shape = tuple(shape)
    width = next(w for w in WIDTHS if w >= rank)

    def sides(split: int) -> tuple[int, int]:
        return math.prod(shape[:split]), math.prod(shape[split:])

    # The contractions are the same for every split; what lies beside the tensor is not. Rows are
    # gathered from the blocks of a cluster, which takes less than to add up columns.
    split = min(range(1, len(shape)), key=lambda s: (sum(sides(s)), (blocks > 1) * -sides(s)[0]))
    rows, columns = sides(split)
    own = -(-rows // blocks)
    double, item = 8, ITEMSIZE[dtype]
    small = _WARP + _ROWS * width + (len(shape) + 1) * rank**2 + 2 * rank
    matrices = (sum(shape) + rows + columns + max(shape)) * width
    shared = _KNOWN + -(-small * double // 16) * 16 + (matrices + own * (columns | 1)) * item
    # Sixteen steps of a thread through each contraction.
    threads = 1 << max(6, round(math.log2(max(1, own * columns * width / 256))))
    return Plan(shape, rank, dtype, blocks, split, width, min(threads, THREADS), shared)


def reasons(shape: Sequence[int], rank: int, dtype: str, device: str, chip: Chip) -> list[str]:
    """Every reason why the kernel cannot fit tensors of a shape, empty if it can."""
    found = list(missing())
    if device != "cuda":
        found.append(f"x is on {device}; the kernel runs on CUDA")
    if chip.capability < 80:
        found.append(f"compute capability {chip.capability / 10}; the kernel needs 8.0 or newer")
    if dtype not in DTYPES:
        found.append(f"x is {dtype}; the kernel has {' and '.join(DTYPES)}")
    if not MODES[0] <= len(shape) <= MODES[1]:
        found.append(f"tensors have {len(shape)} modes; the kernel takes {MODES[0]} to {MODES[1]}")
    if rank > RANK:
        found.append(f"rank {rank}; the kernel takes up to {RANK}")
    if 0 in (*shape, rank):
        found.append("nothing to compute")
    if not found[len(missing()) + (device != "cuda") :]:
        blocks = blocks_of(shape, rank, dtype, chip)
        needed = plan(shape, rank, dtype, blocks).shared + STATIC
        if needed > chip.shared_memory:
            each = f" in each of {blocks} blocks" if blocks > 1 else ""
            found.append(
                f"a tensor takes {needed} bytes of shared memory{each}; a block may use "
                f"{chip.shared_memory}"
            )
    return found


def seconds(chosen: Plan, batch: int, sweeps: int, chip: Chip, registers: int = 128) -> float:
    """Predict the time of a batch, each of whose fits takes so many sweeps.

    As many blocks as fit share a multiprocessor: they take turns at its arithmetic and wait by
    themselves at barriers and for loads, whichever takes longer.
    """
    rows, columns = chosen.sides
    modes, rank, width, threads = len(chosen.shape), chosen.rank, chosen.width, chosen.threads
    together = min(
        (chip.shared_memory + _RESERVED) // (chosen.shared + _RESERVED),
        _REGISTERS // (registers * threads),
        _RESIDENT // threads,
    )
    blocks = chosen.blocks
    together = max(1, min(together, -(-batch * blocks // chip.multiprocessors)))
    products = 4.0 * rows * columns * width / blocks
    small = modes * 2 / 3 * rank**3 + 6 * sum(chosen.shape) * rank**2
    peak = chip.fp32 if chosen.dtype == "float32" else chip.fp64
    work = (products / peak + small / chip.fp64) / _SHARE * chip.multiprocessors
    waits = _BARRIER * (modes * (rank + 3) + 10) + _STEP * products / (32 * threads)
    if blocks > 1:
        exchanged = (rows + 2 * columns) * width * ITEMSIZE[chosen.dtype]
        waits += 7 * _TOGETHER + exchanged / _FROM_PEERS
    turns = math.ceil(batch * blocks / (together * chip.multiprocessors))
    data = batch * math.prod(chosen.shape) * ITEMSIZE[chosen.dtype]
    fits = turns * sweeps * max(together * work, waits / _CLOCK)
    return LAUNCH + fits + data / (REACHED * chip.bandwidth)
