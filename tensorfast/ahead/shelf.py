"""Recorded fits that are kept for the next call on the same data."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from .recording import Replay

__all__ = ["Kept", "Shelf", "forget"]

State = TypeVar("State")

#: All there are.
_SHELVES: list[Shelf[Any]] = []


@dataclass(frozen=True)
class Kept(Generic[State]):
    """Recorded sweeps, and the memory they work on.

    Attributes
    ----------
    state : object
        What the sweeps change, with all the tensors that were there when they were recorded.
    recorded : tuple of Replay
        The sweeps of a cycle.
    nbytes : int
        What keeping it costs.
    left : torch.cuda.Event or None
        Behind the last use of the state.
    """

    state: State
    recorded: tuple[Replay, ...]
    nbytes: int
    left: torch.cuda.Event | None = None

    @classmethod
    def now(cls, state: State, recorded: Sequence[Replay], nbytes: int) -> Kept[State]:
        """Keep what is used no more than by what the current stream has been given."""
        left = None
        if torch.cuda.is_initialized():
            left = torch.cuda.Event()
            left.record()
        return cls(state, tuple(recorded), nbytes, left)


class Shelf(Generic[State]):
    """Recorded fits by what they were recorded for, the least recently used given up first.

    A recording reads the data where they lay. So the key has their address, and all else that the
    launches depend on; that the tensor is the same one is not needed. Who takes a fit is alone with
    it until it is put back. Any thread may do either.

    Parameters
    ----------
    most : int
        Fits at once.
    nbytes : int
        Bytes of all of them; a fit that takes more than a fourth is not kept.
    """

    def __init__(self, most: int, nbytes: int) -> None:
        self._most, self._nbytes = most, nbytes
        self._kept: OrderedDict[Hashable, Kept[State]] = OrderedDict()
        self._lock = threading.Lock()
        _SHELVES.append(self)

    def __len__(self) -> int:
        return len(self._kept)

    def holds(self, nbytes: int) -> bool:
        """Whether a fit of this size would be kept."""
        return self._most > 0 and 4 * nbytes <= self._nbytes

    def take(self, key: Hashable) -> Kept[State] | None:
        """Return what was recorded for ``key``, ready for the current stream, or None."""
        with self._lock:
            found = self._kept.pop(key, None)
        if found is not None and found.left is not None:
            torch.cuda.current_stream().wait_event(found.left)
        return found

    def put(self, key: Hashable, kept: Kept[State]) -> None:
        """Keep a fit, unless it is too large."""
        if not self.holds(kept.nbytes):
            return
        with self._lock:
            given_up = [self._kept.pop(key, None)]
            self._kept[key] = kept
            while len(self._kept) > self._most or self._total() > self._nbytes:
                given_up.append(self._kept.popitem(last=False)[1])
        _free(given_up)

    def clear(self) -> None:
        """Give up all fits, and the memory that they hold."""
        with self._lock:
            given_up = list(self._kept.values())
            self._kept.clear()
        _free(given_up)

    def _total(self) -> int:
        return sum(kept.nbytes for kept in self._kept.values())


def forget() -> None:
    """Give up all recorded fits; the memory that they hold goes back to torch's allocator."""
    for shelf in _SHELVES:
        shelf.clear()


def _free(given_up: list[Kept[State] | None] | list[Kept[State]]) -> None:
    """Wait until nothing uses what is given up: memory goes back to the stream it came from."""
    for kept in given_up:
        if kept is not None and kept.left is not None:
            kept.left.synchronize()
