"""Partial results that the MTTKRPs of a sweep share, though TensorLy asks for them one by one.

Alternating least squares asks for the MTTKRP of one mode after the other, and changes one factor in
between. As `tensorfast.cp_als` does, one contraction of the tensor then serves a run of modes. A
partial result is used only where it is what its operands would give now:

- the factors, which are small, are compared with copies of what they were;
- the tensor has to be the same object, and either nothing but TensorLy's own code has run since
  (`loops`), or its contents are the same (`fingerprint`), where a read for that is worth it.

What is kept is one run of one tensor a thread; it goes when the tensor does.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...blocks import by_stride
from ...cp.operand import room_for
from ...cp.plan import CPU, plan
from ...cp.schedule import Run
from ...cp.tree import contraction_tree
from .loops import Loop, running_loop
from .operands import Library

__all__ = ["hand_over", "mttkrp", "reused", "switch"]

#: Runs that served one mode only, after which a tensor's MTTKRPs are no longer prepared for.
PATIENCE = 2
#: Length of the rows that `fingerprint` sums: their sum holds the last bit of each.
COLUMNS = 1024
#: Bytes a second at which it reads: on one core 14 to 17 GB/s of float32 in NumPy.
RATE = 1.5e10


class _Memory(threading.local):
    """What this thread remembers."""

    course: Course | None = None
    reused = 0


_memory = _Memory()
_shares = True


def switch(on: bool) -> None:
    """Say whether partial results are shared."""
    global _shares
    _shares = on


def reused() -> int:
    """Count the MTTKRPs of this thread that came from a partial result of one before."""
    return _memory.reused


def mttkrp(owner: Any, x: Tensor, others: Sequence[Tensor], mode: int, by: Library) -> Tensor:
    """Return the MTTKRP of ``x``, which is TensorLy's ``owner``, with the factors but one."""
    if not _shares or x.ndim < 3:
        _memory.course = None
        return by.mttkrp(x, others, mode)
    loop = running_loop(2)
    course, rank = _memory.course, others[0].shape[1]
    # What is interrupted half-way, by Ctrl-C for one, is not gone on with.
    _memory.course = None
    if course is None or not course.is_of(owner, x, rank, loop):
        course = Course(owner, x, rank, loop, by)
    product = course.mttkrp(x, others, mode)
    _memory.course = course
    return product


def hand_over(product: Any) -> Any:
    """Note what the caller gets: as long as that lives, its function has not returned."""
    if _memory.course is not None:
        _memory.course.given = weakref.ref(product)
    return product


