"""Arrays for one call, drawn by Hypothesis: of any size, laid out in memory in every way."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from .common import LIBRARIES


class Operands:
    """Draws the arguments of one call."""

    def __init__(self, draw: Callable[..., Any], types: Sequence[str]) -> None:
        self.draw = draw
        self.library = self.pick(LIBRARIES)
        self.types = types
        self.random = np.random.default_rng(self.integer(0, 2**32 - 1))
        # Once in a while sizes may be 0, and once in a while something does not fit.
        self.smallest = self.pick((1,) * 9 + (0,))
        self.bad = self.pick((False,) * 5 + (True,))
        self.made: list[Any] = []

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, choices: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(choices))

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def order(self, n: Sequence[Any]) -> list[Any]:
        return self.draw(st.permutations(list(n)))

    def sizes(self, least: int, most: int, largest: int = 6) -> list[int]:
        size = st.integers(self.smallest, largest)
        return self.draw(st.lists(size, min_size=least, max_size=most))

    def array(self, *shape: int) -> Any:
        """Lay out random numbers somehow, or take the very array of another argument."""
        if self.bad and self.flag():
            shape = self.spoilt(list(shape))
        for other in self.made:
            if tuple(other.shape) == shape and self.integer(0, 3) == 3:
                return other
        self.made.append(laid_out(self, values(self, shape, self.pick(self.types))))
        return self.made[-1]

    def spoilt(self, shape: list[int]) -> tuple[int, ...]:
        where = self.integer(0, len(shape))
        if where == len(shape) or self.flag():
            shape.insert(where, self.pick((1, 2)))
        elif self.flag():
            del shape[where]
        else:
            shape[where] += 1
        return tuple(shape)


def values(o: Operands, shape: Sequence[int], dtype: str) -> np.ndarray:
    kind = np.dtype(dtype).kind
    if kind in "iu":
        return o.random.integers(0, 5, shape).astype(dtype)
    real = o.random.standard_normal(shape)
    number = real + 1j * o.random.standard_normal(shape) if kind == "c" else real
    return np.asarray(number, dtype)


def laid_out(o: Operands, array: np.ndarray) -> Any:
    layouts = NUMPY_LAYOUTS if o.library == "numpy" else TORCH_LAYOUTS
    return o.pick(layouts if array.ndim else layouts[:1])(array)


def fortran(array: np.ndarray) -> np.ndarray:
    return np.asfortranarray(array)


def negative(array: np.ndarray) -> np.ndarray:
    backwards = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[backwards])[backwards]


def sliced(array: np.ndarray) -> np.ndarray:
    whole = np.full([2 * n + 1 for n in array.shape], 77, array.dtype)
    whole[(slice(1, None, 2),) * array.ndim] = array
    return whole[(slice(1, None, 2),) * array.ndim]


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def between_elements(array: np.ndarray) -> np.ndarray:
    """Take a field of records: its strides are no multiple of an element."""
    records = np.zeros(array.shape, dtype=[("flag", "u1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def rotated(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 0, -1)), -1, 0)


def expanded(array: np.ndarray) -> torch.Tensor:
    """Stride 0 along the first mode; the values there are those of its first entry."""
    return torch.from_numpy(array)[:1].expand(array.shape)


def conjugated(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.conj()).conj()


def negated(array: np.ndarray) -> torch.Tensor:
    """Let torch remember that what lies in memory is the negative."""
    tensor = torch.from_numpy(array)
    return torch._neg_view(-tensor) if array.dtype.kind in "fc" else tensor


NUMPY_LAYOUTS = (
    np.asarray,
    fortran,
    negative,
    sliced,
    rotated,
    read_only,
    between_elements,
)
TORCH_LAYOUTS = (
    torch.from_numpy,
    lambda array: torch.from_numpy(fortran(array)),
    lambda array: torch.from_numpy(sliced(array)),
    lambda array: torch.from_numpy(rotated(array)),
    expanded,
    conjugated,
    negated,
)
