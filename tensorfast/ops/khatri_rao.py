"""The Khatri-Rao product."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _check, _dispatch, arrays, baseline, reference
from ..precision import common_dtype, matmul_precision
from . import _cost
from ._shared import as_torch_is_set, bring_weights, describe_tensor, gradient_of, map_over_batch
from ._triton import triton

if TYPE_CHECKING:
    from ..kernels.devices import Chip

__all__ = ["khatri_rao"]


def khatri_rao(factors: Sequence[Any], weights: Any = None, skip: int | None = None) -> Any:
    r"""Columnwise Kronecker product of matrices.

    ``out[(i_0, ..., i_{N-1}), r] = weights[r] * prod_n factors[n][i_n, r]``, the first index
    slowest (C order), so that it fits `tensorfast.unfold`.

    Parameters
    ----------
    factors : sequence of arrays, shapes (I_n, R)
        Any strides; the types are promoted to a common one.
    weights : array, shape (R,), optional
    skip : int, optional
        Position of a factor to leave out; negative positions count from the end.

    Returns
    -------
    array, shape (prod of I_n, R)

    Raises
    ------
    ValueError, TypeError
        If the factors are not matrices with one number of columns, or none is left.

    Notes
    -----
    (N-1) R prod(I_n) multiplications at most and one write of the result. The library itself never
    forms more of it than one side of a mode needs. Deterministic; differentiable.

    References
    ----------
    Kolda and Bader, SIAM Review 51 (2009), section 2.6 (there the product runs in reverse order).

    Examples
    --------
    >>> import numpy as np
    >>> khatri_rao([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]])])
    array([[ 3.,  8.],
           [ 5., 12.]])
    """
    matrices, w = _arguments(factors, weights, skip)
    like = next(f for n, f in enumerate(factors) if skip is None or n != skip % len(factors))
    return arrays.in_kind(_khatri_rao(matrices, w, "auto"), like)


def _arguments(
    factors: Sequence[Any], weights: Any, skip: int | None
) -> tuple[list[Tensor], Tensor | None]:
    op = "khatri_rao"
    at = None
    if skip is not None:
        owner = "there are {} factors"
        at = _check.mode(op, skip, arrays.count(op, "factors", factors), "skip", owner)
    matrices = arrays.as_tensors(op, "factors", factors, skip=at)
    rank = _check.factors(op, matrices, skip=at)
    w = bring_weights(op, weights, rank)
    named = {f"factors[{n}]": m for n, m in enumerate(matrices) if n != at}
    _check.one_device(op, named | {"weights": w})
    return list(named.values()), w


@torch.library.custom_op("tensorfast::khatri_rao", mutates_args=())
def _khatri_rao(factors: Sequence[Tensor], weights: Tensor | None, impl: str) -> Tensor:
    # Half precision is storage only; a product of columns is computed.
    dtype = common_dtype(*factors, *([] if weights is None else [weights]))
    lifted = [factor.to(dtype) for factor in factors]
    run = _dispatch.runner(_problem(factors, weights), impl)
    with matmul_precision("ieee", factors[0].device):
        out = run(lifted, weights, None)
    # A custom op may not return its argument, and the fake kernel promises C order.
    return (
        out.clone(memory_format=torch.contiguous_format) if out is factors[0] else out.contiguous()
    )


@_khatri_rao.register_fake
def _(factors: Sequence[Tensor], weights: Tensor | None, impl: str) -> Tensor:
    dtype = common_dtype(*factors, *([] if weights is None else [weights]))
    rows = math.prod(f.shape[0] for f in factors)
    return factors[0].new_empty(rows, factors[0].shape[1], dtype=dtype)


def _setup(ctx: Any, inputs: Any, output: Tensor) -> None:
    factors, weights, _ = inputs
    ctx.count, ctx.weighted = len(factors), weights is not None
    ctx.save_for_backward(*factors, *([weights] if ctx.weighted else []))


def _backward(ctx: Any, grad: Tensor) -> Any:
    saved = ctx.saved_tensors
    factors, weights = saved[: ctx.count], saved[ctx.count] if ctx.weighted else None
    needs_factors, needs_weights, _ = ctx.needs_input_grad
    full = grad.reshape(*(f.shape[0] for f in factors), grad.shape[-1])
    grads: list[Tensor | None] = [None] * ctx.count
    for n, needed in enumerate(needs_factors):
        if needed:
            part = _sum_against(full, factors, skip=n)
            part = part if weights is None else part * baseline.conjugate(weights)
            grads[n] = gradient_of(factors[n], part)
    grad_weights = None
    if weights is not None and needs_weights:
        grad_weights = gradient_of(weights, _sum_against(full, factors, skip=None))
    return grads, grad_weights, None


def _sum_against(full: Tensor, factors: Sequence[Tensor], skip: int | None) -> Tensor:
    """Contract ``full [I_0, ..., R]`` with the conjugate of every factor but one."""
    for n in reversed(range(len(factors))):
        if n != skip:
            shape = [factors[n].shape[0]] + [1] * (full.ndim - n - 2) + [full.shape[-1]]
            full = (full * baseline.conjugate(factors[n]).reshape(shape)).sum(n)
    return full


_khatri_rao.register_autograd(_backward, setup_context=_setup)
_khatri_rao.register_vmap(map_over_batch(_khatri_rao))


def _problem(factors: Sequence[Tensor], weights: Tensor | None) -> _dispatch.Problem:
    shape = tuple(f.shape[0] for f in factors)
    problem = describe_tensor("khatri_rao", *factors, weights, rank=factors[0].shape[1])
    return dataclasses.replace(problem, shape=shape)


def _described(
    factors: Sequence[Any], weights: Any = None, skip: int | None = None
) -> _dispatch.Problem:
    return _problem(*_arguments(factors, weights, skip))


def _torch_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    """One write for each pair of factors."""
    results = math.prod(p.shape) * p.rank
    return _cost.streaming(p, (len(p.shape) - 1) * results, results, calls=len(p.shape))


def _reference_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    results = math.prod(p.shape) * p.rank
    return _cost.streaming(p, len(p.shape) * results, 3 * results, calls=10)


def _load() -> Callable[..., Tensor]:
    from ..kernels.khatri_rao import khatri_rao as launch

    return launch


def _triton_cost(p: _dispatch.Problem, precision: str, chip: Chip) -> tuple[float, float, float]:
    from ..kernels.khatri_rao import cost

    return cost(p.shape, p.rank, p.dtype, chip)


_dispatch.describe("khatri_rao", _described)
_dispatch.register("khatri_rao", triton(_load, _triton_cost))
_dispatch.register(
    "khatri_rao",
    _dispatch.Implementation("torch", as_torch_is_set(baseline.khatri_rao), _torch_cost),
)
_dispatch.register(
    "khatri_rao",
    _dispatch.Implementation("reference", as_torch_is_set(reference.khatri_rao), _reference_cost),
)