class Course:
    """The MTTKRPs of one tensor, in the order in which they are asked for.

    Parameters
    ----------
    owner : object
        TensorLy's tensor; held by a weak reference.
    x : Tensor
        The same as torch sees it.
    rank : int
    loop : Loop or None
        The function of TensorLy that asks, if one does.
    by : Library
        What computes.
    """

    def __init__(self, owner: Any, x: Tensor, rank: int, loop: Loop | None, by: Library) -> None:
        self._owner = weakref.ref(owner, _forgetting(self))
        self._layout = _layout(x)
        self._rank = rank
        self._loop = loop
        self._by = by
        #: The last result, as the caller got it; None once that is gone.
        self.given: Callable[[], Any] = _nothing
        self._seen: list[int] = []
        self._useless = 0
        self._room: Tensor | None = None
        self._drop()

    def is_of(self, owner: Any, x: Tensor, rank: int, loop: Loop | None) -> bool:
        """Whether a call goes on here."""
        return (
            owner is self._owner()
            and _layout(x) == self._layout
            and rank == self._rank
            and loop == self._loop
            # Else that function has returned, and another runs in its place.
            and (loop is None or self.given() is not None)
        )

    def mttkrp(self, x: Tensor, others: Sequence[Tensor], mode: int) -> Tensor:
        """Return the next one."""
        factors = [*others[:mode], others[0], *others[mode:]]
        product = self._continued(x, factors, mode) if self._left else None
        if product is None:
            product = self._begun(x, factors, mode)
        self._seen = [*self._seen[-2 * x.ndim :], mode]
        return product

    def forget(self) -> None:
        """Free all that is kept."""
        self._drop()
        self._room = None

    def _drop(self) -> None:
        """Let go of the partial result."""
        self._left: Run = ()
        self._pending: Iterator[tuple[int, Tensor]] = iter(())
        self._factors: list[Tensor] = []
        self._contents: tuple[Tensor, Tensor] | None = None

    def _continued(self, x: Tensor, factors: list[Tensor], mode: int) -> Tensor | None:
        """Take an MTTKRP from the partial result, or drop that if it is of other operands."""
        last = self._seen[-1]
        same = (
            self._by.equal(now, then)
            for n, (now, then) in enumerate(zip(factors, self._factors, strict=True))
            if n not in (last, mode)
        )
        if mode == self._left[0] and all(same) and self._holds(x):
            self._factors[last] = self._by.copy(factors[last])
            self._useless = 0
            _memory.reused += 1
            return self._next()
        self._useless += 1
        self._drop()
        return None

    def _holds(self, x: Tensor) -> bool:
        """Whether the tensor is what it was."""
        return self._contents is None or all(
            map(self._by.equal, fingerprint(x, self._by), self._contents)
        )

    def _begun(self, x: Tensor, factors: list[Tensor], mode: int) -> Tensor:
        """Contract the tensor, to what serves the modes that are to follow."""
        run = self._run(x, mode)
        if len(run) > 1:
            order = by_stride(x)
            tree = contraction_tree(order, run, x.shape)
            self._contents = fingerprint(x, self._by) if self._loop is None else None
            self._room = room_for(tree, factors, self._room)
            self._factors = [self._by.copy(factor) for factor in factors]
            self._left = run
            ordered = x.permute(order)
            self._pending = tree.contract(ordered, self._factors, self._room, self._by)
            return self._next()
        return self._by.mttkrp(x, [f for n, f in enumerate(factors) if n != mode], mode)

    def _next(self) -> Tensor:
        """Advance by one mode."""
        _, product = next(self._pending)
        self._left = self._left[1:]
        if not self._left:
            self._drop()
        return product

    def _run(self, x: Tensor, mode: int) -> Run:
        """Choose which modes, from this one on, one contraction of the tensor is to serve."""
        cycle = self._cycle(mode, x.ndim)
        order = tuple(by_stride(x))
        known = self._loop is not None
        if self._useless == PATIENCE or not (known or x.permute(order).is_contiguous()):
            return (mode,)
        itemsize = x.element_size()
        check = 0.0 if known else x.numel() * itemsize / RATE
        return plan(tuple(x.shape), self._rank, cycle, itemsize, CPU, order, check).runs[0]

    def _cycle(self, mode: int, ndim: int) -> tuple[int, ...]:
        """Return the modes as they may be expected to follow one another, from this one on."""
        before = self._seen[-ndim:]
        if mode in before:
            cycle = before[len(before) - 1 - before[::-1].index(mode) :]
            return tuple(cycle) if len(set(cycle)) == len(cycle) else (mode,)
        if before == list(range(mode)):
            return tuple((mode + n) % ndim for n in range(ndim)) if mode else (mode,)
        return (mode,)


def _forgetting(course: Course) -> Callable[[Any], None]:
    """Return what frees a course, if that is there still."""
    reference = weakref.ref(course)

    def forget(_: Any) -> None:
        if (course := reference()) is not None:
            course.forget()

    return forget


def _nothing() -> None:
    return None


def _layout(x: Tensor) -> tuple[Any, ...]:
    """Return where a tensor lies and how; and whether what is made of it may be used elsewhere."""
    inference = torch.is_inference_mode_enabled()
    return x.data_ptr(), tuple(x.shape), x.stride(), x.dtype, inference


def fingerprint(x: Tensor, by: Library) -> tuple[Tensor, Tensor]:
    """Return the products with random numbers of all rows of ``x``'s bits, seen as a matrix.

    Bits, as a large value would swallow others in a sum of values. What differs by more than
    rounding has another fingerprint, but for a chance of one in a million. One read of ``x``, which
    is contiguous in some order of its modes.
    """
    flat = x.permute(by_stride(x)).reshape(-1)
    bits = (torch.view_as_real(flat) if flat.is_complex() else flat).view(torch.int32).view(-1)
    rows = len(bits) // COLUMNS
    matrix, rest = bits[: rows * COLUMNS].view(rows, COLUMNS), bits[rows * COLUMNS :]
    return by.in_double(matrix, _random()), by.copy(rest)


@cache
def _random() -> Tensor:
    """Return numbers between 1/2 and 3/2 that nobody knows beforehand."""
    rng = torch.Generator().manual_seed(secrets.randbits(63))
    return torch.rand(COLUMNS, dtype=torch.float64, generator=rng) + 0.5
