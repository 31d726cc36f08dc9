"""Operands, the ways they can lie in memory, and their exact values."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tensorfast.precision import solve_dtype


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=solve_dtype(dtype)).to(dtype)


def implementations(dtype: torch.dtype) -> tuple[str, ...]:
    """Name what to test in a type; the reference is the same formula in each."""
    everywhere = ("torch",)
    return (*everywhere, "reference") if dtype in (torch.float16, torch.complex64) else everywhere


def wide(array: Any) -> Tensor:
    """Copy the very same numbers to double precision and C order."""
    if not isinstance(array, Tensor):
        array = torch.tensor(native(array))
    return array.detach().to(solve_dtype(array.dtype), copy=True).contiguous()


def native(array: Any) -> np.ndarray:
    """Copy an array that is not torch's to NumPy, in C order and the machine's byte order."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), order="C")


def permuted(x: Tensor) -> Tensor:
    """Fortran order."""
    backwards = tuple(reversed(range(x.ndim)))
    return x.permute(backwards).contiguous().permute(backwards)


def rotated(x: Tensor) -> Tensor:
    """Put the first mode fastest, the others in C order."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def sliced(x: Tensor) -> Tensor:
    """Every second entry of every mode of a tensor whose other entries are NaN."""
    every_second = (slice(1, None, 2),) * x.ndim
    whole = torch.full([2 * n + 1 for n in x.shape], torch.nan, dtype=x.dtype)
    whole[every_second] = x
    return whole[every_second]


def expanded(x: Tensor) -> Tensor:
    """Stride 0 along the first mode; the values there are those of its first entry."""
    return x[:1].contiguous().expand(x.shape)


def negative(x: Tensor) -> np.ndarray:
    backwards = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x.numpy()[backwards])[backwards]


def read_only(x: Tensor) -> np.ndarray:
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


def big_endian(x: Tensor) -> np.ndarray:
    array = x.numpy()
    return array.astype(array.dtype.newbyteorder(">"))


def between_elements(x: Tensor) -> np.ndarray:
    """Take a field of records, so that the strides are no multiple of an element."""
    array = x.numpy()
    records = np.zeros(array.shape, dtype=[("flag", "u1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def jax_array(x: Tensor) -> Any:
    return pytest.importorskip("jax.numpy").asarray(x.numpy())
