"""Truncated higher-order SVDs: a basis a mode, from the whole tensor or from what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..convergence import account
from ..ops import direct
from ..precision import matmul_precision
from ..results import TuckerTensor
from ..svd import scaled
from .shared import bring, rescaled, result, true_error
from .subspace import basis_of_rank, basis_within

__all__ = ["hosvd", "order_of_modes", "sthosvd", "truncate"]


def hosvd(x: Any, rank: Any = None, *, tol: float | None = None) -> TuckerTensor:
    r"""Higher-order SVD: each factor from the full tensor's own unfolding.

    ``U_n`` holds leading left singular vectors of ``unfold(x, n)`` and ``core = x x_n U_n^H`` over
    all modes.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    rank : int, sequence of int, or float, optional
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    tol : float, optional
        In place of ``rank``: the smallest ranks with ``||x - model|| <= tol ||x||`` guaranteed.

    Returns
    -------
    TuckerTensor
        Iterates as ``core, factors``; ``info.rel_errors`` holds the true relative error.

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
    return _truncated("hosvd", x, rank, tol, None, sequential=False)


def sthosvd(
    x: Any, rank: Any = None, *, tol: float | None = None, mode_order: Sequence[int] | None = None
) -> TuckerTensor:
    r"""Sequentially truncated higher-order SVD, each mode projected before the next is looked at.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    rank : int, sequence of int, or float, optional
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    tol : float, optional
        In place of ``rank``: ranks are chosen so that ``||x - model|| <= tol ||x||``.
    mode_order : sequence of int, optional
        Order in which modes are processed; by default the one that shrinks most first (with
        ``tol``, the shortest first).

    Returns
    -------
    TuckerTensor
        Iterates as ``core, factors``; ``info.rel_errors`` holds the true relative error.

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
    return _truncated("sthosvd", x, rank, tol, mode_order, sequential=True)


def _truncated(
    op: str, x: Any, rank: Any, tol: float | None, mode_order: Any, sequential: bool
) -> TuckerTensor:
    tensor = bring(op, x)
    if (rank is None) == (tol is None):
        raise ValueError(
            f"{op}: rank is {rank!r} and tol is {tol!r}; expected exactly one of the two"
        )
    if tol is not None:
        tol = _check.number(op, "tol", tol)
    ranks = None if rank is None else _check.tucker_rank(op, rank, tensor.shape)
    order = order_of_modes(op, tensor.shape, ranks, mode_order)
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


def order_of_modes(
    op: str, shape: Sequence[int], ranks: Sequence[int] | None, given: Any
) -> tuple[int, ...]:
    """Return the order in which modes are truncated."""
    if given is not None:
        order = _check.modes(op, given, len(shape), "mode_order")
        if len(order) != len(shape):
            raise ValueError(f"{op}: mode_order is {tuple(given)}; expected all {len(shape)} modes")
        return order
    if ranks is None:
        return tuple(sorted(range(len(shape)), key=lambda n: shape[n]))
    return tuple(sorted(range(len(shape)), key=lambda n: (ranks[n] / shape[n], shape[n])))


def truncate(
    x: Tensor,
    ranks: Sequence[int] | None,
    tol: float | None,
    order: Sequence[int],
    squared_norm: float,
    sequential: bool,
    rng: torch.Generator | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return core and factors, from ranks or from a bound on the relative error."""
    core = x
    factors: list[Tensor] = [core] * x.ndim
    # Rounding of factors and core must not eat into the guarantee.
    slack = 1.0 - 1e-3
    left = (slack * tol) ** 2 * squared_norm if tol is not None else 0.0
    for place, n in enumerate(order):
        source, projected = core if sequential else x, None
        if ranks is not None:
            factors[n], projected = basis_of_rank(source, n, ranks[n], sequential, rng)
        else:
            share = left / (len(order) - place)
            factors[n], spent = basis_within(source, n, share, squared_norm, sequential)
            left -= spent
        if projected is None:
            projected = direct.ttm(core, factors[n], n, transpose=True)
        core = projected
    return core, factors
