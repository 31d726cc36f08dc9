"""Truncated higher-order SVDs: a basis a mode, from the whole tensor or from what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import _check
from ..convergence import account
from ..precision import matmul_precision
from ..results import TuckerTensor
from ..svd import scaled
from .batch import truncate_batch
from .modewise import order_of_modes, truncate
from .shared import bring, rescaled, result, true_error

__all__ = ["hosvd", "no_tol_of_batch", "sthosvd"]


def hosvd(
    x: Any, rank: Any = None, *, tol: float | None = None, batch_dims: int = 0
) -> TuckerTensor:
    r"""Higher-order SVD: each factor from the full tensor's own unfolding.

    ``U_n`` holds leading left singular vectors of ``unfold(x, n)`` and ``core = x x_n U_n^H`` over
    all modes.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1}), after the axes of a batch
    rank : int, sequence of int, or float, optional
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    tol : float, optional
        In place of ``rank``: the smallest ranks with ``||x - model|| <= tol ||x||`` guaranteed.
        Not of a batch, whose tensors would each have their own.
    batch_dims : int
        Leading axes that index independent tensors; all arrays of the result have them too.

    Returns
    -------
    TuckerTensor
        Iterates as ``core, factors``; ``info.rel_errors`` holds the true relative error. Of a batch
        ``info`` is a `BatchInfo`, ``info[i]`` of one tensor.

    Raises
    ------
    ValueError, TypeError
        If arguments do not fit, or not exactly one of ``rank`` and ``tol`` is given.

    Notes
    -----
    Each mode discards singular values whose squares sum to at most an equal share of what the modes
    before it have left of ``tol^2 ||x||^2`` (of N modes, the first may use an N-th). Gram matrices
    are accumulated in double precision; where ``tol`` asks for more than they resolve, orthogonal
    reductions of the unfolding take their place. `sthosvd` gives the same guarantee at lower cost.

    References
    ----------
    De Lathauwer, De Moor and Vandewalle, SIAM J. Matrix Anal. Appl. 21 (2000).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((6, 7, 8))
    >>> hosvd(x, (2, 3, 4)).core.shape
    (2, 3, 4)
    """
    return _truncated("hosvd", x, rank, tol, None, batch_dims, sequential=False)


def sthosvd(
    x: Any,
    rank: Any = None,
    *,
    tol: float | None = None,
    mode_order: Sequence[int] | None = None,
    batch_dims: int = 0,
) -> TuckerTensor:
    r"""Sequentially truncated higher-order SVD, each mode projected before the next is looked at.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1}), after the axes of a batch
    rank : int, sequence of int, or float, optional
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    tol : float, optional
        In place of ``rank``: ranks are chosen so that ``||x - model|| <= tol ||x||``. Not of a
        batch, whose tensors would each have their own.
    mode_order : sequence of int, optional
        Order in which modes are processed; by default the one that shrinks most first (with
        ``tol``, the shortest first).
    batch_dims : int
        Leading axes that index independent tensors; all arrays of the result have them too, and
        ``mode_order`` counts after them.

    Returns
    -------
    TuckerTensor
        Iterates as ``core, factors``; ``info.rel_errors`` holds the true relative error. Of a batch
        ``info`` is a `BatchInfo`, ``info[i]`` of one tensor.

    Raises
    ------
    ValueError, TypeError
        If arguments do not fit, or not exactly one of ``rank`` and ``tol`` is given.

    Notes
    -----
    The squared error is the sum of the squares of all discarded singular values, so
    each mode may discard an equal share of what is left of ``tol^2 ||x||^2``. With ``tol`` the
    first mode costs a Gram matrix in double precision, 2 I_n prod(I_m) flops. With ``rank``, modes
    of 128 or more and over 3 (rank + 8) use a random sketch with one power step, 8 (rank + 8)
    prod(I_m) flops, seeded so that results repeat.

    **Batches.** Each tensor gets what it would get alone, to rounding and signs. Gram matrices and
    products take chunks of 2^20 elements at a time, eigenvectors are found matrix after matrix, and
    sketches tensor after tensor, as is whatever is larger than a chunk.

    References
    ----------
    Vannieuwenhoven, Vandebril and Meerbergen, SIAM J. Sci. Comput. 34 (2012), theorem 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((6, 7, 8))
    >>> model = sthosvd(x, tol=0.5)
    >>> model.info.rel_errors[-1] <= 0.5
    True
    """
    return _truncated("sthosvd", x, rank, tol, mode_order, batch_dims, sequential=True)


def _truncated(
    op: str,
    x: Any,
    rank: Any,
    tol: float | None,
    mode_order: Any,
    batch_dims: Any,
    sequential: bool,
) -> TuckerTensor:
    tensor, batch = bring(op, x, batch_dims)
    if (rank is None) == (tol is None):
        raise ValueError(
            f"{op}: rank is {rank!r} and tol is {tol!r}; expected exactly one of the two"
        )
    if tol is not None:
        tol = _check.number(op, "tol", tol)
        no_tol_of_batch(op, tol, batch)
    shape = tensor.shape[batch:]
    ranks = None if rank is None else _check.tucker_rank(op, rank, shape)
    order = order_of_modes(op, shape, ranks, mode_order)
    if batch and ranks is not None:
        with torch.no_grad(), matmul_precision("ieee", tensor.device):
            return truncate_batch(op, tensor, batch, ranks, order, sequential=sequential, like=x)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        tensor, squared, scale = scaled(op, tensor)
        core, factors = truncate(tensor, ranks, tol, order, squared, sequential)
        error, _ = true_error(tensor, core, factors, squared)
    goal = f"tol={tol:g}" if ranks is None else f"ranks {ranks}"
    status, message = "converged", f"One pass over the modes, {goal}."
    if tol is not None and error > tol:
        status = "precision_limit"
        message += (
            f" The relative error {error:.3g} is above tol by rounding: the data's type resolves "
            "no less; use float64 data to go further."
        )
    info = account(status, [error], message)
    return result(rescaled(core, scale), factors, info, x)


def no_tol_of_batch(op: str, tol: float | None, batch: int) -> None:
    """Refuse a tolerance for a batch."""
    if batch and tol is not None:
        raise NotImplementedError(
            f"{op}: tol is {tol} and batch_dims is {batch}; the ranks that tol asks for differ "
            "from tensor to tensor, and a stack has one rank a mode; pass rank, or loop over the "
            "tensors"
        )
