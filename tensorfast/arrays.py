"""NumPy, CuPy, JAX and torch in and out: arrays come in, results leave as the same kind.

`as_tensor` brings an array in, `in_kind` takes a result out.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

__all__ = ["as_tensor", "as_tensors", "count", "in_kind"]

_NUMERIC_KINDS = "biufc"


class _WritableView:
    """Presents read-only NumPy memory to torch, which warns about it though it never writes."""

    def __init__(self, array: np.ndarray) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._owner = array


def _module_root(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _from_numpy(op: str, name: str, array: np.ndarray) -> torch.Tensor:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{op}: {name} is a masked array; expected a plain one; fill the masked entries first"
        )
    if array.dtype.kind not in _NUMERIC_KINDS or array.dtype.itemsize > 16:
        raise TypeError(
            f"{op}: {name} has dtype {array.dtype}; expected a numeric array (integers, bool, "
            "float16 to float64, complex64 or complex128)"
        )
    if array.dtype in (np.longdouble, np.clongdouble) and array.dtype.itemsize > 8:
        raise TypeError(f"{op}: {name} has dtype {array.dtype}; expected at most double precision")
    if array.dtype.kind in "biu":
        return torch.from_numpy(array.astype(np.float64)).to(torch.get_default_dtype())
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # torch has no negative strides, and none that fall between elements: such views are copied.
    if any(s < 0 or s % array.itemsize for s in array.strides):
        array = array.copy()
    if not array.flags.writeable:
        array = np.asarray(_WritableView(array))
    return torch.from_numpy(array)


def as_tensor(op: str, name: str, value: Any) -> torch.Tensor:
    """Return ``value`` as a dense floating-point tensor, sharing memory where that is possible.

    Integers, bool and lists become the default float type.

    Raises
    ------
    TypeError
        For anything that is not a dense numeric array.
    """
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise TypeError(
                f"{op}: {name} has layout {value.layout}; expected a dense tensor; use .to_dense()"
            )
        if not (value.is_floating_point() or value.is_complex()):
            return value.to(torch.get_default_dtype())
        # Compiled graphs call custom ops where lazy conjugation is no longer looked at.
        return value.resolve_conj().resolve_neg()
    if isinstance(value, np.ndarray):
        return _from_numpy(op, name, value)
    if isinstance(value, str | bytes) or value is None:
        raise TypeError(f"{op}: {name} is {type(value).__name__}; expected an array")
    if hasattr(value, "__dlpack__") and _module_root(value) != "numpy":
        tensor = torch.from_dlpack(value)
        return as_tensor(op, name, tensor)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{op}: {name} is not a rectangular array: {error}") from error
    if array.dtype.kind == "f" and isinstance(value, list | tuple | float | int):
        return _from_numpy(op, name, array).to(torch.get_default_dtype())
    return _from_numpy(op, name, array)


def count(op: str, name: str, values: Any) -> int:
    """Return how many arrays a sequence holds, or say that it is none."""
    one_array = isinstance(values, str | torch.Tensor) or hasattr(values, "__array__")
    if one_array or not hasattr(values, "__len__"):
        raise TypeError(f"{op}: {name} is {type(values).__name__}; expected a sequence of arrays")
    return len(values)


def as_tensors(op: str, name: str, values: Any, skip: int | None = None) -> list[torch.Tensor]:
    """Bring in a sequence of arrays, each named by its position; ``skip`` gives a placeholder."""
    count(op, name, values)
    return [
        torch.empty(0) if n == skip else as_tensor(op, f"{name}[{n}]", value)
        for n, value in enumerate(values)
    ]


def in_kind(result: torch.Tensor, like: Any) -> Any:
    """Return ``result`` as the kind of array that ``like`` is, on the same device.

    Lists and numbers are answered with torch tensors; so is a request to torch.
    """
    if isinstance(like, torch.Tensor):
        return result
    root = _module_root(like)
    if root == "cupy":
        return sys.modules["cupy"].from_dlpack(result.detach())
    if root in ("jax", "jaxlib"):
        import jax.numpy as jnp

        return jnp.from_dlpack(result.detach().contiguous())
    if isinstance(like, np.ndarray | np.generic) or hasattr(like, "__array__"):
        array = result.detach().resolve_conj().numpy()
        if (
            isinstance(like, np.ndarray)
            and not like.flags.writeable
            and np.may_share_memory(array, like)
        ):
            array.flags.writeable = False
        return array
    return result
