"""TensorLy's tensor algebra on tensorfast's operations, with TensorLy's signatures and results.

Each function takes what it can serve, and hands the rest to TensorLy's own of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

from tensorly.tenalg import core_tenalg as core
from tensorly.tenalg.tenalg_utils import _validate_contraction_modes
from torch import Tensor

from ... import baseline, ops
from ...blocks import SLAB
from . import sharing
from .operands import Operands, operands

__all__ = [
    "higher_order_moment",
    "khatri_rao",
    "mode_dot",
    "multi_mode_dot",
    "tensordot",
    "unfolding_dot_khatri_rao",
]

#: Multiplications of a product on a CPU below which calls are what takes the time, and TensorLy's
#: functions have fewer: on one core a mode's product takes 0.1 ms there, of which ours are 0.015
#: (64^3 by 16 rows: 0.9 to 1.2 times its speed, by 4: 0.8), and an MTTKRP of three modes likewise
#: (60^3, R 8, NumPy: 0.37 ms a sweep, 0.45 with ours). Of more modes TensorLy's have more calls: a
#: quarter.
SMALL = 1 << 22


def mode_dot(tensor: Any, matrix_or_vector: Any, mode: int, transpose: bool = False) -> Any:
    """N-mode product: with a matrix, its conjugate transpose, or a vector, whose mode goes."""
    served = _has(tensor, mode) and not _small(tensor, _columns_of(matrix_or_vector, tensor, mode))
    given = operands(tensor, matrix_or_vector) if served else None
    if given is None:
        return core.mode_dot(tensor, matrix_or_vector, mode, transpose)
    x, a = given.tensors
    mode %= x.ndim
    # A vector has nothing to transpose, and is not conjugated either.
    product = _product("mode_dot", given, x, a, mode, transpose and a.ndim == 2)
    return given.answer(product.squeeze(mode) if a.ndim == 1 else product)


def multi_mode_dot(
    tensor: Any,
    matrix_or_vec_list: Sequence[Any],
    modes: Sequence[int] | None = None,
    skip: int | None = None,
    transpose: bool = False,
) -> Any:
    """N-mode products along several modes, the one that shrinks the tensor most first.

    ``skip`` is a position in the list, sorted by mode.
    """
    named = range(len(matrix_or_vec_list)) if modes is None else modes
    pairs = sorted(zip(named, matrix_or_vec_list, strict=False), key=lambda pair: pair[0])
    work = [pair for position, pair in enumerate(pairs) if position != skip]
    # Modes that are given twice, or from the end, mean what TensorLy makes of them.
    served = bool(work) and _ascend([mode for mode, _ in work], tensor.ndim)
    served = served and not _small(tensor, _columns_of_first(work, tensor))
    given = operands(tensor, *(matrix for _, matrix in work)) if served else None
    if given is None:
        return core.multi_mode_dot(tensor, matrix_or_vec_list, modes, skip, transpose)
    x, *matrices = given.tensors
    left = [(mode, a) for (mode, _), a in zip(work, matrices, strict=True)]
    gone = [mode for mode, a in left if a.ndim == 1]
    while left:
        mode, a = min(left, key=lambda pair: _kept(pair[1], transpose))
        left = [pair for pair in left if pair[0] != mode]
        a = baseline.conjugate(a) if transpose and a.ndim == 1 else a
        x = _product("multi_mode_dot", given, x, a, mode, transpose and a.ndim == 2)
    for mode in reversed(gone):
        x = x.squeeze(mode)
    return given.answer(x)


def _small(tensor: Any, columns: float) -> bool:
    """Whether a product with so many columns is too small for our calls to be worth it."""
    return math.prod(tensor.shape) * columns < SMALL and not getattr(tensor, "is_cuda", False)


def _columns_of(array: Any, tensor: Any, mode: int) -> float:
    """Return how many vectors there are in what a mode is multiplied by."""
    return math.prod(getattr(array, "shape", ())) / max(1, tensor.shape[mode])


def _columns_of_first(work: Sequence[tuple[int, Any]], tensor: Any) -> float:
    """Return the same of the product that leaves least, which goes first."""
    columns = [(_columns_of(a, tensor, mode), max(1, tensor.shape[mode])) for mode, a in work]
    return min(columns, key=lambda pair: pair[0] / pair[1])[0]


def _has(tensor: Any, mode: Any) -> bool:
    return isinstance(mode, Integral) and -tensor.ndim <= mode < tensor.ndim


def _ascend(modes: Sequence[int], ndim: int) -> bool:
    """Whether modes are each given once, and counted from the front."""
    return all(a < b for a, b in pairwise([-1, *modes, ndim]))


def _kept(a: Tensor, transpose: bool) -> float:
    """Return which part of a mode is left by the product with a matrix or a vector."""
    if a.ndim != 2:
        return 1 / a.numel()
    return a.shape[1] / a.shape[0] if transpose else a.shape[0] / a.shape[1]


def _product(op: str, given: Operands, x: Tensor, a: Tensor, mode: int, transpose: bool) -> Tensor:
    """Multiply along a mode; a vector leaves it with one index."""
    if a.ndim not in (1, 2):
        raise ValueError(f"{op}: got an array with {a.ndim} modes; expected a matrix or a vector")
    matrix = a[None] if a.ndim == 1 else a
    if matrix.shape[0 if transpose else 1] != x.shape[mode]:
        raise ValueError(
            f"{op}: got a tensor of shape {tuple(x.shape)} and a factor of shape {tuple(a.shape)}; "
            f"expected {x.shape[mode]}, the size of mode {mode}, "
            f"{'first' if transpose else 'last'}"
        )
    if given.by:
        return given.by.ttm(x, matrix, mode, transpose)
    return ops.ttm(x, matrix, mode, transpose=transpose, precision=None)


def khatri_rao(
    matrices: Sequence[Any],
    weights: Any = None,
    skip_matrix: int | None = None,
    mask: Any = None,
) -> Any:
    """Columnwise Kronecker product, times weights of columns and a mask of rows.

    TensorLy drops both where one matrix is left.
    """
    left = [a for n, a in enumerate(matrices) if n != skip_matrix]
    given = operands(*left, *([] if weights is None else [weights]))
    if given is None or any(a.ndim != 2 for a in left):
        return core.khatri_rao(matrices, weights, skip_matrix, mask)
    factors = given.tensors[: len(left)]
    scale = None if weights is None else given.tensors[-1]
    scale = _columns("khatri_rao", factors, scale)
    if len(left) == 1 and weights is None:
        out = left[0]
    elif given.by:
        out = given.answer(given.by.khatri_rao(factors, scale))
    else:
        out = given.answer(ops.khatri_rao(factors, scale))
    return out if mask is None else out * mask.reshape(-1, 1)


def _columns(op: str, factors: Sequence[Tensor], weights: Tensor | None) -> Tensor | None:
    """Return a weight for each column; one alone is every column's."""
    columns = [f.shape[1] for f in factors]
    given = columns[0] if weights is None or weights.numel() == 1 else weights.numel()
    if len({*columns, given}) > 1:
        raise ValueError(
            f"{op}: got {columns} columns and {given} weights; expected as many of each"
        )
    return None if weights is None else weights.reshape(-1).expand(given)


