"""What `sthosvd_small` takes of a GPU, and whether it can serve: functions of plain numbers.

Nothing of this was measured yet: the rates below are reasoned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..kernels.devices import ITEMSIZE, LAUNCH, REACHED, Chip
from .compiler import Unit, missing
from .cp_plan import DTYPES, MODES, THREADS
from .launcher import STATIC

__all__ = ["Plan", "default_order", "plan", "reasons", "seconds"]

#: Lanes of a warp, as in the source.
_WARP = 32

#: Of a multiprocessor: clock, registers, threads; shared memory that each block takes besides.
_CLOCK, _REGISTERS, _RESIDENT, _RESERVED = 1.7e9, 65536, 2048, 1024

#: Cycles of a step of the rotations: a barrier, three sums over lanes, two reciprocal roots and a
#: quotient in double precision; of 16 multiply-adds that wait for their loads; the share of the
#: peak that either reaches from shared memory; sweeps of rotations that most matrices take.
_TURN, _STEP, _SHARE, _SWEEPS = 450, 40, 0.3, 8


@dataclass(frozen=True)
class Plan:
    """How tensors of one shape are decomposed.

    Attributes
    ----------
    kernel : str
    shape, rank : tuple of int
        Of one tensor, and a mode.
    dtype : str
    order : tuple of int
        Modes that shrink, in the order in which they do.
    threads : int
        Of a block.
    shared : int
        Bytes of shared memory of a block, `STATIC` ones apart.
    """

    kernel: str
    shape: tuple[int, ...]
    rank: tuple[int, ...]
    dtype: str
    order: tuple[int, ...]
    threads: int
    shared: int

    @property
    def unit(self) -> Unit:
        """What is to be compiled."""
        return Unit(f"{self.kernel}.cu", (("REAL", DTYPES[self.dtype]),))

    @property
    def packed(self) -> int:
        """The order as the kernel takes it."""
        return sum(mode << 4 * place for place, mode in enumerate(self.order))


def default_order(shape: Sequence[int], rank: Sequence[int]) -> tuple[int, ...]:
    """Return the order of `tensorfast.sthosvd`: the mode that shrinks most first."""
    return tuple(sorted(range(len(shape)), key=lambda n: (rank[n] / shape[n], shape[n])))


def plan(
    shape: Sequence[int],
    rank: Sequence[int],
    dtype: str,
    order: Sequence[int] | None = None,
    kernel: str = "sthosvd_small",
) -> Plan:
    """Decide; of a problem that `reasons` has nothing against, the shared memory apart."""
    shape, rank = tuple(shape), tuple(rank)
    order = default_order(shape, rank) if order is None else order
    order = tuple(n for n in order if rank[n] < shape[n])
    shared = _truncating(shape, rank, ITEMSIZE[dtype], order)
    # As many rotations at once as there are, and some thirty entries a thread.
    threads = 1 << max(6, round(math.log2(max(1, math.prod(shape) / 32))))
    return Plan(kernel, shape, rank, dtype, order, min(threads, THREADS), shared)


def _stored(shape: Sequence[int]) -> int:
    """Entries of a tensor as it lies: an odd number from row to row."""
    return math.prod(shape[:-1]) * (shape[-1] | 1)


def _projected(shape: Sequence[int], rank: Sequence[int], modes: Sequence[int]) -> int:
    """Entries of what is left when some modes are projected, as it lies."""
    return _stored([r if n in modes else s for n, (s, r) in enumerate(zip(shape, rank, strict=True))])


def _width(rank: int) -> int:
    return -(-rank // 4) * 4


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 16) * 16


def _eigenvectors(longest: int) -> int:
    """Bytes of sums over the block, a Gram matrix, lengths and places of its columns."""
    return _WARP * 8 + longest * (longest | 1) * 8 + longest * (8 + 4)


def _truncating(
    shape: tuple[int, ...], rank: tuple[int, ...], item: int, order: tuple[int, ...]
) -> int:
    longest = max((shape[n] for n in order), default=0)
    factor = max((shape[n] * _width(rank[n]) for n in order), default=0)
    first = _projected(shape, rank, order[:1]) if order else 0
    before = _aligned(_eigenvectors(longest)) + factor * item
    return _aligned(before + _stored(shape) * item) + first * item


def reasons(
    shape: Sequence[int],
    rank: Sequence[int],
    dtype: str,
    device: str,
    chip: Chip,
    order: Sequence[int] | None = None,
    kernel: str = "sthosvd_small",
) -> list[str]:
    """Every reason why a kernel cannot decompose tensors of a shape, empty if it can."""
    found = list(missing())
    if device != "cuda":
        found.append(f"x is on {device}; the kernel runs on CUDA")
    fits = len(found)
    if chip.capability < 80:
        found.append(f"compute capability {chip.capability / 10}; the kernel needs 8.0 or newer")
    if dtype not in DTYPES:
        found.append(f"x is {dtype}; the kernel has {' and '.join(DTYPES)}")
    if not MODES[0] <= len(shape) <= MODES[1]:
        found.append(f"tensors have {len(shape)} modes; the kernel takes {MODES[0]} to {MODES[1]}")
    if len(rank) != len(shape) or not all(0 < r <= s for r, s in zip(rank, shape, strict=False)):
        found.append(
            f"ranks {tuple(rank)} of shape {tuple(shape)}; the kernel takes one a mode, from 1 to "
            "its length"
        )
    if len(found) == fits:
        needed = plan(shape, rank, dtype, order, kernel).shared + STATIC
        if needed > chip.shared_memory:
            found.append(
                f"a tensor takes {needed} bytes of shared memory; a block may use "
                f"{chip.shared_memory}"
            )
    return found


def seconds(chosen: Plan, batch: int, chip: Chip, registers: int = 128) -> float:
    """Predict the time of a batch.

    As many blocks as fit share a multiprocessor: they take turns at its arithmetic and wait by
    themselves at barriers and for loads, whichever takes longer.
    """
    work = waits = 0.0
    done: list[int] = []
    for mode in chosen.order:
        left = _projected(chosen.shape, chosen.rank, done)
        more = _update(chosen, mode, left, chip)
        work, waits = work + more[0], waits + more[1]
        done.append(mode)
    return _batch(chosen, batch, work, waits, chip, registers)


def _update(chosen: Plan, mode: int, left: int, chip: Chip) -> tuple[float, float]:
    """Seconds of arithmetic, as a share of the chip, and cycles of waiting, of a mode."""
    work, waits = _product(chosen, mode, left, chip)
    n = chosen.shape[mode]
    double = left * (n + 4) + 6.0 * _SWEEPS * n**3
    steps = left * (n + 4) / (32 * chosen.threads)
    return work + double / chip.fp64, waits + _STEP * steps + _SWEEPS * n * _TURN


def _product(chosen: Plan, mode: int, left: int, chip: Chip) -> tuple[float, float]:
    """Return the same of a product with a factor."""
    flops = 2.0 * left * _width(chosen.rank[mode])
    peak = chip.fp32 if chosen.dtype == "float32" else chip.fp64
    return flops / peak, _STEP * flops / (32 * chosen.threads)


def _batch(
    chosen: Plan, batch: int, work: float, waits: float, chip: Chip, registers: int
) -> float:
    together = min(
        (chip.shared_memory + _RESERVED) // (chosen.shared + _RESERVED),
        _REGISTERS // (registers * chosen.threads),
        _RESIDENT // chosen.threads,
    )
    together = max(1, min(together, -(-batch // chip.multiprocessors)))
    turns = math.ceil(batch / (together * chip.multiprocessors))
    data = batch * math.prod(chosen.shape) * ITEMSIZE[chosen.dtype]
    each = max(together * work / _SHARE * chip.multiprocessors, waits / _CLOCK)
    return LAUNCH + turns * each + data / (REACHED * chip.bandwidth)
