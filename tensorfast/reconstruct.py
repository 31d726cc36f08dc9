"""The tensor that factors describe: whole, or slab by slab against data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _check, arrays, baseline, blocks
from .batch.contract import expand as expand_each
from .blocks import SLAB, boxes, by_stride, grain, middle, rows_in
from .precision import common_dtype, matmul_precision, solve_dtype

__all__ = [
    "cp_inner_products",
    "cp_residual_norm",
    "cp_residual_norms",
    "cp_to_tensor",
    "tucker_residual_norm",
    "tucker_to_tensor",
]

#: Length from which on a sum is worth a matrix product, and its result little beside the terms.
LEAST = 64


def cp_to_tensor(cp: Any) -> Any:
    r"""Form the tensor of a CP model, ``x[i, j, ...] = sum_r weights[r] A[i, r] B[j, r] ...``.

    Parameters
    ----------
    cp : CPTensor or (weights, factors)
        ``weights`` of shape (R,) or None; factors of shapes (I_n, R). All may have the axes of a
        batch before.

    Returns
    -------
    array, shape (I_0, ..., I_{N-1}), after the axes of the batch

    Raises
    ------
    ValueError, TypeError
        If the shapes do not fit together.

    Notes
    -----
    2 R prod(I_n) flops, one matrix product of two Khatri-Rao products. Differentiable.

    Examples
    --------
    >>> import numpy as np
    >>> cp_to_tensor((np.array([2.0]), [np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])]))
    array([[ 6.,  8.],
           [12., 16.]])
    """
    op = "cp_to_tensor"
    weights, given = bring_cp(op, cp, batched=True)
    shape = [f.shape[-2] for f in given]
    cut = middle(shape)
    left, right = _two_sides(given, cut, weights)
    with matmul_precision("ieee", left.device):
        full = left @ right.mT
    return arrays.in_kind(full.reshape(*given[0].shape[:-2], *shape), cp[1][0])


def tucker_to_tensor(tucker: Any) -> Any:
    r"""Form the tensor of a Tucker model, ``x = core x_0 U_0 x_1 U_1 ...``.

    Parameters
    ----------
    tucker : TuckerTensor or (core, factors)
        Core of shape (R_0, ...), factors of shapes (I_n, R_n). All may have the axes of a batch
        before.

    Returns
    -------
    array, shape (I_0, ..., I_{N-1}), after the axes of the batch

    Raises
    ------
    ValueError, TypeError
        If the shapes do not fit together.

    Notes
    -----
    The mode that grows least goes first. Differentiable.

    Examples
    --------
    >>> import numpy as np
    >>> tucker_to_tensor((np.eye(2), [np.ones((3, 2)), np.ones((4, 2))])).shape
    (3, 4)
    """
    core, factors = bring_tucker("tucker_to_tensor", tucker, batched=True)
    batch = factors[0].shape[:-2] if factors else ()
    with matmul_precision("ieee", core.device):
        if batch:
            flat = core.reshape(-1, *core.shape[len(batch) :])
            each = {n: f.reshape(-1, *f.shape[-2:]) for n, f in enumerate(factors)}
            full = expand_each(flat, each).reshape(*batch, *(f.shape[-2] for f in factors))
        else:
            full = expand(core, dict(enumerate(factors)))
    return arrays.in_kind(full, tucker[0])


def bring_cp(op: str, cp: Any, batched: bool = False) -> tuple[Tensor | None, list[Tensor]]:
    """Bring in the pair ``(weights, factors)`` in one common computing type.

    A batch of models is refused, unless ``batched``.
    """
    try:
        weights, factors = cp
    except (TypeError, ValueError):
        raise TypeError(
            f"{op}: got {type(cp).__name__}; expected a CPTensor or (weights, factors)"
        ) from None
    matrices = arrays.as_tensors(op, "factors", factors)
    batch = tuple(matrices[0].shape[:-2]) if matrices else ()
    if batch and not batched:
        raise ValueError(
            f"{op}: factors[0] has shape {tuple(matrices[0].shape)}; expected a matrix (I_0, R); "
            "of a batch take one model after another, (weights[i], [f[i] for f in factors])"
        )
    rank = _check.factors(op, matrices, batch=batch)
    if weights is None:
        _check.one_device(op, named(matrices))
        return None, _common(matrices)
    w = arrays.as_tensor(op, "weights", weights)
    if tuple(w.shape) != (*batch, rank):
        raise ValueError(f"{op}: weights has shape {tuple(w.shape)}; expected {(*batch, rank)}")
    _check.one_device(op, named(matrices, weights=w))
    *matrices, w = _common([*matrices, w])
    return w, matrices


def bring_tucker(op: str, tucker: Any, batched: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Bring in the pair ``(core, factors)`` in one common computing type.

    A batch of models is refused, unless ``batched``.
    """
    try:
        given, factors = tucker
    except (TypeError, ValueError):
        raise TypeError(
            f"{op}: got {type(tucker).__name__}; expected a TuckerTensor or (core, factors)"
        ) from None
    core = arrays.as_tensor(op, "core", given)
    matrices = arrays.as_tensors(op, "factors", factors)
    batch = tuple(matrices[0].shape[:-2]) if matrices and batched else ()
    axes = len(batch)
    if len(matrices) != core.ndim - axes or tuple(core.shape[:axes]) != batch:
        beside = f" beside the batch axes {batch}" if batch else ""
        raise ValueError(
            f"{op}: got {len(matrices)} factors but the core has {core.ndim - axes} modes"
            f"{beside} (shape {tuple(core.shape)}); expected one a mode"
        )
    lead = "".join(f"{size}, " for size in batch)
    for n, matrix in enumerate(matrices, start=axes):
        columns = core.shape[n]
        fits = matrix.ndim == 2 + axes and (*matrix.shape[:-2], matrix.shape[-1]) == (
            *batch,
            columns,
        )
        if not fits:
            raise ValueError(
                f"{op}: factors[{n - axes}] has shape {tuple(matrix.shape)} but core.shape[{n}] is "
                f"{columns}; expected ({lead}I_{n - axes}, {columns})"
            )
    _check.one_device(op, named(matrices, core=core))
    core, *matrices = _common([core, *matrices])
    return core, matrices


