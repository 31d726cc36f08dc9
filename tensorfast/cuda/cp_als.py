"""CP-ALS of many small tensors at once, each by one thread block or a cluster of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..convergence import StoppingRule
from ..kernels.devices import chip_of
from ..precision import explicit_residual_below, pivot_tolerance, precision_floor
from . import launcher
from .cp_plan import blocks_of, plan, reasons

__all__ = ["STATUSES", "Fits", "cp_als_small"]

#: What the codes of `Fits.status` mean.
STATUSES = ("", "converged", "precision_limit", "stopped", "max_iter", "not_finite")


@dataclass(frozen=True)
class Fits:
    """What `cp_als_small` leaves in the memory of the GPU. Nothing has waited for it.

    Attributes
    ----------
    factors : list of Tensor, [B, I_n, R]
        Columns as the last update left them, without weights.
    errors : Tensor, [B, n_iter_max]
        float64: the relative error after each sweep; NaN after the last, and where a fit was lost.
    sweeps : Tensor, [B]
        int32.
    status : Tensor, [B]
        int32: places in `STATUSES`. ``"max_iter"`` also where the last error is at the limit of the
        precision; ``"not_finite"`` where normal equations held what is no number.
    ridge : Tensor, [B]
        float64: largest relative ridge that was needed.
    components : Tensor, [B, 4, R, R]
        float64: inner products of the components, for a `DivergenceWatch`: after the last three of
        sweeps 16, 32, 64, ... (that of sweep ``2**k`` in place ``k % 3``, NaN where there was none)
        and at the end.
    """

    factors: list[Tensor]
    errors: Tensor
    sweeps: Tensor
    status: Tensor
    ridge: Tensor
    components: Tensor


def cp_als_small(
    x: Tensor,
    start: Sequence[Tensor],
    *,
    n_iter_max: int = 100,
    tol: float = 1e-6,
    l2_reg: float = 0.0,
    free: Sequence[int] | None = None,
    blocks: int | None = None,
    launch: Callable[..., None] = launcher.launch,
) -> Fits:
    """Fit each of a batch of small tensors by alternating least squares from a given start.

    The iterates, errors and decisions of `tensorfast.cp_als`, up to rounding. One launch, on the
    current stream; the host waits for nothing.

    Parameters
    ----------
    x : Tensor, [B, I_0, ..., I_{N-1}], N = 2 to 5
        float32 or float64, on a GPU; finite, with norms whose squares are in range. Copied where it
        is not in C order.
    start : sequence of Tensor, [B, I_n, R]
        R up to 32. Of the type of ``x``; not modified.
    n_iter_max, tol, l2_reg
        As of `tensorfast.cp_als`.
    free : sequence of int, optional
        Modes that are updated; the others keep their start. All of them if not given.
    blocks : int, optional
        Of a tensor: a cluster if more than one. As few as hold it if not given.
    launch : callable
        What puts a kernel on a device, with the arguments of `tensorfast.cuda.launcher.launch`.

    Returns
    -------
    Fits

    Raises
    ------
    ValueError
        If the kernel cannot serve, with every reason: `tensorfast.cuda.cp_plan.reasons`.
    """
    shape, rank = tuple(x.shape[1:]), start[0].shape[-1]
    expected = [(len(x), size, rank) for size in shape]
    found = [tuple(f.shape) for f in start]
    if found != expected or any(f.dtype != x.dtype or f.device != x.device for f in start):
        raise ValueError(
            f"cp_als_small: start has shapes {found} and types {[str(f.dtype) for f in start]}; "
            f"expected {expected} and {x.dtype}, on {x.device}"
        )
    dtype = str(x.dtype).removeprefix("torch.")
    if launch is launcher.launch:
        against = reasons(shape, rank, dtype, x.device.type, chip_of(x.device))
        if against:
            raise ValueError(f"cp_als_small: {'; '.join(against)}")
    modes = range(len(shape)) if free is None else free
    if n_iter_max < 1 or not modes:
        raise ValueError(
            f"cp_als_small: n_iter_max is {n_iter_max}, free is {free}; expected at least one "
            "sweep, and one mode"
        )
    chosen = plan(shape, rank, dtype, blocks or blocks_of(shape, rank, dtype, chip_of(x.device)))
    factors = torch.cat(list(start), 1)

    def doubles(*sizes: int) -> Tensor:
        return torch.full((len(x), *sizes), torch.nan, dtype=torch.float64, device=x.device)

    def integers() -> Tensor:
        return torch.zeros(len(x), dtype=torch.int32, device=x.device)

    fits = Fits(
        list(factors.split(list(shape), 1)),
        doubles(n_iter_max),
        integers(),
        integers(),
        doubles(),
        doubles(4, rank, rank),
    )
    x = x.contiguous()
    arrays = (x, factors, fits.errors, fits.sweeps, fits.status, fits.ridge, fits.components)
    sizes = (*shape, 1, 1, 1)[:5]
    jitter = StoppingRule.JITTER * torch.finfo(x.dtype).eps
    below, floor = explicit_residual_below(x.dtype), precision_floor(x.dtype)
    limits = (tol, jitter, floor, below, pivot_tolerance(x.dtype, rank), l2_reg)
    arguments: list[Any] = [a.data_ptr() for a in arrays]
    arguments += map(ctypes.c_int, (len(shape), *sizes, rank, chosen.split, chosen.blocks))
    arguments += [ctypes.c_uint(sum(1 << n for n in set(modes))), ctypes.c_int(n_iter_max)]
    arguments += map(ctypes.c_double, limits)
    if len(x):
        of_each = chosen.blocks, chosen.threads, chosen.shared
        launch(chosen.unit, x.device, len(x), *of_each, arguments)
    return fits
