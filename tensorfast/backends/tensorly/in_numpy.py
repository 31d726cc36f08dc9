"""What `tensorfast.baseline` does, by NumPy's products: for what comes from NumPy.

NumPy's products have threads of their own, which go on looking for work for 25 milliseconds after
each. Torch's, called in between as TensorLy's loops would have it, then wait for a core: 200^3, R
64, two cores, a matrix product in 15.6 ms instead of 7.4, a sum of products in 15.6 instead of 0.2.

Operands are tensors that share NumPy's memory, in C order but for factors, of one type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...baseline import conjugate, ranges
from ...blocks import by_stride
from ...matmul import BLOCK, LONG, SHORT, sum_of_parts

__all__ = [
    "contract_data",
    "contract_partial",
    "contract_sides",
    "copy",
    "equal",
    "in_double",
    "khatri_rao",
    "khatri_rao_operand",
    "mttkrp",
    "ttm",
]


#: As in `tensorfast.matmul`: 5.8 and 1.0 ms as 3 x 3, 0.6 and 0.5 as 8 x 8, 0.30 and 0.33 as
#: 16 x 16.
TINY = 100


def _product(a: Any, b: Any, room: Tensor | None = None) -> Any:
    """Multiply matrices, or batches of them, into ``room`` where that is large enough."""
    return sum_of_parts(np.matmul, a, b, _within(room, (*a.shape[:-1], b.shape[-1])))


def _within(room: Tensor | None, shape: tuple[int, ...]) -> Any:
    size = math.prod(shape)
    return None if room is None or room.numel() < size else room.numpy()[:size].reshape(shape)


def contract_data(x: Tensor, lo: int, hi: int, k: Tensor, room: Tensor | None = None) -> Tensor:
    """Contract modes ``lo ... hi-1`` of ``x`` with ``k [prod of those, R]``; R comes last."""
    left, right = math.prod(x.shape[:lo]), math.prod(x.shape[hi:])
    data, matrix = x.numpy().reshape(left, -1, right), k.numpy()
    if right == 1:
        product = _product(data[:, :, 0], matrix, room)
    elif left == 1:
        product = _product(data[0].T, matrix, room)
    elif data[0].size <= TINY:
        product = _within(room, (left, right, k.shape[1]))
        product = np.empty((left, right, k.shape[1]), matrix.dtype) if product is None else product
        for a, b in ranges(left, right * max(matrix.shape), BLOCK):
            rows = data[a:b].swapaxes(1, 2).reshape(-1, len(matrix))
            np.matmul(rows, matrix, out=product[a:b].reshape(len(rows), -1))
    else:
        product = _product(data.swapaxes(1, 2), matrix, room)
    return torch.from_numpy(product.reshape(*x.shape[:lo], *x.shape[hi:], k.shape[1]))


def contract_partial(p: Tensor, lo: int, hi: int, k: Tensor) -> Tensor:
    """Contract modes ``lo ... hi-1`` of a partial result ``p [..., R]``, column by column."""
    left, rank = math.prod(p.shape[:lo]), p.shape[-1]
    data, rows = p.numpy().reshape(left, len(k), -1, rank), k.numpy()
    # It adds one term after another.
    parts = (np.einsum("lgtr,gr->ltr", data[:, a:b], rows[a:b]) for a, b in ranges(len(k), 1, LONG))
    total = next(parts)
    for part in parts:
        total += part
    return torch.from_numpy(total.reshape(*p.shape[:lo], *p.shape[hi:]))


def contract_sides(x: Tensor, lo: int, hi: int, k_left: Tensor, k_right: Tensor) -> Tensor:
    """Contract all modes but ``lo ... hi-1``, in slabs whose result is used up while in cache."""
    left, right, rank = len(k_left), len(k_right), k_left.shape[1]
    data = x.view(left, -1, right)
    middle = data.shape[1]
    out = torch.from_numpy(np.zeros((middle, rank), k_left.numpy().dtype))
    if left * right <= SHORT and rank > max(left, right):
        # A copy is shorter than what comes of either side.
        both = khatri_rao([k_left, k_right]).numpy()
        for a, b in ranges(middle, left * right, BLOCK):
            rows = data[:, a:b].numpy().swapaxes(0, 1).reshape(b - a, -1)
            out.numpy()[a:b] = _product(rows, both)
        return out.view(*x.shape[lo:hi], rank)
    if right >= left:
        for a, b in ranges(left, middle * rank, BLOCK):
            slab = contract_data(data[a:b], 2, 3, k_right)
            out.numpy()[...] += contract_partial(slab, 0, 1, k_left[a:b]).numpy()
    else:
        columns = data.view(left, middle * right)
        for a, b in ranges(middle, right * rank, BLOCK):
            slab = contract_data(columns[:, a * right : b * right], 0, 1, k_left)
            slab = slab.view(b - a, right, rank)
            out.numpy()[a:b] = contract_partial(slab, 1, 2, k_right).numpy()
    return out.view(*x.shape[lo:hi], rank)


def khatri_rao(factors: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """Columnwise Kronecker product, the first index slowest."""
    out, *others = (factor.numpy() for factor in factors)
    out = out if weights is None else out * weights.numpy()
    for factor in others:
        out = (out[:, None] * factor).reshape(-1, factor.shape[1])
    return torch.from_numpy(out)


def khatri_rao_operand(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Khatri-Rao product, for a product with all of ``x``."""
    return khatri_rao(factors)