def named(factors: Sequence[Tensor], **others: Tensor | None) -> dict[str, Tensor | None]:
    """Return the parts of a model under the names that errors call them by."""
    return {f"factors[{n}]": factor for n, factor in enumerate(factors)} | others


def _common(tensors: Sequence[Tensor]) -> list[Tensor]:
    dtype = common_dtype(*tensors)
    return [tensor.to(dtype) for tensor in tensors]


def _two_sides(
    factors: Sequence[Tensor], cut: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Khatri-Rao products of the factors before and from ``cut``, a row of ones for none."""
    left = baseline.khatri_rao(factors[:cut], weights)
    ones = left.new_ones(*left.shape[:-2], 1, left.shape[-1])
    return left, baseline.khatri_rao(factors[cut:]) if cut < len(factors) else ones


def expand(core: Tensor, factors: Mapping[int, Tensor]) -> Tensor:
    """Multiply a core by the factors of some modes, the one that grows it least first."""
    for n in sorted(factors, key=lambda n: factors[n].shape[0] / max(1, factors[n].shape[1])):
        core = baseline.ttm(core, factors[n], n)
    return core


def cp_residual_norm(x: Tensor, factors: Sequence[Tensor], double: bool = False) -> float:
    """``||x - [[factors]]||`` from the residual itself, in double precision if asked for.

    2 numel(x) R flops and one read of ``x``; workspace is a slab and the Khatri-Rao products of the
    first and of the last modes. Squares are summed in float64.
    """
    return cp_residual_norms(x, [factors], double)[0]


def cp_residual_norms(
    x: Tensor, models: Sequence[Sequence[Tensor]], double: bool = False
) -> list[float]:
    """``||x - [[factors]]||`` of several models, from one read of ``x``.

    Of one type, and the ranks may differ; else as `cp_residual_norm`.
    """
    dtype = common_dtype(x, *models[0])
    dtype = solve_dtype(dtype) if double else dtype
    cut = middle(x.shape)
    sides = [_two_sides([factor.to(dtype) for factor in model], cut) for model in models]
    if x.is_contiguous() or x.ndim == 1:
        (rows, columns), *_ = sides
        x, cut = x.reshape(rows.shape[0], columns.shape[0]), 1
    totals = [0.0] * len(models)
    for box in boxes(x.shape, grain(SLAB, x)):
        block = x[box].to(dtype)
        block = block.reshape(math.prod(block.shape[:cut]), math.prod(block.shape[cut:]))
        for at, (rows, columns) in enumerate(sides):
            left = rows_in(rows, x.shape[:cut], box[:cut])
            right = rows_in(columns, x.shape[cut:], box[cut:])
            # Without a name, so that it is gone when the next block is made.
            gap = _length(torch.addmm(block, left, right.t(), alpha=-1))
            totals[at] = math.hypot(totals[at], gap)
    return totals


def cp_inner_products(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """``Re <x, a_r o b_r o ...>`` of every component, ``[R]``, in double precision.

    2 numel(x) R flops and one read of ``x``, in boxes that are widened; workspace is a box and the
    Khatri-Rao products of its rows. Of many components that is far less work than a residual: with
    it and Gram matrices ``||x - model||^2`` of several models is known to about 1e-15 of
    ``||x||^2``.
    """
    dtype = solve_dtype(common_dtype(x, *factors))
    wide = [baseline.conjugate(factor.to(dtype)) for factor in factors]
    total = torch.zeros(wide[0].shape[1], dtype=torch.float64, device=x.device)
    for box in boxes(x.shape, grain(SLAB // 2, x)):
        block = x[box].to(dtype)
        # As few modes on the right as make the product one of matrices.
        cuts = range(1, x.ndim)
        cut = max((c for c in cuts if math.prod(block.shape[c:]) >= LEAST), default=min(1, x.ndim))
        left, right = _two_sides([f[rows] for f, rows in zip(wide, box, strict=True)], cut)
        partial = block.reshape(left.shape[0], right.shape[0]) @ right
        total += (left * partial).real.sum(0)
    return total


def tucker_residual_norm(
    x: Tensor, core: Tensor, factors: Sequence[Tensor], double: bool = False
) -> float:
    """``||x - core x_0 U_0 x_1 U_1 ...||`` from the residual itself, slab by slab."""
    dtype = common_dtype(x, core, *factors)
    dtype = solve_dtype(dtype) if double else dtype
    order = by_stride(x)
    x, core = x.permute(order), core.permute(order).to(dtype)
    ordered = [factors[n].to(dtype) for n in order]
    axis, step = blocks.cut(x, grain(SLAB, x))
    others = {n: factor for n, factor in enumerate(ordered) if n != axis}
    total = 0.0
    for block, rows in zip(x.split(step, axis), ordered[axis].split(step), strict=True):
        model = expand(baseline.ttm(core, rows, axis), others)
        total = math.hypot(total, _length(block.to(dtype) - model))
    return total


def norm(x: Tensor) -> float:
    """``||x||`` in double precision, slab by slab: of anything whose norm is representable."""
    return _unless_extreme(math.sqrt(float(baseline.sum_of_squares(x))), x)


def _length(residual: Tensor) -> float:
    length = torch.linalg.vector_norm(residual, dtype=solve_dtype(residual.dtype))
    return _unless_extreme(float(length), residual)


def _unless_extreme(length: float, x: Tensor) -> float:
    """Return ``length``, that of ``x``, or compute it anew where squares over- or underflowed."""
    if 1e-140 < length < math.inf:
        return length
    if x.is_complex():
        x = torch.view_as_real(x)
    largest = torch.linalg.vector_norm(x, math.inf)
    if not 0 < float(largest) < math.inf:
        return float(largest)
    parts = (torch.linalg.vector_norm(x[box] / largest) for box in boxes(x.shape, grain(SLAB, x)))
    return float(largest) * math.hypot(*map(float, parts))
