"""The Gram matrix of an unfolding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _check, _dispatch, arrays, baseline, reference
from ..precision import compute_dtype, matmul_precision, solve_dtype
from . import _cost
from ._shared import as_torch_is_set, describe_tensor, gradient_of, map_over_batch
from ._triton import triton
from .ttm import _ttm

if TYPE_CHECKING:
    from ..kernels.devices import Chip

__all__ = ["gram"]


def gram(
    x: Any, mode: int, *, double: bool = False, precision: str | None = "ieee", impl: str = "auto"
) -> Any:
    r"""Gram matrix of an unfolding, ``unfold(x, n) @ unfold(x, n)^H``.

    ``out[i, j] = sum x[..., i, ...] conj(x[..., j, ...])``, the sum over all modes but ``n =
    mode``.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
        Any strides.
    mode : int
        0-based; negative modes count from the end.
    double : bool
        Multiply and accumulate in double precision and return it. The singular values of the
        unfolding are the square roots of the eigenvalues: in float32 those below 3.4e-4 of the
        largest are lost, in double precision those below 1.5e-8.
    precision : {"ieee", "tf32", "bf16"} or None
    impl : str
        ``"auto"``, or the name of an implementation.

    Returns
    -------
    array, shape (I_n, I_n)
        Hermitian; in double precision if asked for, else in the type of ``x`` (float32 for half).

    Raises
    ------
    ValueError, TypeError
        If the mode or the type does not fit.

    Notes
    -----
    2 I_n prod(I_m) flops, one read of ``x``; inner modes are unfolded in blocks of a few MiB.
    Deterministic for a fixed number of threads. Differentiable, twice.

    Examples
    --------
    >>> import numpy as np
    >>> gram(np.ones((2, 3, 4)), 0)
    array([[12., 12.],
           [12., 12.]])
    """
    _dispatch.known("gram", impl)
    tensor, n = _arguments(x, mode, precision)
    return arrays.in_kind(_gram(tensor, n, double, precision, impl), x)


def _arguments(x: Any, mode: int, precision: str | None) -> tuple[Tensor, int]:
    tensor = arrays.as_tensor("gram", "x", x)
    _check.storage("gram", "x", tensor.dtype)
    _check.modes_at_least("gram", tensor, 1)
    _check.precision("gram", precision)
    return tensor, _check.mode("gram", mode, tensor.ndim)


def _result_dtype(dtype: torch.dtype, double: bool) -> torch.dtype:
    return solve_dtype(dtype) if double else compute_dtype(dtype)


@torch.library.custom_op("tensorfast::gram", mutates_args=())
def _gram(x: Tensor, mode: int, double: bool, precision: str | None, impl: str) -> Tensor:
    run = _dispatch.runner(_problem(x, mode, double, precision), impl)
    with matmul_precision(precision, x.device):
        # The fake kernel promises C order.
        return run(x, mode, _result_dtype(x.dtype, double), precision).contiguous()


@_gram.register_fake
def _(x: Tensor, mode: int, double: bool, precision: str | None, impl: str) -> Tensor:
    return x.new_empty(x.shape[mode], x.shape[mode], dtype=_result_dtype(x.dtype, double))


def _setup(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, ctx.mode, _, ctx.precision, _ = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> Any:
    (x,) = ctx.saved_tensors
    # d tr(G^H S) for S = X X^H: (G + G^H) X.
    full = _ttm(x, grad + grad.mH, ctx.mode, False, ctx.precision, "auto")
    return gradient_of(x, full), None, None, None, None


_gram.register_autograd(_backward, setup_context=_setup)
_gram.register_vmap(map_over_batch(_gram))


def _problem(x: Tensor, mode: int, double: bool, precision: str | None) -> _dispatch.Problem:
    rank = x.shape[mode]
    return describe_tensor("gram", x, mode=mode, rank=rank, double=double, precision=precision)


def _described(
    x: Any, mode: int, *, double: bool = False, precision: str | None = "ieee"
) -> _dispatch.Problem:
    return _problem(*_arguments(x, mode, precision), double, precision)


def _torch_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    return _cost.contraction(p, p.rank * p.rank)


def _reference_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    """Count a permuted copy of the tensor."""
    return _cost.contraction(p, p.rank * p.rank, math.prod(p.shape), calls=10)


def _load() -> Callable[..., Tensor]:
    from ..kernels.gram import gram as launch

    return launch


def _triton_cost(p: _dispatch.Problem, precision: str, chip: Chip) -> tuple[float, float, float]:
    from ..kernels.gram import cost

    return cost(p.shape, p.strides, p.mode, p.dtype, p.double, precision, chip)


_dispatch.describe("gram", _described)
_dispatch.register("gram", triton(_load, _triton_cost))
_dispatch.register(
    "gram", _dispatch.Implementation("torch", as_torch_is_set(baseline.gram), _torch_cost)
)
_dispatch.register(
    "gram",
    _dispatch.Implementation("reference", as_torch_is_set(reference.gram), _reference_cost),
)
