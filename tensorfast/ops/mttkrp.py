"""Matricised tensor times Khatri-Rao product, the operation that dominates CP decompositions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _check, _dispatch, arrays, baseline, reference
from ..blocks import middle
from ..precision import common_dtype, matmul_precision
from . import _cost
from ._shared import (
    as_torch_is_set,
    bring_weights,
    describe_tensor,
    gradient_of,
    map_over_batch,
)
from ._triton import triton
from .khatri_rao import _khatri_rao
from .ttm import _ttm

if TYPE_CHECKING:
    from ..kernels.devices import Chip

__all__ = ["mttkrp"]


def mttkrp(
    x: Any,
    factors: Sequence[Any],
    mode: int,
    weights: Any = None,
    *,
    precision: str | None = "ieee",
    impl: str = "auto",
) -> Any:
    r"""Matricised tensor times Khatri-Rao product.

    ``out[i_n, r] = sum x[i_0, ..., i_{N-1}] conj(weights[r] prod_{m != n} factors[m][i_m, r])``,
    the sum over all modes but ``n = mode``; equal to ``unfold(x, n) @ conj(khatri_rao(factors,
    weights, skip=n))``. The unfolding is never formed, and of the Khatri-Rao product only that of
    the modes on each side of ``n`` in memory: for the slowest and the fastest mode that is all.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1}), N >= 2
        Any strides. A tensor that is C-ordered up to a permutation of its modes is read in place,
        or converted whole if the factors have a wider type; strided slices and half precision are
        lifted block by block.
    factors : sequence of N arrays, shapes (I_n, R)
        The entry at ``mode`` is not used and may be anything, None included.
    mode : int
        0-based; negative modes count from the end.
    weights : array, shape (R,), optional
    precision : {"ieee", "tf32", "bf16"} or None
        Arithmetic of float32 products; None follows torch's own setting.
    impl : str
        ``"auto"``, or the name of an implementation (see `tensorfast.explain`).

    Returns
    -------
    array, shape (I_n, R)
        In the promoted type of ``x`` and the factors; float32 for half precision.

    Raises
    ------
    ValueError, TypeError
        If shapes, ranks, types or the mode do not fit, or ``impl`` cannot serve the call.

    Notes
    -----
    2 R prod(I_n) flops and one read of ``x``. The longer side of the mode is contracted
    by matrix products, the shorter one column by column on a result that is still in cache;
    workspace is a few MiB plus the Khatri-Rao product of each side. Deterministic for a fixed
    number of threads. Differentiable, twice; the gradient of ``x`` is the tensor of a CP model,
    from the Khatri-Rao products of its first and of its last modes.

    References
    ----------
    Phan, Tichavsky and Cichocki, IEEE Trans. Signal Process. 61 (2013), section III;
    Hayashi, Ballard, Jiang and Tobia, arXiv:1708.08976 (two-step MTTKRP).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(24.0).reshape(2, 3, 4)
    >>> u = [np.ones((n, 1)) for n in x.shape]
    >>> mttkrp(x, u, 0)
    array([[ 66.],
           [210.]])
    """
    _dispatch.known("mttkrp", impl)
    tensor, others, n, w = _arguments(x, factors, mode, weights, precision)
    return arrays.in_kind(_mttkrp(tensor, others, n, w, precision, impl), x)


def _arguments(
    x: Any, factors: Sequence[Any], mode: int, weights: Any, precision: str | None
) -> tuple[Tensor, list[Tensor], int, Tensor | None]:
    tensor = arrays.as_tensor("mttkrp", "x", x)
    _check.storage("mttkrp", "x", tensor.dtype)
    _check.modes_at_least("mttkrp", tensor, 2)
    _check.precision("mttkrp", precision)
    n = _check.mode("mttkrp", mode, tensor.ndim)
    matrices = arrays.as_tensors("mttkrp", "factors", factors, skip=n)
    rank = _check.factors("mttkrp", matrices, tensor.shape, skip=n)
    w = bring_weights("mttkrp", weights, rank)
    named = {f"factors[{m}]": matrix for m, matrix in enumerate(matrices) if m != n}
    _check.one_device("mttkrp", {"x": tensor, **named, "weights": w})
    del matrices[n]
    return tensor, matrices, n, w


@torch.library.custom_op("tensorfast::mttkrp", mutates_args=())
def _mttkrp(
    x: Tensor,
    others: Sequence[Tensor],
    mode: int,
    weights: Tensor | None,
    precision: str | None,
    impl: str,
) -> Tensor:
    run = _dispatch.runner(_problem(x, others, mode, weights, precision), impl)
    with matmul_precision(precision, x.device):
        # The fake kernel promises C order.
        return run(x, others, mode, weights, precision).contiguous()


@_mttkrp.register_fake
def _(
    x: Tensor,
    others: Sequence[Tensor],
    mode: int,
    weights: Tensor | None,
    precision: str | None,
    impl: str,
) -> Tensor:
    dtype = common_dtype(x, *others)
    if weights is not None and weights.is_complex():
        dtype = dtype.to_complex()
    return x.new_empty(x.shape[mode], others[0].shape[1], dtype=dtype)


def _setup(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, others, ctx.mode, weights, ctx.precision, ctx.impl = inputs
    ctx.weighted = weights is not None
    ctx.save_for_backward(x, *others, *([weights] if ctx.weighted else []))


def _backward(ctx: Any, grad: Tensor) -> Any:
    x, *others = ctx.saved_tensors
    weights = others.pop() if ctx.weighted else None
    needs_x, needs_others, _, needs_weights, _, _ = ctx.needs_input_grad
    n, end = ctx.mode, (ctx.precision, ctx.impl)
    factors = [*others[:n], grad, *others[n:]]
    modes = [m for m in range(x.ndim) if m != n]

    grad_x = None
    if needs_x:
        # The tensor of the weights, the factors, and ``grad`` at the mode.
        w = None if weights is None else weights.to(grad.dtype)
        lifted, cut = [f.to(grad.dtype) for f in factors], middle(x.shape)
        left = _khatri_rao(lifted[:cut], w, "auto")
        right = _khatri_rao(lifted[cut:], None, "auto")
        model = _ttm(left, right, 1, False, ctx.precision, "auto")
        grad_x = gradient_of(x, model.reshape(x.shape))

    grads: list[Tensor | None] = [None] * len(others)
    for k, m in enumerate(modes):
        if needs_others[k]:
            rest = [factor for j, factor in enumerate(factors) if j != m]
            grads[k] = gradient_of(others[k], _mttkrp(x, rest, m, weights, *end))

    grad_weights = None
    if weights is not None and needs_weights:
        plain = _mttkrp(x, others, n, None, *end)
        grad_weights = gradient_of(weights, (baseline.conjugate(grad) * plain).sum(0))
    return grad_x, grads, None, grad_weights, None, None


_mttkrp.register_autograd(_backward, setup_context=_setup)
_mttkrp.register_vmap(map_over_batch(_mttkrp))


def _problem(
    x: Tensor, others: Sequence[Tensor], mode: int, weights: Tensor | None, precision: str | None
) -> _dispatch.Problem:
    # Weights take the precision of the rest; complex ones make the result complex.
    phases = weights if weights is not None and weights.is_complex() else None
    rank = others[0].shape[1]
    return describe_tensor("mttkrp", x, *others, phases, mode=mode, rank=rank, precision=precision)


def _described(
    x: Any,
    factors: Sequence[Any],
    mode: int,
    weights: Any = None,
    *,
    precision: str | None = "ieee",
) -> _dispatch.Problem:
    tensor, others, n, w = _arguments(x, factors, mode, weights, precision)
    return _problem(tensor, others, n, w, precision)


def _torch_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    """One read of ``x``, the Khatri-Rao product of each side, what is between the two sides."""
    left, right = math.prod(p.shape[: p.mode]), math.prod(p.shape[p.mode + 1 :])
    formed = sum(side * p.rank for side in (left, right) if side > 1)
    if left > 1 and right > 1:
        formed += math.prod(p.shape) // max(left, right) * p.rank
    return _cost.contraction(p, p.shape[p.mode] * p.rank, formed, calls=3)


def _reference_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    """Intermediates of up to R times the tensor."""
    return _cost.contraction(p, 0, math.prod(p.shape) * p.rank, calls=10)


def _load() -> Callable[..., Tensor]:
    from ..kernels.mttkrp import mttkrp as launch

    return launch


def _triton_cost(p: _dispatch.Problem, precision: str, chip: Chip) -> tuple[float, float, float]:
    from ..kernels.mttkrp import cost

    return cost(p.shape, p.strides, p.mode, p.rank, p.dtype, precision, chip)


_dispatch.describe("mttkrp", _described)
_dispatch.register("mttkrp", triton(_load, _triton_cost))
_dispatch.register(
    "mttkrp",
    _dispatch.Implementation("torch", as_torch_is_set(baseline.mttkrp), _torch_cost),
)
_dispatch.register(
    "mttkrp",
    _dispatch.Implementation("reference", as_torch_is_set(reference.mttkrp), _reference_cost),
)
