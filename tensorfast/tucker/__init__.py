"""Tucker decompositions."""

from __future__ import annotations

from typing import Any

from .._dispatch import describe_method
from ..results import TuckerTensor
from .explained import planned
from .iteration import hooi
from .truncation import hosvd, no_tol_of_batch, sthosvd

__all__ = ["hooi", "hosvd", "sthosvd", "tucker"]


def tucker(
    x: Any,
    rank: Any = None,
    *,
    tol: float | None = None,
    method: str = "hooi",
    batch_dims: int = 0,
) -> TuckerTensor:
    r"""Tucker decomposition, ``x ~ core x_0 U_0 x_1 U_1 ...`` with orthonormal factors.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1}), after the axes of a batch
    rank : int, sequence of int, or float, optional
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    tol : float, optional
        In place of ``rank``: a bound on the relative error.
    method : {"hooi", "sthosvd", "hosvd"}
        With ``tol``, ``"hooi"`` improves the model that `sthosvd` finds for it, at the same ranks.
    batch_dims : int
        Leading axes that index independent tensors; all arrays of the result have them too. With
        ``rank`` only.

    Returns
    -------
    TuckerTensor
        Iterates as ``core, factors``.

    Raises
    ------
    ValueError, TypeError
        If arguments do not fit, or not exactly one of ``rank`` and ``tol`` is given.

    See Also
    --------
    hooi, sthosvd, hosvd

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((6, 7, 8))
    >>> tucker(x, 2, method="sthosvd").core.shape
    (2, 2, 2)
    """
    if method == "hosvd":
        return hosvd(x, rank, tol=tol, batch_dims=batch_dims)
    if method == "sthosvd":
        return sthosvd(x, rank, tol=tol, batch_dims=batch_dims)
    if method != "hooi":
        raise ValueError(f"tucker: method is {method!r}; expected 'hooi', 'sthosvd' or 'hosvd'")
    if (rank is None) == (tol is None):
        raise ValueError(
            f"tucker: rank is {rank!r} and tol is {tol!r}; expected exactly one of the two"
        )
    if tol is None:
        return hooi(x, rank, batch_dims=batch_dims)
    no_tol_of_batch("tucker", tol, batch_dims)
    start = sthosvd(x, tol=tol)
    return hooi(x, start.rank, init=start)


describe_method("hooi", planned)
