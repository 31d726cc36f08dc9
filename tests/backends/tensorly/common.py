"""TensorLy's core as the oracle: which arrays it computes with, and how a result is held to it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

tl = pytest.importorskip("tensorly")

from tensorly.cp_tensor import CPTensor  # noqa: E402

import tensorfast.backends.tensorly as backend  # noqa: E402

LIBRARIES = ("numpy", "pytorch")
FUNCTIONS = (
    "mode_dot",
    "multi_mode_dot",
    "kronecker",
    "khatri_rao",
    "inner",
    "outer",
    "batched_outer",
    "higher_order_moment",
    "_tt_matrix_to_tensor",
    "unfolding_dot_khatri_rao",
    "tensordot",
)
REFUSALS = (ValueError, TypeError, IndexError)


def core(name: str) -> Callable[..., Any]:
    """TensorLy's own function of that name."""
    return getattr(tl.tenalg.core_tenalg, name.removeprefix("_"))


@contextmanager
def chosen(manager: Any, choose: Callable[[], None]) -> Iterator[None]:
    """Make a choice of one of TensorLy's managers, and put back what was there in this thread."""
    local = manager._THREAD_LOCAL_DATA.__dict__
    before = dict(local)
    choose()
    try:
        yield
    finally:
        local.clear()
        local.update(before)


def arrays_of(library: str) -> Any:
    """In this thread TensorLy computes with the arrays of a library, and then as before."""
    return chosen(tl.backend, lambda: tl.set_backend(library, local_threadsafe=True))


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Change every array of an argument, however deep it is."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return change(value)
    if isinstance(value, CPTensor):
        return (mapped(change, value.weights), mapped(change, value.factors))
    if isinstance(value, list | tuple):
        return type(value)(mapped(change, item) for item in value)
    return value


def found(value: Any) -> list[Any]:
    """Every array of an argument."""
    arrays: list[Any] = []
    mapped(arrays.append, value)
    return arrays


def wide(array: Any) -> Any:
    """Copy the same numbers in double precision, as an array of the same library."""
    if isinstance(array, torch.Tensor):
        return array.detach().to(torch.complex128 if array.is_complex() else torch.float64)
    return np.asarray(array).astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def magnitude(array: Any) -> Any:
    return abs(wide(array))


def plain(array: Any) -> torch.Tensor:
    """Return the numbers in torch, whichever library they came from."""
    if isinstance(array, torch.Tensor):
        return array.detach().resolve_conj().resolve_neg()
    array = np.asarray(array)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a function returns or raises."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return error


def in_threads(work: Callable[[int], None], count: int, library: str) -> None:
    """Work in several threads that begin together, each with the backend; raise what they raise."""
    start = threading.Barrier(count)

    def one(number: int) -> None:
        with arrays_of(library), backend.active():
            start.wait(timeout=60)
            work(number)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(one, number) for number in range(count)]:
            done.result()
