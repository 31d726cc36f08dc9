"""CP decompositions of a batch of tensors of one shape: many small fits for the calls of one.

The tensors are worked on in chunks that stay in cache, each from its first sweep to its last. What
a sweep takes of 1000 tensors 16 x 16 x 16 at R 8, float32, in runs ``(0, 1) (2,)``, with the
milliseconds of one core:

- two contractions of the tensors, 66 MFLOP and 16 MB each: 2.2 and 1.6;
- two contractions of the partial result ``[B, R, 16, 16]``, 4 MFLOP and 8 MB each: 0.5 and 0.9;
- a Khatri-Rao product, 8 MB: 0.7;
- three updates in float64: Gram matrices 3 x 0.2, Cholesky factors 3 x 0.2, their inverses 3 x 0.6,
  products with these 3 x 0.2;
- errors, rules, and calls: 0.3.

In all 8 to 12 on a machine with others on it. A loop over TensorLy, in turns with it on one core,
took 22 to 28 times as long on torch and 12 times on NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import arrays
from ...batch import Stack, named_index, run_chunks, scales_of
from ...blocks import SLAB, grain
from ...progress import progress_bar
from ...results import BatchInfo, ConvergenceInfo
from ..scaling import restored, scaled_l2, unit_columns
from ..update import not_finite
from . import thread_blocks
from .als import BatchALS
from .init import initial_rows
from .operand import BatchOperand

__all__ = ["Callback", "fit_batch"]

#: ``callback(sweep, errors, factors) -> bool``.
Callback = Callable[[int, Any, list[Any]], bool]


def fit_batch(
    op: str,
    x: Tensor,
    dims: int,
    rank: int,
    *,
    init: Any,
    seed: int | torch.Generator | None,
    n_iter_max: int,
    tol: float,
    l2_reg: float,
    normalize: bool,
    free: Sequence[int],
    callback: Callback | None,
    progress: bool,
    check_finite: bool,
    like: Any,
) -> tuple[Tensor, list[Tensor], BatchInfo]:
    """Fit each tensor of ``x``, whose first ``dims`` axes are the batch's; arguments as checked.

    Returns weights ``[..., R]``, factors ``[..., I_n, R]`` and the accounts of the fits.
    """
    batch, data = tuple(x.shape[:dims]), Stack(x, dims)
    order = len(data.shape)
    units = _units(op, data, check_finite)
    rows = initial_rows(op, data, units, rank, init, seed, free)
    kept = {n: rows[n] for n in range(order) if n not in free}
    if units is not None and not isinstance(init, str):
        rows = [r / _along(units, r) for r in rows]

    def begin(part: slice) -> BatchALS:
        unit = None if units is None else units[part]
        operand = BatchOperand(data[part], unit)
        weights = _l2_of_each(l2_reg, unit, len(operand), order, x.device)
        starts = [r[part] for r in rows]
        return BatchALS(operand, starts, weights, n_iter_max=n_iter_max, tol=tol, free=free)

    def outward() -> list[Tensor]:
        """Return the factors in the scale of ``x``, with the axes of the batch."""
        own = rows if units is None else restored(rows, kept, _along(units, rows[0]))
        return [r.mT.reshape(*batch, r.shape[2], rank).contiguous() for r in own]

    def report(sweep: int, errors: Tensor) -> bool:
        if bar is not None:
            bar(sweep, float(errors.max()), None)
        if callback is None:
            return False
        told = errors.cpu().numpy().reshape(batch)
        with torch.inference_mode(False), torch.enable_grad():
            copies = [f.clone() for f in outward()]
            return bool(callback(sweep, told, [arrays.in_kind(f, like) for f in copies]))

    def in_blocks(part: slice) -> list[ConvergenceInfo]:
        unit = None if units is None else units[part]
        starts = [r[part] for r in rows]
        options: dict[str, Any] = {"n_iter_max": n_iter_max, "tol": tol, "free": free}
        return thread_blocks.fit(data[part], unit, starts, l2_reg, **options)

    parts, watched = list(data.parts(grain(SLAB, x), rank)), callback is not None or progress
    scaled = units is not None and l2_reg > 0
    if not thread_blocks.reasons(x, data.shape, rank, watched, scaled):
        infos = [info for part in parts for info in in_blocks(part)]
    elif not watched:
        infos = run_chunks(begin, parts)
    else:
        with progress_bar(progress, n_iter_max, None) as bar:
            infos = run_chunks(begin, parts, report)
    factors = outward()
    weights = torch.ones(*batch, rank, dtype=factors[0].real.dtype, device=x.device)
    if normalize:
        for n in free:
            factors[n], lengths = unit_columns(factors[n])
            weights *= lengths
    return weights, factors, BatchInfo(infos, batch)


def _units(op: str, data: Stack, check_finite: bool) -> Tensor | None:
    """Return for each tensor the power of two by which its factors are scaled; None if all are 1.

    Refuses tensors that are not finite.
    """
    remedy = "fill or drop them, or pass check_finite=False to skip this check"
    scales, odd = scales_of(op, data, remedy if check_finite else None)
    if odd:
        raise not_finite(f"the tensor at {named_index(odd[0], data.batch)}")
    units = torch.exp2((scales.log2() / len(data.shape)).floor())
    return units.to(data.x.device) if bool((units != 1).any()) else None


def _along(units: Tensor, rows: Tensor) -> Tensor:
    return units.to(rows.real.dtype)[:, None, None]


def _l2_of_each(
    l2_reg: float, units: Tensor | None, size: int, order: int, device: torch.device
) -> Tensor | None:
    if not l2_reg:
        return None
    weights = [l2_reg] * size
    if units is not None:
        weights = [scaled_l2(l2_reg, unit, order) for unit in units.tolist()]
    return torch.tensor(weights, dtype=torch.float64, device=device)
