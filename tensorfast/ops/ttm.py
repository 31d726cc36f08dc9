"""The n-mode product of a tensor with one matrix, and with several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _check, _dispatch, arrays, baseline, reference
from ..precision import common_dtype, compute_dtype, matmul_precision
from . import _cost
from ._shared import as_torch_is_set, describe_tensor, gradient_of, map_over_batch, unfolded
from ._triton import triton

if TYPE_CHECKING:
    from ..kernels.devices import Chip

__all__ = ["multi_ttm", "ttm"]


def ttm(
    x: Any,
    matrix: Any,
    mode: int,
    *,
    transpose: bool = False,
    precision: str | None = "ieee",
    impl: str = "auto",
) -> Any:
    r"""N-mode product: multiply a tensor along one mode by a matrix or a vector.

    ``out[..., j, ...] = sum_i x[..., i, ...] matrix[j, i]``, that is
    ``unfold(out, n) = matrix @ unfold(x, n)``; with ``transpose`` the matrix is replaced by its
    conjugate transpose. A vector of length I_n contracts the mode away (with ``transpose``, its
    conjugate).

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
        Any strides; read in place if C-ordered up to a permutation of the modes.
    matrix : array, shape (J, I_n), or (I_n, J) with ``transpose``, or (I_n,)
    mode : int
        0-based; negative modes count from the end.
    transpose : bool
    precision : {"ieee", "tf32", "bf16"} or None
    impl : str
        ``"auto"``, or the name of an implementation.

    Returns
    -------
    array, shape of ``x`` with I_n replaced by J, or dropped for a vector
        In the promoted type; float32 for half precision.

    Raises
    ------
    ValueError, TypeError
        If shapes, types or the mode do not fit.

    Notes
    -----
    2 J prod(I_n) flops, one read of ``x`` and one write of the result; no unfolding is copied.
    Deterministic for a fixed number of threads. Differentiable, twice.

    References
    ----------
    Kolda and Bader, SIAM Review 51 (2009), section 2.5.

    Examples
    --------
    >>> import numpy as np
    >>> ttm(np.ones((2, 3, 4)), np.ones((5, 3)), 1).shape
    (2, 5, 4)
    >>> ttm(np.ones((2, 3, 4)), np.ones(3), 1).shape
    (2, 4)
    """
    _dispatch.known("ttm", impl)
    tensor, a, n = _arguments("ttm", x, matrix, mode, transpose, precision)
    out = _ttm(
        tensor,
        a.reshape(1, -1) if a.ndim == 1 else a,
        n,
        transpose and a.ndim == 2,
        precision,
        impl,
    )
    return arrays.in_kind(out.squeeze(n) if a.ndim == 1 else out, x)


def _arguments(
    op: str,
    x: Any,
    matrix: Any,
    mode: int,
    transpose: bool,
    precision: str | None,
    name: str = "matrix",
) -> tuple[Tensor, Tensor, int]:
    tensor, a = arrays.as_tensor(op, "x", x), arrays.as_tensor(op, name, matrix)
    _check.storage(op, "x", tensor.dtype)
    _check.storage(op, name, a.dtype)
    _check.modes_at_least(op, tensor, 1)
    _check.precision(op, precision)
    n = _check.mode(op, mode, tensor.ndim)
    size = tensor.shape[n]
    if a.ndim not in (1, 2):
        raise ValueError(f"{op}: {name} has shape {tuple(a.shape)}; expected a matrix or a vector")
    if a.shape[0 if transpose else -1] != size:
        wanted = f"({size}, J)" if transpose else f"(J, {size})"
        raise ValueError(
            f"{op}: {name} has shape {tuple(a.shape)} but x.shape[{n}] is {size}; expected "
            f"{wanted} or ({size},)"
        )
    _check.one_device(op, {"x": tensor, name: a})
    return tensor, baseline.conjugate(a) if a.ndim == 1 and transpose else a, n


@torch.library.custom_op("tensorfast::ttm", mutates_args=())
def _ttm(
    x: Tensor, matrix: Tensor, mode: int, transpose: bool, precision: str | None, impl: str
) -> Tensor:
    run = _dispatch.runner(_problem(x, matrix, mode, transpose, precision), impl)
    with matmul_precision(precision, x.device):
        # The fake kernel promises C order.
        return run(x, matrix, mode, transpose, precision).contiguous()


@_ttm.register_fake
def _(
    x: Tensor, matrix: Tensor, mode: int, transpose: bool, precision: str | None, impl: str
) -> Tensor:
    dtype = common_dtype(x, matrix)
    shape = list(x.shape)
    shape[mode] = matrix.shape[1 if transpose else 0]
    return x.new_empty(shape, dtype=dtype)


def _setup(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, matrix, ctx.mode, ctx.transpose, ctx.precision, ctx.impl = inputs
    ctx.save_for_backward(x, matrix)


def _backward(ctx: Any, grad: Tensor) -> Any:
    x, matrix = ctx.saved_tensors
    needs_x, needs_matrix = ctx.needs_input_grad[:2]
    grad_x = grad_matrix = None
    if needs_x:
        # The adjoint of a product with A is a product with A^H.
        adjoint = _ttm(grad, matrix, ctx.mode, not ctx.transpose, ctx.precision, ctx.impl)
        grad_x = gradient_of(x, adjoint)
    if needs_matrix:
        g, v = (unfolded(t, ctx.mode) for t in (grad, x.to(grad.dtype)))
        left, right = (v, g) if ctx.transpose else (g, v)
        right = baseline.conjugate(right)
        product = _ttm(left, right, 1, False, ctx.precision, ctx.impl)
        grad_matrix = gradient_of(matrix, product)
    return grad_x, grad_matrix, None, None, None, None


_ttm.register_autograd(_backward, setup_context=_setup)
_ttm.register_vmap(map_over_batch(_ttm))


def multi_ttm(
    x: Any,
    matrices: Sequence[Any],
    modes: Sequence[int] | None = None,
    *,
    skip: int | None = None,
    transpose: bool = False,
    precision: str | None = "ieee",
) -> Any:
    r"""Multiply a tensor along several modes, by one matrix or vector each.

    ``out = x x_{n_0} matrices[0] x_{n_1} matrices[1] ...``.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    matrices : sequence of arrays, shapes (J_k, I_n) or (I_n, J_k) with ``transpose``, or (I_n,)
    modes : sequence of int, optional
        The mode of each matrix; by default ``matrices[n]`` belongs to mode n. Modes keep the
        numbers that they have in ``x``, also when a vector contracts one away.
    skip : int, optional
        A mode to leave alone; its matrix is not looked at.
    transpose : bool
        Use the conjugate transpose of every matrix.
    precision : {"ieee", "tf32", "bf16"} or None

    Returns
    -------
    array
        In the promoted type; float32 for half precision. Where there is nothing to multiply by, a
        copy.

    Raises
    ------
    ValueError, TypeError
        If shapes, types or modes do not fit, or a mode is given twice.

    Notes
    -----
    A chain of `tensorfast.ttm`, the one that shrinks the tensor most first, so that the cost is
    that of the first product, 2 J prod(I_n) flops, plus a fraction. Differentiable, twice.

    Examples
    --------
    >>> import numpy as np
    >>> multi_ttm(np.ones((2, 3, 4)), [np.ones((5, 2)), np.ones(4)], modes=[0, 2]).shape
    (5, 3)
    """
    op = "multi_ttm"
    tensor = arrays.as_tensor(op, "x", x)
    _check.storage(op, "x", tensor.dtype)
    _check.modes_at_least(op, tensor, 1)
    count = arrays.count(op, "matrices", matrices)
    if modes is None and count > tensor.ndim:
        raise ValueError(
            f"{op}: got {count} matrices but x has {tensor.ndim} modes; expected at most one a mode"
        )
    targets = _check.modes(op, range(count) if modes is None else modes, tensor.ndim)
    if len(targets) != count:
        raise ValueError(
            f"{op}: got {count} matrices and {len(targets)} modes; expected one mode each"
        )
    _check.precision(op, precision)
    left_out = None if skip is None else _check.mode(op, skip, tensor.ndim, "skip")
    work: list[tuple[int, Tensor, bool]] = []
    gone: list[int] = []
    for k, (n, matrix) in enumerate(zip(targets, matrices, strict=True)):
        if n == left_out:
            continue
        _, a, _ = _arguments(op, tensor, matrix, n, transpose, precision, f"matrices[{k}]")
        if a.ndim == 1:
            gone.append(n)
        work.append((n, a.reshape(1, -1) if a.ndim == 1 else a, transpose and a.ndim == 2))
    if not work:
        # A result of its own, as every product is.
        dtype = compute_dtype(tensor.dtype)
        tensor = tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)
    while work:
        n, a, adjoint = work.pop(_shrinks_most(work))
        tensor = _ttm(tensor, a, n, adjoint, precision, "auto")
    for n in sorted(gone, reverse=True):
        tensor = tensor.squeeze(n)
    return arrays.in_kind(tensor, x)


def _shrinks_most(work: Sequence[tuple[int, Tensor, bool]]) -> int:
    """Position of the matrix with the fewest rows per column; by comparisons that trace."""
    best = 0
    for k in range(1, len(work)):
        (new, old), (least_new, least_old) = (
            (a.shape[1], a.shape[0]) if adjoint else (a.shape[0], a.shape[1])
            for _, a, adjoint in (work[k], work[best])
        )
        if new * least_old < least_new * old:
            best = k
    return best


def _problem(
    x: Tensor, matrix: Tensor, mode: int, transpose: bool, precision: str | None
) -> _dispatch.Problem:
    rank = matrix.shape[1 if transpose else 0] if matrix.ndim == 2 else 1
    return describe_tensor("ttm", x, matrix, mode=mode, rank=rank, precision=precision)


def _described(
    x: Any, matrix: Any, mode: int, *, transpose: bool = False, precision: str | None = "ieee"
) -> _dispatch.Problem:
    tensor, a, n = _arguments("ttm", x, matrix, mode, transpose, precision)
    return _problem(tensor, a, n, transpose, precision)


def _torch_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    return _cost.contraction(p, math.prod(p.shape) // max(1, p.shape[p.mode]) * p.rank)


def _reference_cost(p: _dispatch.Problem) -> _dispatch.Cost:
    """Count a permuted copy of the tensor, and one of the result."""
    return _cost.contraction(p, 0, math.prod(p.shape) * (1 + p.rank), calls=10)


def _load() -> Callable[..., Tensor]:
    from ..kernels.ttm import ttm as launch

    return launch


def _triton_cost(p: _dispatch.Problem, precision: str, chip: Chip) -> tuple[float, float, float]:
    from ..kernels.ttm import cost

    return cost(p.shape, p.strides, p.mode, p.rank, p.dtype, precision, chip)


_dispatch.describe("ttm", _described)
_dispatch.register("ttm", triton(_load, _triton_cost))
_dispatch.register(
    "ttm", _dispatch.Implementation("torch", as_torch_is_set(baseline.ttm), _torch_cost)
)
_dispatch.register(
    "ttm",
    _dispatch.Implementation("reference", as_torch_is_set(reference.ttm), _reference_cost),
)
