"""What Tucker kernels take of a GPU, and whether they can serve: functions of plain numbers.

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

__all__ = ["Plan", "chains", "default_order", "flops", "plan", "reasons", "seconds"]

#: Lanes of a warp, as in the source.
_WARP = 32

#: Of a multiprocessor: clock, registers, threads; shared memory that each block takes besides.
_CLOCK, _REGISTERS, _RESIDENT, _RESERVED = 1.7e9, 65536, 2048, 1024

#: Cycles of a step of the rotations: a barrier, three sums over lanes, two reciprocal roots and a
#: quotient in double precision; of 16 multiply-adds that wait for their loads; the share of the
#: peak that either reaches from shared memory; sweeps of rotations that most matrices take, and
#: that they take from the eigenvectors of one that was much the same.
_TURN, _STEP, _SHARE, _SWEEPS, _WARM = 450, 40, 0.3, 8, 4


@dataclass(frozen=True)
class Plan:
    """How tensors of one shape are decomposed.

    Attributes
    ----------
    kernel : str
        ``"sthosvd_small"`` or ``"hooi_small"``.
    shape, rank : tuple of int
        Of one tensor, and a mode.
    dtype : str
    order : tuple of int
        Modes that shrink, in the order in which the tensor is projected.
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
    count = _iterating if kernel == "hooi_small" else _truncating
    shared = count(shape, rank, ITEMSIZE[dtype], order)
    # Some sixty entries a thread: rotations take most of the time, and few threads at n = 16, so
    # that what counts is how many blocks share a multiprocessor.
    threads = 1 << max(6, round(math.log2(max(1, math.prod(shape) / 64))))
    return Plan(kernel, shape, rank, dtype, order, min(threads, THREADS), shared)


def _stored(shape: Sequence[int]) -> int:
    """Entries of a tensor as it lies: an odd number from row to row."""
    return math.prod(shape[:-1]) * (shape[-1] | 1)


def _projected(shape: Sequence[int], rank: Sequence[int], modes: Sequence[int]) -> int:
    """Entries of what is left when some modes are projected, as it lies."""
    return _stored(
        [r if n in modes else s for n, (s, r) in enumerate(zip(shape, rank, strict=True))]
    )


def _width(rank: int) -> int:
    return -(-rank // 4) * 4


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 16) * 16


def _eigenvectors(longest: int) -> int:
    """Bytes of sums over the block, of a Gram matrix, of lengths and places of its columns."""
    return _WARP * 8 + longest * (longest | 1) * 8 + longest * (8 + 4)


def _truncating(
    shape: tuple[int, ...], rank: tuple[int, ...], item: int, order: tuple[int, ...]
) -> int:
    longest = max((shape[n] for n in order), default=0)
    factor = max((shape[n] * _width(rank[n]) for n in order), default=0)
    first = _projected(shape, rank, order[:1]) if order else 0
    before = _aligned(_eigenvectors(longest)) + factor * item
    return _aligned(before + _stored(shape) * item) + first * item


def _iterating(
    shape: tuple[int, ...], rank: tuple[int, ...], item: int, order: tuple[int, ...]
) -> int:
    longest = max((shape[n] for n in order), default=0)
    vectors = sum(shape[n] * (shape[n] | 1) for n in order) * 8
    factors = sum(shape[n] * _width(rank[n]) for n in order)
    left = [0, 0, 0]
    for mode in order:
        for depth, modes in enumerate(chains(order)[mode]):
            place = 1 + (depth + 1) % 2 if depth else 0
            left[place] = max(left[place], _projected(shape, rank, modes))
    before = _aligned(_eigenvectors(longest) + vectors) + factors * item
    nbytes = _aligned(before + _stored(shape) * item)
    for entries in left:
        nbytes = _aligned(nbytes + entries * item)
    return nbytes


def chains(order: Sequence[int]) -> dict[int, list[tuple[int, ...]]]:
    """Return by mode what its update projects the tensor on, one mode more at a time.

    All but the last mode begin with what is left on that one's factor. After its own update comes
    the core.
    """
    held = max(order, default=0)
    found = {}
    for mode in sorted(order):
        first = (held,) if mode != held else ()
        ways = (*first, *(n for n in order if n not in (mode, held)))
        ways += (held,) if mode == held else ()
        found[mode] = [ways[: depth + 1] for depth in range(len(ways))]
    return found


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
    if kernel == "hooi_small" and tuple(rank) == tuple(shape):
        found.append("all modes are at full rank; there is nothing to iterate")
    if len(found) == fits:
        needed = plan(shape, rank, dtype, order, kernel).shared + STATIC
        if needed > chip.shared_memory:
            found.append(
                f"a tensor takes {needed} bytes of shared memory; a block may use "
                f"{chip.shared_memory}"
            )
    return found


def seconds(chosen: Plan, batch: int, chip: Chip, sweeps: int = 1, registers: int = 128) -> float:
    """Predict the time of a batch, each of whose iterations takes so many sweeps.

    As many blocks as fit share a multiprocessor: they take turns at its arithmetic and wait by
    themselves at barriers and for loads, whichever takes longer.
    """
    work = sum(
        each / (chip.fp32 if single and chosen.dtype == "float32" else chip.fp64)
        for each, single, _ in _costs(chosen)
    )
    waits = sum(waits for _, _, waits in _costs(chosen))
    work, waits = sweeps * work, sweeps * waits
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


def flops(chosen: Plan, sweeps: int = 1) -> float:
    """Return the flops of one tensor, of rotations those that most matrices take."""
    return sweeps * sum(each for each, _, _ in _costs(chosen))


#: Flops, whether they are in the tensor's type (or else float64), and cycles of waiting.
_Cost = tuple[float, bool, float]


def _costs(chosen: Plan) -> list[_Cost]:
    """Return what a truncation, or a sweep, is made of: products, and updates of factors."""
    found = []
    if chosen.kernel == "sthosvd_small":
        for place, mode in enumerate(chosen.order):
            left = _projected(chosen.shape, chosen.rank, chosen.order[:place])
            found.append(_update(chosen, mode, left, _SWEEPS))
            found.append(_product(chosen, mode, left))
        return found
    held = max(chosen.order)
    for mode, chain in chains(chosen.order).items():
        # What all but the last begin with is made once.
        shared = mode not in (min(chosen.order), held)
        for modes in chain[1 if shared else 0 :]:
            left = _projected(chosen.shape, chosen.rank, modes[:-1])
            found.append(_product(chosen, modes[-1], left))
        others = tuple(n for n in chosen.order if n != mode)
        left = _projected(chosen.shape, chosen.rank, others)
        found.append(_update(chosen, mode, left, _WARM))
    return found


def _update(chosen: Plan, mode: int, left: int, sweeps: int) -> _Cost:
    """Return what a Gram matrix and its eigenvectors cost."""
    n = chosen.shape[mode]
    gram = float(left * (n + 4))
    waits = _STEP * gram / (32 * chosen.threads) + sweeps * n * _TURN
    return gram + (6.0 * sweeps + 2) * n**3, False, waits


def _product(chosen: Plan, mode: int, left: int) -> _Cost:
    flops = 2.0 * left * _width(chosen.rank[mode])
    return flops, True, _STEP * flops / (32 * chosen.threads)
