"""A tensor as a matrix, one mode against all others, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import _check, arrays

__all__ = ["fold", "unfold"]


def unfold(x: Any, mode: int) -> Any:
    r"""Lay mode ``mode`` of a tensor along the rows of a matrix.

    ``unfold(x, n)[i_n, j] = x[i_0, ..., i_{N-1}]`` with ``j`` running over the other modes in C
    order (the last varies fastest), that is ``moveaxis(x, n, 0).reshape(I_n, -1)``.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
        Any dtype that tensorfast stores, any strides.
    mode : int
        0-based; negative modes count from the end.

    Returns
    -------
    array, shape (I_n, prod of the others)
        A view where strides allow it (always for ``mode=0`` of a contiguous tensor), else a copy.

    Raises
    ------
    ValueError, TypeError
        If ``mode`` is out of range or ``x`` is not a dense numeric array.

    References
    ----------
    Kolda and Bader, "Tensor decompositions and applications", SIAM Review 51 (2009), section 2.4;
    their columns run in the opposite (Fortran) order.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(12.0).reshape(2, 3, 2)
    >>> unfold(x, 1)
    array([[ 0.,  1.,  6.,  7.],
           [ 2.,  3.,  8.,  9.],
           [ 4.,  5., 10., 11.]])
    """
    tensor = arrays.as_tensor("unfold", "x", x)
    _check.storage("unfold", "x", tensor.dtype)
    if tensor.ndim == 0:
        raise ValueError("unfold: x has 0 modes; expected at least 1")
    n = _check.mode("unfold", mode, tensor.ndim)
    rest = math.prod(tensor.shape[:n]) * math.prod(tensor.shape[n + 1 :])
    return arrays.in_kind(tensor.movedim(n, 0).reshape(tensor.shape[n], rest), x)


def fold(m: Any, mode: int, shape: Sequence[int]) -> Any:
    """Undo `unfold`: ``fold(unfold(x, n), n, x.shape) == x``.

    Parameters
    ----------
    m : array, shape (I_n, prod of the others)
    mode : int
        0-based; negative modes count from the end.
    shape : sequence of int
        Shape of the tensor to return.

    Returns
    -------
    array, shape ``shape``
        A view where strides allow it.

    Raises
    ------
    ValueError, TypeError
        If ``m`` does not have the shape that unfolding a tensor of ``shape`` would give.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(12.0).reshape(2, 3, 2)
    >>> bool((fold(unfold(x, 2), 2, x.shape) == x).all())
    True
    """
    matrix = arrays.as_tensor("fold", "m", m)
    _check.storage("fold", "m", matrix.dtype)
    if not isinstance(shape, Sequence):
        raise TypeError(f"fold: shape is {shape!r}; expected a sequence of integers")
    sizes = [_check.whole_number("fold", f"shape[{k}]", s, 0) for k, s in enumerate(shape)]
    n = _check.mode("fold", mode, len(sizes))
    rest = sizes[:n] + sizes[n + 1 :]
    expected = (sizes[n], math.prod(rest))
    if tuple(matrix.shape) != expected:
        raise ValueError(
            f"fold: m has shape {tuple(matrix.shape)}; expected {expected} for mode {n} of a "
            f"tensor of shape {tuple(sizes)}"
        )
    return arrays.in_kind(matrix.reshape([sizes[n], *rest]).movedim(0, n), m)
