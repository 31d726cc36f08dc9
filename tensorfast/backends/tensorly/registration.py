"""Making TensorLy know the backend, and choosing it for everything or for a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import new_class
from typing import Any

from tensorly import tenalg
from tensorly.tenalg.core_tenalg import CoreTenalgBackend

from . import algebra, sharing

__all__ = ["NAME", "active", "register", "set_backend"]

NAME = "tensorfast"


_lock = Lock()


def _make() -> None:
    """Define, once, the class that TensorLy looks up by name; what it lacks is TensorLy's own."""
    with _lock:
        if NAME in tenalg.available_backend_names:
            return
        # Made by a call, as TensorLy has no types.
        options = {"backend_name": NAME}
        made: Any = new_class("TensorfastTenalgBackend", (CoreTenalgBackend,), options)
        for name in algebra.__all__:
            made.register_method(name, getattr(algebra, name))
        tenalg.available_backend_names.append(NAME)


def register(*, share: bool = True) -> None:
    """Let TensorLy know the backend ``"tensorfast"``; ``tensorly.tenalg.set_backend`` selects it.

    Parameters
    ----------
    share : bool
        Whether the MTTKRPs of a sweep share partial results (`tensorfast.backends.tensorly.reused`
        counts them). Results are the same up to rounding. May be said again, for all threads.

    Notes
    -----
    Serves NumPy arrays and torch tensors, on CPU and CUDA, in float32, float64, complex64 and
    complex128; whatever else goes to TensorLy's own functions. So do ``inner``, ``kronecker``,
    ``outer``, ``batched_outer`` and ``_tt_matrix_to_tensor``, which are single products or chains
    of them.

    Examples
    --------
    >>> import tensorly
    >>> register()
    >>> tensorly.tenalg.set_backend("tensorfast")
    >>> tensorly.tenalg.get_backend()
    'tensorfast'
    >>> tensorly.tenalg.set_backend("core")
    """
    _make()
    sharing.switch(share)


def set_backend(*, local_threadsafe: bool = False) -> None:
    """Register the backend, and select it.

    Parameters
    ----------
    local_threadsafe : bool
        Select it for this thread only, as in TensorLy's function of the same name.
    """
    _make()
    tenalg.set_backend(NAME, local_threadsafe=local_threadsafe)


@contextmanager
def active() -> Iterator[None]:
    """Select the backend inside a ``with`` block, in this thread; then restore what was there.

    Examples
    --------
    >>> import tensorly
    >>> with active():
    ...     tensorly.tenalg.get_backend()
    'tensorfast'
    >>> tensorly.tenalg.get_backend()
    'core'
    """
    # TensorLy's own `backend_context` would restore for all threads. A thread that has not chosen
    # has no attribute, and follows the others.
    chosen = tenalg._THREAD_LOCAL_DATA.__dict__
    before = chosen.get("backend")
    set_backend(local_threadsafe=True)
    try:
        yield
    finally:
        if before is None:
            chosen.pop("backend", None)
        else:
            chosen["backend"] = before
