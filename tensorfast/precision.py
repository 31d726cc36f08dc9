"""The whole numerics policy: which type computes, which type solves, and when a number is noise.

Arrays are *stored* in any of ``STORAGE_DTYPES``. Contractions run in ``compute_dtype``; everything
of size R x R, and every scalar of the fit, is in ``solve_dtype`` (double precision).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch

__all__ = [
    "PRECISIONS",
    "STORAGE_DTYPES",
    "common_dtype",
    "compute_dtype",
    "explicit_residual_below",
    "in_precision_of",
    "matmul_precision",
    "pivot_tolerance",
    "precision_floor",
    "safe_scale",
    "solve_dtype",
    "unit_roundoff",
]

PRECISIONS = ("ieee", "tf32", "bf16")
STORAGE_DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type in which an array of ``dtype`` is contracted: half precision is storage only."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def common_dtype(*tensors: torch.Tensor) -> torch.dtype:
    """Type in which several tensors are combined."""
    dtype = compute_dtype(tensors[0].dtype)
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, compute_dtype(tensor.dtype))
    return dtype


def in_precision_of(weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cast weights to the precision of ``dtype``, complex ones to its complex type."""
    return weights.to(dtype.to_complex() if weights.is_complex() else dtype)


def solve_dtype(dtype: torch.dtype) -> torch.dtype:
    """Double precision of the same field, for Grams, solves and the scalars of the fit."""
    return torch.complex128 if dtype.is_complex else torch.float64


def unit_roundoff(dtype: torch.dtype, precision: str = "ieee") -> float:
    """Relative error of one rounding in the type (and tensor-core mode) that computes."""
    if compute_dtype(dtype) == torch.float32 and precision != "ieee":
        return {"tf32": 2.0**-11, "bf16": 2.0**-8}[precision]
    return torch.finfo(compute_dtype(dtype)).eps / 2


@cache
def explicit_residual_below(dtype: torch.dtype) -> float:
    """Relative error e below which ``||X||^2 - 2 <X, M> + ||M||^2`` has lost its digits.

    The formula gives ``e^2`` with an absolute error of a few ``eps`` (measured in float32: 2.4e-7
    on 30 x 40 x 50, 5e-7 on 20^4); at ``e = 20 sqrt(eps)`` each is an eighth of a percent of e.
    """
    return 20.0 * torch.finfo(compute_dtype(dtype)).eps ** 0.5


@cache
def precision_floor(dtype: torch.dtype) -> float:
    """Relative error that factors rounded to ``dtype`` cannot be expected to go below."""
    return 8.0 * torch.finfo(compute_dtype(dtype)).eps


@cache
def pivot_tolerance(dtype: torch.dtype, rank: int) -> float:
    """Smallest relative Cholesky pivot that is taken as a direction and not as rounding.

    A pivot relative to its diagonal is the squared sine of the angle between a Khatri-Rao column
    and the ones before it. A solve along that direction multiplies the rounding of the MTTKRP, near
    ``eps``, by ``1 / pivot``: below ``eps`` the solution there is noise. (Exact rank 1 fitted at
    rank 3 in float32 from a random start ended at an error of 6e-4 with pivots allowed down to
    5e-10.)
    """
    return 4.0 * rank * torch.finfo(dtype).eps


def safe_scale(x: torch.Tensor, squared_norm: float) -> float:
    """Power of two to divide ``x`` by so that products of its entries do not over- or underflow.

    1 unless the norm is extreme for the computing type: float32 entries near 1e-20 (physical units)
    have squares that are zero.
    """
    reach = {torch.float32: 1e8, torch.complex64: 1e8}.get(compute_dtype(x.dtype), 1e60)
    if reach**-2 < squared_norm < reach**2:
        return 1.0
    largest = float(x.abs().max())
    return 2.0 ** (math.frexp(largest)[1] - 1) if 0 < largest < math.inf else 1.0


class _MatmulSetting:
    """One of torch's process-wide precision settings, held while blocks that need it overlap.

    The first block to enter notes what was set and the last to leave puts it back; in between the
    most precise of what the open blocks want is in force.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._before = ""
        self._wanted: list[str] = []

    @contextmanager
    def hold(self, precision: str) -> Iterator[None]:
        with self._lock:
            if not self._wanted:
                self._before = self._backend.fp32_precision
            self._wanted.append(precision)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(precision)
                self._apply()

    def is_full(self) -> bool:
        """Whether products are in full float32 without any block that holds them to it."""
        with self._lock:
            return not self._wanted and self._backend.fp32_precision in ("ieee", "none")

    def _apply(self) -> None:
        target = min(self._wanted, key=PRECISIONS.index) if self._wanted else self._before
        # "none" is torch's word for "not set": full float32.
        if self._backend.fp32_precision != target and (
            target != "ieee" or self._backend.fp32_precision != "none"
        ):
            self._backend.fp32_precision = target


_SETTINGS = {
    "cuda": _MatmulSetting(torch.backends.cuda.matmul),
    "cpu": _MatmulSetting(torch.backends.mkldnn.matmul),  # type: ignore[attr-defined]
}


def matmul_precision(precision: str | None, device: torch.device) -> AbstractContextManager[Any]:
    """Hold torch's own matrix products to ``precision`` inside the block.

    Where torch is already set so, which is its default, nothing is changed; ``None`` follows
    torch's setting. A CPU has no single-pass mode worth having: every explicit choice computes in
    ``"ieee"`` there. cuBLAS has no single-pass bf16 for float32 operands: TF32 is the nearest.
    ``torch.autocast`` is off inside. In a graph that is compiled nothing is set but that: the
    setting is the process's and not the graph's.
    """
    setting = _SETTINGS.get(device.type)
    if precision is None or setting is None or torch.compiler.is_compiling():
        return _without_autocast(device.type)
    if device.type == "cuda":
        return _held(setting, "tf32" if precision == "bf16" else precision, device)
    # Every block on a CPU wants this, so that none takes it away: it need not be held. Holding it
    # took a quarter of a small loss and its gradient.
    return _without_autocast("cpu") if setting.is_full() else _held(setting, "ieee", device)


@contextmanager
def _held(setting: _MatmulSetting, precision: str, device: torch.device) -> Iterator[None]:
    with _without_autocast(device.type), setting.hold(precision):
        yield


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Switch torch.autocast off, which would compute in half precision and return it."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