def mttkrp(x: Tensor, others: Sequence[Tensor], mode: int) -> Tensor:
    """Matricised tensor times Khatri-Rao product; see `tensorfast.mttkrp`."""
    order = by_stride(x)
    x, at = x.permute(order), order.index(mode)
    given = [conjugate(factor) for factor in others]
    given.insert(mode, given[0])
    ordered = [given[n] for n in order]
    if at == 0:
        return contract_data(x, 1, x.ndim, khatri_rao(ordered[1:]))
    if at == x.ndim - 1:
        return contract_data(x, 0, at, khatri_rao(ordered[:at]))
    return contract_sides(x, at, at + 1, khatri_rao(ordered[:at]), khatri_rao(ordered[at + 1 :]))


def ttm(x: Tensor, matrix: Tensor, mode: int, transpose: bool = False) -> Tensor:
    """N-mode product; see `tensorfast.ttm`. No unfolding is copied whole."""
    order = by_stride(x)
    at, inverse = order.index(mode), sorted(range(x.ndim), key=order.__getitem__)
    x = x.permute(order)
    data = x.numpy().reshape(math.prod(x.shape[:at]), x.shape[at], -1)
    a = (conjugate(matrix).t() if transpose else matrix).numpy()
    if data.shape[2] == 1:
        product = _product(data[:, :, 0], a.T)
    elif len(data) == 1:
        product = _product(a, data[0])
    elif data[0].size <= TINY:
        left, size, right = data.shape
        product = np.empty((len(a), left * right), a.dtype)
        for lo, hi in ranges(left, size * right, BLOCK):
            rows = data[lo:hi].swapaxes(0, 1).reshape(size, -1)
            np.matmul(a, rows, out=product[:, lo * right : hi * right])
        product = product.reshape(len(a), left, right).swapaxes(0, 1)
    else:
        product = _product(a, data)
    shape = [*x.shape[:at], len(a), *x.shape[at + 1 :]]
    return torch.from_numpy(product.reshape(shape)).permute(inverse)


def in_double(matrix: Tensor, vector: Tensor) -> Tensor:
    """Multiply a matrix of integers by a vector in double precision, in blocks."""
    data, numbers = matrix.numpy(), vector.numpy()
    out = np.empty(len(data))
    for a, b in ranges(len(data), len(numbers), BLOCK):
        np.matmul(data[a:b].astype(numbers.dtype), numbers, out=out[a:b])
    return torch.from_numpy(out)


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers."""
    return np.array_equal(a.numpy(), b.numpy())


def copy(a: Tensor) -> Tensor:
    """Copy a tensor."""
    return torch.from_numpy(a.numpy().copy())
