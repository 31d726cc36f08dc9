"""Tucker decompositions: HOSVD, sequentially truncated HOSVD, and orthogonal iteration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _check, arrays, baseline
from .precision import (
    compute_dtype,
    explicit_residual_below,
    matmul_precision,
    precision_floor,
    solve_dtype,
)
from .progress import progress_bar
from .reconstruct import bring_tucker, tucker_residual_norm
from .results import ConvergenceInfo, TuckerTensor
from .svd import GRAM_UP_TO, gaussian, generator, leading_subspace, orthonormal, tail_cut

__all__ = ["hooi", "hosvd", "sthosvd", "tucker"]

#: Steps of subspace iteration on a mode's small projected tensor in one update of HOOI.
INNER_STEPS = 3


def hosvd(x: Any, rank: Any = None, *, tol: float | None = None) -> TuckerTensor:
    r"""Higher-order SVD: each factor from the full tensor's own unfolding.

    ``U_n`` holds leading left singular vectors of ``unfold(x, n)`` and ``core = x x_n U_n^H`` over all modes.

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
    Each mode discards singular values whose squares sum to at most ``tol^2 ||x||^2 / N``. Gram matrices are
    accumulated in double precision; where ``tol`` asks for more than they resolve, orthogonal reductions
    of the unfolding take their place. `sthosvd` gives the same guarantee at lower cost.

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
        Order in which modes are processed; by default the one that shrinks most first (with ``tol``, the
        shortest first).

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
    The squared error is the sum of the squares of all discarded singular values, so each mode may
    discard an equal share of what is left of ``tol^2 ||x||^2``. With ``rank``, modes longer than 512 use a
    randomised range finder (two reads and one power step). First mode: 2 I_n prod(I_m) flops in double
    precision.

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


def _bring(op: str, x: Any) -> Tensor:
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    _check.modes_at_least(op, tensor, 1)
    _check.nonempty(op, tensor)
    return tensor


def _squared_norm(op: str, x: Tensor) -> float:
    squared = float(baseline.sum_of_squares(x))
    if not math.isfinite(squared):
        _check.finite(op, x)
    return squared


def _truncated(
    op: str, x: Any, rank: Any, tol: float | None, mode_order: Any, sequential: bool
) -> TuckerTensor:
    tensor = _bring(op, x)
    if (rank is None) == (tol is None):
        raise ValueError(f"{op}: rank is {rank!r} and tol is {tol!r}; expected exactly one of the two")
    if tol is not None:
        tol = _check.number(op, "tol", tol)
    ranks = None if rank is None else _check.tucker_rank(op, rank, tensor.shape)
    order = _order(op, tensor.shape, ranks, mode_order)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        squared = _squared_norm(op, tensor)
        core, factors = _truncate(tensor, ranks, tol, order, squared, sequential)
        error = _true_error(tensor, core, factors, squared)
    goal = f"tol={tol:g}" if ranks is None else f"ranks {ranks}"
    info = _info([error], "converged", f"One pass over the modes, {goal}.")
    return _result(core, factors, info, x)


def _order(
    op: str, shape: Sequence[int], ranks: Sequence[int] | None, given: Any
) -> tuple[int, ...]:
    if given is not None:
        order = _check.modes(op, given, len(shape), "mode_order")
        if len(order) != len(shape):
            raise ValueError(f"{op}: mode_order is {tuple(given)}; expected all {len(shape)} modes")
        return order
    if ranks is None:
        return tuple(sorted(range(len(shape)), key=lambda n: shape[n]))
    return tuple(sorted(range(len(shape)), key=lambda n: (ranks[n] / shape[n], shape[n])))


