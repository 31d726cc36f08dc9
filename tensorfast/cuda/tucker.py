"""Tucker decompositions of many small tensors at once, each by one thread block: the launchers."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..convergence import StoppingRule
from ..kernels.devices import chip_of
from ..precision import explicit_residual_below, precision_floor
from . import launcher
from .cp_als import STATUSES
from .tucker_plan import plan, reasons

__all__ = ["STATUSES", "Iterations", "Truncations", "hooi_small", "sthosvd_small"]


@dataclass(frozen=True)
class Truncations:
    """What `sthosvd_small` leaves in the memory of the GPU. Nothing has waited for it.

    Attributes
    ----------
    core : Tensor, [B, R_0, ..., R_{N-1}]
    factors : list of Tensor, [B, I_n, R_n]
        With orthonormal columns; the identity at full rank. Their signs are as the rotations left
        them.
    errors : Tensor, [B]
        float64: relative errors; NaN where data are not finite, and then core and factors are, too.
    unresolved : Tensor, [B]
        int32, for float64 data: a bit for each mode that keeps a singular value below 1e-6 of its
        largest, of which a Gram matrix has lost digits.
    status : Tensor, [B]
        int32: places in `STATUSES`, ``"converged"`` or ``"not_finite"``.
    """

    core: Tensor
    factors: list[Tensor]
    errors: Tensor
    unresolved: Tensor
    status: Tensor


def sthosvd_small(
    x: Tensor,
    rank: Sequence[int],
    *,
    mode_order: Sequence[int] | None = None,
    launch: Callable[..., None] = launcher.launch,
) -> Truncations:
    """Decompose each of a batch of small tensors by a sequentially truncated higher-order SVD.

    The subspaces and errors of `tensorfast.sthosvd` with ranks, up to rounding. One launch, on the
    current stream; the host waits for nothing.

    Parameters
    ----------
    x : Tensor, [B, I_0, ..., I_{N-1}], N = 2 to 5
        float32 or float64, on a GPU, with norms whose squares are in range. Copied where it is not
        in C order.
    rank : sequence of int
        One a mode, from 1 to its length.
    mode_order : sequence of int, optional
        All modes in the order in which they are processed; the one that shrinks most first if not
        given.
    launch : callable
        What puts a kernel on a device, with the arguments of `tensorfast.cuda.launcher.launch`.

    Returns
    -------
    Truncations

    Raises
    ------
    ValueError
        If the kernel cannot serve, with every reason: `tensorfast.cuda.tucker_plan.reasons`.
    """
    op, kernel = "sthosvd_small", "sthosvd_small"
    shape, rank, dtype = _served(op, kernel, x, rank, mode_order, launch)
    chosen = plan(shape, rank, dtype, mode_order, kernel)
    flat, factors = _factors(x, shape, rank)
    nothing = torch.nan
    done = Truncations(
        x.new_full((len(x), *rank), nothing),
        factors,
        torch.full((len(x),), nothing, dtype=torch.float64, device=x.device),
        torch.zeros(len(x), dtype=torch.int32, device=x.device),
        torch.zeros(len(x), dtype=torch.int32, device=x.device),
    )
    x = x.contiguous()
    arrays = (x, flat, done.core, done.errors, done.unresolved, done.status)
    arguments: list[Any] = [a.data_ptr() for a in arrays]
    arguments += _sizes(shape, rank)
    arguments += [ctypes.c_uint(chosen.packed), ctypes.c_int(len(chosen.order))]
    limits = precision_floor(x.dtype), explicit_residual_below(x.dtype)
    arguments += map(ctypes.c_double, limits)
    if len(x):
        launch(chosen.unit, x.device, len(x), 1, chosen.threads, chosen.shared, arguments)
    return done


@dataclass(frozen=True)
class Iterations:
    """What `hooi_small` leaves in the memory of the GPU. Nothing has waited for it.

    Attributes
    ----------
    core : Tensor, [B, R_0, ..., R_{N-1}]
    factors : list of Tensor, [B, I_n, R_n]
        With orthonormal columns; the identity at full rank, whatever the start.
    errors : Tensor, [B, n_iter_max]
        float64: the relative error after each sweep; NaN after the last, and where data are not
        finite.
    sweeps : Tensor, [B]
        int32.
    status : Tensor, [B]
        int32: places in `STATUSES`. ``"max_iter"`` also where the last error is at the limit of the
        precision.
    """

    core: Tensor
    factors: list[Tensor]
    errors: Tensor
    sweeps: Tensor
    status: Tensor


def hooi_small(
    x: Tensor,
    rank: Sequence[int],
    *,
    start: Sequence[Tensor] | None = None,
    n_iter_max: int = 50,
    tol: float = 1e-6,
    launch: Callable[..., None] = launcher.launch,
) -> Iterations:
    """Improve Tucker models of a batch of small tensors by higher-order orthogonal iteration.

    The subspaces, errors and decisions of `tensorfast.hooi`, up to rounding, where its updates are
    exact: of modes no longer than three times their rank, and of others as good as. One launch, or
    two, on the current stream; the host waits for nothing.

    Parameters
    ----------
    x : Tensor, [B, I_0, ..., I_{N-1}], N = 2 to 5
        float32 or float64, on a GPU, with norms whose squares are in range. Copied where it is not
        in C order.
    rank : sequence of int
        One a mode, from 1 to its length, and not all of them that.
    start : sequence of Tensor, [B, I_n, R_n], optional
        With orthonormal columns, of the type of ``x``; not modified. Those of `sthosvd_small` if
        not given.
    n_iter_max, tol
        As of `tensorfast.hooi`.
    launch : callable
        What puts a kernel on a device, with the arguments of `tensorfast.cuda.launcher.launch`.

    Returns
    -------
    Iterations

    Raises
    ------
    ValueError
        If the kernel cannot serve, with every reason: `tensorfast.cuda.tucker_plan.reasons`.
    """
    op, kernel = "hooi_small", "hooi_small"
    shape, rank, dtype = _served(op, kernel, x, rank, None, launch)
    if n_iter_max < 1:
        raise ValueError(f"{op}: n_iter_max is {n_iter_max}; expected at least one sweep")
    chosen = plan(shape, rank, dtype, kernel=kernel)
    x = x.contiguous()
    flat, factors = _factors(x, shape, rank)
    if start is None:
        for factor, given in zip(
            factors, sthosvd_small(x, rank, launch=launch).factors, strict=True
        ):
            factor.copy_(given)
    else:
        _check_start(op, x, start, factors)
        for n, (factor, given) in enumerate(zip(factors, start, strict=True)):
            eye = torch.eye(shape[n], dtype=x.dtype, device=x.device)
            factor.copy_(given if n in chosen.order else eye)
    doubles = torch.full((len(x), n_iter_max), torch.nan, dtype=torch.float64, device=x.device)
    done = Iterations(
        x.new_full((len(x), *rank), torch.nan),
        factors,
        doubles,
        torch.zeros(len(x), dtype=torch.int32, device=x.device),
        torch.zeros(len(x), dtype=torch.int32, device=x.device),
    )
    arrays = (x, flat, done.core, done.errors, done.sweeps, done.status)
    arguments: list[Any] = [a.data_ptr() for a in arrays]
    arguments += _sizes(shape, rank)
    arguments += [ctypes.c_uint(chosen.packed), ctypes.c_int(len(chosen.order))]
    arguments.append(ctypes.c_int(n_iter_max))
    jitter = StoppingRule.JITTER * torch.finfo(x.dtype).eps
    limits = tol, jitter, precision_floor(x.dtype), explicit_residual_below(x.dtype)
    arguments += map(ctypes.c_double, limits)
    if len(x):
        launch(chosen.unit, x.device, len(x), 1, chosen.threads, chosen.shared, arguments)
    return done


def _check_start(op: str, x: Tensor, start: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    shapes = [tuple(f.shape) for f in expected]
    found = [tuple(f.shape) for f in start]
    if found != shapes or any(f.dtype != x.dtype or f.device != x.device for f in start):
        raise ValueError(
            f"{op}: start has shapes {found} and types {[str(f.dtype) for f in start]}; expected "
            f"{shapes} and {x.dtype}, on {x.device}"
        )


def _served(
    op: str,
    kernel: str,
    x: Tensor,
    rank: Sequence[int],
    mode_order: Sequence[int] | None,
    launch: Callable[..., None],
) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Return shape, ranks and type of what a kernel can do, or say why it cannot."""
    shape, rank = tuple(x.shape[1:]), tuple(rank)
    dtype = str(x.dtype).removeprefix("torch.")
    if mode_order is not None and sorted(mode_order) != list(range(len(shape))):
        raise ValueError(
            f"{op}: mode_order is {tuple(mode_order)}; expected all {len(shape)} modes"
        )
    against = reasons(shape, rank, dtype, x.device.type, chip_of(x.device), mode_order, kernel)
    if launch is not launcher.launch:
        against = [reason for reason in against if "rank" in reason]
    if against:
        raise ValueError(f"{op}: {'; '.join(against)}")
    return shape, rank, dtype


def _factors(x: Tensor, shape: Sequence[int], rank: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Return room for the factors as the kernels write them, and each of them in it."""
    sizes = [math.prod(s) for s in zip(shape, rank, strict=True)]
    flat = x.new_full((len(x), sum(sizes)), torch.nan)
    parts = zip(flat.split(sizes, 1), shape, rank, strict=True)
    return flat, [part.unflatten(1, (s, r)) for part, s, r in parts]


def _sizes(shape: tuple[int, ...], rank: tuple[int, ...]) -> list[Any]:
    padding = (1, 1, 1)
    return [ctypes.c_int(n) for n in (len(shape), *(shape + padding)[:5], *(rank + padding)[:5])]