def unfolding_dot_khatri_rao(tensor: Any, cp_tensor: Any, mode: int) -> Any:
    """MTTKRP, times the conjugate weights; TensorLy drops those of a matrix.

    A negative mode counts from the end.
    """
    weights, factors = cp_tensor
    count = len(factors)
    if not isinstance(mode, Integral) or not -count <= mode < count:
        return core.unfolding_dot_khatri_rao(tensor, (weights, factors), mode)
    mode %= count
    others = [factor for n, factor in enumerate(factors) if n != mode]
    _same_rows("unfolding_dot_khatri_rao", tensor, others, mode)
    # Of a matrix TensorLy would drop the weights.
    columns = others[0].shape[1] if others else 1
    small = count > 2 and _small(tensor, columns if count == 3 else 4 * columns)
    given = None if small else operands(tensor, *others, *([] if weights is None else [weights]))
    if given is None or not others:
        return core.unfolding_dot_khatri_rao(tensor, (weights, factors), mode)
    x, *matrices = given.tensors
    scale = None if weights is None else matrices.pop()
    scale = _columns("unfolding_dot_khatri_rao", matrices, scale)
    if not given.by:
        matrices.insert(mode, matrices[0])
        return given.answer(ops.mttkrp(x, matrices, mode, scale, precision=None))
    product = given.answer(sharing.mttkrp(tensor, x, matrices, mode, given.by))
    if scale is not None:
        product = product * given.answer(baseline.conjugate(scale))
    return sharing.hand_over(product)


