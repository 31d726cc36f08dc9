"""Truncated singular value decompositions for TensorLy's ``svd=`` arguments."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from tensorly.tenalg.svd import truncated_svd as full_svd

from ... import svd as own
from .operands import operands

__all__ = ["svd"]


def svd(
    matrix: Any, n_eigenvecs: int | None = None, *, random_state: Any = None, **options: Any
) -> tuple[Any, Any, Any]:
    """Leading singular triplets, for ``svd=`` in TensorLy's decompositions.

    Parameters
    ----------
    matrix : array, shape (m, n)
    n_eigenvecs : int, optional
        Number of triplets; by default, and at most, ``min(m, n)``.
    random_state : int, RandomState or Generator of NumPy, optional
        Where a sketch draws from; None draws the same each time.
    **options
        What TensorLy gives to other methods; not looked at.

    Returns
    -------
    U, S, V : array, shapes (m, n_eigenvecs), (n_eigenvecs,), (n_eigenvecs, n)
        In each column of U the entry of largest modulus is real and positive already.

    Raises
    ------
    ValueError
        If ``matrix`` is none, or not finite.

    Warns
    -----
    UserWarning
        If more triplets are asked for than there are.

    Notes
    -----
    See `tensorfast.truncated_svd`: a sketch of a few more columns than asked for where they are
    few, Gram matrices in float64 where the matrix is narrow. Where TensorLy resolves signs
    (``flip_sign``, its default), it does so after this function, column by column.

    Examples
    --------
    >>> import numpy as np
    >>> from tensorly.tenalg import svd_interface
    >>> u, s, v = svd_interface(np.diag([3.0, 2.0, 1.0]), method=svd, n_eigenvecs=2)
    >>> bool(np.allclose(s, [3.0, 2.0]))
    True
    """
    if matrix.ndim != 2:
        raise ValueError(f"svd: got an array with {matrix.ndim} modes; expected a matrix")
    shortest = min(matrix.shape)
    if n_eigenvecs is not None and n_eigenvecs > shortest:
        warnings.warn(
            f"svd: n_eigenvecs is {n_eigenvecs} but the shape {tuple(matrix.shape)}; {shortest} "
            "are returned",
            stacklevel=2,
        )
    given = operands(matrix)
    if given is None or any(a.requires_grad for a in given.tensors):
        return full_svd(matrix, n_eigenvecs=n_eigenvecs)
    rank = shortest if n_eigenvecs is None else min(n_eigenvecs, shortest)
    (a,) = given.tensors
    u, s, vh = own.truncated_svd(a, rank, seed=_seed(random_state))
    return given.answer(u), given.answer(s), given.answer(vh)


def _seed(random_state: Any) -> int:
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(random_state)