def _truncate(
    x: Tensor,
    ranks: Sequence[int] | None,
    tol: float | None,
    order: Sequence[int],
    squared_norm: float,
    sequential: bool,
    rng: torch.Generator | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return core and factors, from ranks or from a bound on the relative error."""
    core = x.to(compute_dtype(x.dtype)) if x.ndim == 1 else x
    factors: list[Tensor] = [core] * x.ndim
    # Rounding of factors and core must not eat into the guarantee.
    slack = 1.0 - 1e-3
    left = (slack * tol) ** 2 * squared_norm if tol is not None else 0.0
    for place, n in enumerate(order):
        source = core if sequential else x
        if ranks is not None:
            factors[n] = _leading(source, n, ranks[n], rng)
        else:
            share = left / (len(order) - place)
            factors[n], spent = _within(source, n, share, squared_norm)
            left -= spent
        core = baseline.ttm(core, factors[n], n, transpose=True)
    return core, factors


def _leading(x: Tensor, mode: int, rank: int, rng: torch.Generator | None) -> Tensor:
    """Return the ``rank`` leading left singular vectors of an unfolding."""
    if rank == x.shape[mode]:
        return torch.eye(rank, dtype=compute_dtype(x.dtype), device=x.device)
    if x.shape[mode] > GRAM_UP_TO and 4 * rank < x.shape[mode]:
        rng = generator("sthosvd", 0, x.device) if rng is None else rng
        return leading_subspace(x, mode, rank, rng)
    squares, vectors = _spectrum(x, mode)
    # A Gram matrix in double precision resolves squares down to 1e-16 of the largest.
    if squares[rank - 1] < 1e-12 * squares[0] and x.dtype in (torch.float64, torch.complex128):
        _, vectors = _orthogonal_spectrum(x, mode)
    return vectors[:, :rank].to(compute_dtype(x.dtype))


def _within(x: Tensor, mode: int, budget: float, squared_norm: float) -> tuple[Tensor, float]:
    """Return the fewest left singular vectors whose omitted squares stay within ``budget``, and their sum."""
    fine = budget < 1e-12 * squared_norm and x.dtype in (torch.float64, torch.complex128)
    squares, vectors = _orthogonal_spectrum(x, mode) if fine else _spectrum(x, mode)
    rank = tail_cut(squares, budget)
    spent = float(squares[rank:].clamp(min=0).sum())
    return vectors[:, :rank].to(compute_dtype(x.dtype)), spent


def _spectrum(x: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """Squared singular values, descending, and left singular vectors of an unfolding, by its Gram matrix."""
    if x.shape[mode] ** 2 > x.numel():
        return _orthogonal_spectrum(x, mode)
    values, vectors = torch.linalg.eigh(baseline.gram(x, mode, solve_dtype(x.dtype)))
    return values.flip(0), vectors.flip(1)


def _orthogonal_spectrum(x: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """The same by orthogonal reductions only, which resolve singular values down to rounding."""
    dtype = solve_dtype(x.dtype)
    size = x.shape[mode]
    rest = x.numel() // size
    if size > rest:
        u, s, _ = torch.linalg.svd(x.movedim(mode, 0).to(dtype).reshape(size, rest), full_matrices=False)
        return s**2, u
    # A running QR factorisation of the transposed unfolding, block by block.
    axis = 0 if mode else x.ndim - 1
    triangle = x.new_zeros(0, size, dtype=dtype)
    step = max(1, 4 * size * x.shape[axis] // x.numel())
    for block in x.split(max(step, x.shape[axis] * size * 4 // x.numel()), axis):
        rows = block.movedim(mode, -1).to(dtype).reshape(-1, size)
        triangle = torch.linalg.qr(torch.cat([triangle, rows]), mode="r").R
    u, s, _ = torch.linalg.svd(triangle.mT, full_matrices=False)
    return s**2, u


def hooi(
    x: Any,
    rank: Any,
    *,
    init: Any = "sthosvd",
    n_iter_max: int = 50,
    tol: float = 1e-6,
    batch_dims: int = 0,
    seed: int | torch.Generator | None = None,
    callback: Callable[[int, float, Any], bool] | None = None,
    progress: bool = False,
) -> TuckerTensor:
    r"""Higher-order orthogonal iteration: the best Tucker model of given ranks that alternation finds.

    Maximises ``||x x_0 U_0^H x_1 U_1^H ...||`` over one orthonormal factor at a time.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    rank : int, sequence of int, or float
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    init : {"sthosvd", "random"}, TuckerTensor or (core, factors)
        A given model is not modified.
    n_iter_max : int
        Sweeps at most.
    tol : float
        Stop once the relative error changes by less than ``tol`` between sweeps; 0 runs all sweeps.
    batch_dims : int
        Leading axes that index independent tensors. This version takes 0.
    seed : int or torch.Generator, optional
    callback : callable, optional
        ``callback(sweep, error, factors) -> bool`` after each sweep; True stops.
    progress : bool
        Show a tqdm bar with the error in it.

    Returns
    -------
    TuckerTensor
        Iterates as ``core, factors``; factors have orthonormal columns.

    Raises
    ------
    ValueError, TypeError
        If arguments do not fit.

    Notes
    -----
    No SVD of an unfolding: each update takes a few steps of subspace iteration, warm-started from the
    current factor, on the small projected tensor. A sweep reads ``x`` twice: the modes form a binary tree
    whose halves share their projections.

    References
    ----------
    De Lathauwer, De Moor and Vandewalle, SIAM J. Matrix Anal. Appl. 21 (2000), 1324; Sun and Huang,
    "HOQRI", arXiv:2112.10855 (the update by QR).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((6, 7, 8))
    >>> core, factors = hooi(x, 2, seed=0)
    >>> [f.shape for f in factors]
    [(6, 2), (7, 2), (8, 2)]
    """
    op = "hooi"
    tensor = _bring(op, x)
    _check.modes_at_least(op, tensor, 2)
    ranks = _check.tucker_rank(op, rank, tensor.shape)
    n_iter_max = _check.whole_number(op, "n_iter_max", n_iter_max, 1)
    tol = _check.number(op, "tol", tol)
    _check.only(op, "batch_dims", batch_dims, 0)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        squared = _squared_norm(op, tensor)
        factors = _initial(op, tensor, ranks, init, seed, squared)
        errors: list[float] = []
        status = "max_iter"
        with progress_bar(progress, n_iter_max, callback) as report:
            for sweep in range(1, n_iter_max + 1):
                for n, projected in _projections(tensor, tuple(range(tensor.ndim)), factors):
                    factors[n] = _improve(projected, n, factors[n])
                core = baseline.ttm(projected, factors[n], n, transpose=True)
                errors.append(_true_error(tensor, core, factors, squared))
                if report is not None and report(sweep, errors[-1], [arrays.in_kind(f, x) for f in factors]):
                    status = "stopped"
                    break
                if tol and errors[-1] < precision_floor(tensor.dtype):
                    status = "precision_limit"
                    break
                if tol and len(errors) > 1 and abs(errors[-2] - errors[-1]) < tol:
                    status = "converged"
                    break
    message = {
        "converged": f"The relative error changed by less than tol={tol:g}.",
        "max_iter": f"All {n_iter_max} sweeps ran; raise n_iter_max or tol if the error still falls.",
        "stopped": "The callback stopped the iteration.",
        "precision_limit": "The relative error is at the rounding level of the data's type.",
    }[status]
    return _result(core, factors, _info(errors, status, message), x)


def _initial(
    op: str, x: Tensor, ranks: Sequence[int], init: Any, seed: Any, squared: float
) -> list[Tensor]:
    dtype = compute_dtype(x.dtype)
    if isinstance(init, str):
        rng = generator(op, seed, x.device)
        if init == "random":
            return [
                orthonormal(gaussian(size, r, dtype, x.device, rng))
                for size, r in zip(x.shape, ranks, strict=True)
            ]
        if init == "sthosvd":
            order = _order(op, x.shape, ranks, None)
            return _truncate(x, ranks, None, order, squared, sequential=True, rng=rng)[1]
        raise ValueError(
            f"{op}: init is {init!r}; expected 'sthosvd', 'random', a TuckerTensor or (core, factors)"
        )
    _, given = bring_tucker(op, init)
    for n, factor in enumerate(given):
        expected = (x.shape[n], ranks[n])
        if tuple(factor.shape) != expected:
            raise ValueError(
                f"{op}: init factors[{n}] has shape {tuple(factor.shape)}; expected {expected}"
            )
        _check.finite(f"{op}: init factors[{n}]", factor)
    return [orthonormal(factor.detach().to(dtype)) for factor in given]


def _projections(
    x: Tensor, modes: tuple[int, ...], factors: Sequence[Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Yield, mode by mode, ``x`` projected on the current factors of all other modes.

    The caller replaces ``factors[n]`` before it asks for the next.
    """
    if len(modes) == 1:
        yield modes[0], x
        return
    cut = len(modes) - len(modes) // 2
    for half, other in ((modes[:cut], modes[cut:]), (modes[cut:], modes[:cut])):
        below = x
        for n in sorted(other, key=lambda n: factors[n].shape[1] / factors[n].shape[0]):
            below = baseline.ttm(below, factors[n], n, transpose=True)
        yield from _projections(below, half, factors)


def _improve(projected: Tensor, mode: int, factor: Tensor) -> Tensor:
    """Turn a factor towards the leading left singular vectors of a projected tensor's unfolding."""
    rows = projected.movedim(mode, 0).reshape(projected.shape[mode], -1)
    if factor.shape[0] == factor.shape[1]:
        return factor
    for _ in range(INNER_STEPS):
        factor = orthonormal(rows @ (rows.mH @ factor))
    return factor


def tucker(
    x: Any, rank: Any = None, *, tol: float | None = None, method: str = "hooi"
) -> TuckerTensor:
    r"""Tucker decomposition, ``x ~ core x_0 U_0 x_1 U_1 ...`` with orthonormal factors.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    rank : int, sequence of int, or float, optional
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    tol : float, optional
        In place of ``rank``: a bound on the relative error.
    method : {"hooi", "sthosvd", "hosvd"}
        With ``tol``, ``"hooi"`` improves the model that `sthosvd` finds for it, at the same ranks.

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
        return hosvd(x, rank, tol=tol)
    if method == "sthosvd":
        return sthosvd(x, rank, tol=tol)
    if method != "hooi":
        raise ValueError(
            f"tucker: method is {method!r}; expected 'hooi', 'sthosvd' or 'hosvd'"
        )
    if (rank is None) == (tol is None):
        raise ValueError(f"tucker: rank is {rank!r} and tol is {tol!r}; expected exactly one of the two")
    if tol is None:
        return hooi(x, rank)
    start = sthosvd(x, tol=tol)
    return hooi(x, start.rank, init=start)


def _true_error(x: Tensor, core: Tensor, factors: Sequence[Tensor], squared_norm: float) -> float:
    """``||x - model|| / ||x||``; from the norms of ``x`` and core where that keeps its digits."""
    scale = squared_norm if squared_norm > 0 else 1.0
    squared = (squared_norm - float(baseline.sum_of_squares(core))) / scale
    if squared >= explicit_residual_below(x.dtype) ** 2:
        return math.sqrt(squared)
    error = tucker_residual_norm(x, core, factors) / math.sqrt(scale)
    if error < 100 * precision_floor(x.dtype) and compute_dtype(x.dtype) != solve_dtype(x.dtype):
        error = tucker_residual_norm(x, core, factors, double=True) / math.sqrt(scale)
    return error


def _info(errors: Sequence[float], status: str, message: str) -> ConvergenceInfo:
    return ConvergenceInfo(
        n_iter=len(errors),
        rel_errors=tuple(errors),
        fit=1.0 - errors[-1],
        converged=status in ("converged", "precision_limit"),
        status=status,
        message=message,
    )


def _result(core: Tensor, factors: Sequence[Tensor], info: ConvergenceInfo, like: Any) -> TuckerTensor:
    return TuckerTensor(
        arrays.in_kind(core, like), [arrays.in_kind(f.contiguous(), like) for f in factors], info
    )