def _same_rows(op: str, tensor: Any, others: Sequence[Any], mode: int) -> None:
    """Refuse factors whose Khatri-Rao product alone has the length that it should."""
    shape = tuple(tensor.shape)
    shapes = [tuple(factor.shape) for factor in others]
    rows = [size for n, size in enumerate(shape) if n != mode]
    if (
        len(shape) != len(others) + 1
        or any(len(s) != 2 for s in shapes)
        or rows != [s[0] for s in shapes]
    ):
        raise ValueError(
            f"{op}: got a tensor of shape {shape} and, besides that of mode {mode}, factors of "
            f"shapes {shapes}; expected matrices with {rows} rows"
        )


def tensordot(tensor1: Any, tensor2: Any, modes: Any, batched_modes: Any = ()) -> Any:
    """Contraction over pairs of modes; over one with a matrix's, without a copy of the tensor."""
    matrix = tensor2.ndim == 2 and tensor1.ndim > 1 and not _any(batched_modes)
    if not matrix or _small(tensor1, max(tensor2.shape)):
        return core.tensordot(tensor1, tensor2, modes, batched_modes)
    modes1, modes2 = _validate_contraction_modes(tensor1.shape, tensor2.shape, modes)
    given = operands(tensor1, tensor2) if len(modes1) == 1 else None
    if given is None:
        return core.tensordot(tensor1, tensor2, modes, batched_modes)
    x, a = given.tensors
    product = _product("tensordot", given, x, a.t() if modes2[0] == 0 else a, modes1[0], False)
    return given.answer(product.movedim(modes1[0], -1))


def _any(batched_modes: Any) -> bool:
    return isinstance(batched_modes, Integral) or len(batched_modes) > 0


def higher_order_moment(tensor: Any, order: int) -> Any:
    """Mean over samples of the outer product of each with itself, ``order`` times.

    As one matrix product: no outer product of a sample is formed but those of half the order.
    TensorLy's own raises a TypeError from order 2 on.
    """
    given = operands(tensor)
    if given is None or order < 2:
        return core.higher_order_moment(tensor, order)
    (x,) = given.tensors
    if x.ndim < 2:
        raise ValueError(
            f"higher_order_moment: got shape {tuple(x.shape)}; expected (samples, features, ...)"
        )
    rows = x.reshape(len(x), -1).t()
    lower, upper = order // 2, order - order // 2
    moment = x.new_zeros(len(rows) ** lower, len(rows) ** upper)
    # Of all samples together the halves may be larger than the moment itself.
    for part in rows.split(max(1, SLAB // len(rows) ** upper), dim=1):
        moment = moment + (
            baseline.khatri_rao([part] * lower) @ baseline.khatri_rao([part] * upper).t()
        )
    return given.answer((moment / len(x)).reshape(x.shape[1:] * order))
