"""Higher-order orthogonal iteration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from ..convergence import StoppingRule, account, in_words
from ..ops import direct
from ..precision import compute_dtype, matmul_precision, solve_dtype
from ..progress import progress_bar
from ..reconstruct import bring_tucker
from ..results import TuckerTensor
from ..svd import gaussian, generator, orthonormal, scaled
from .shared import bring, exact_error, rescaled, result, true_error
from .truncation import order_of_modes, truncate

__all__ = ["hooi"]

#: Powers of a mode's small projected Gram matrix that extend the current factor to the space in
#: which the new one is sought. With two, an update is as good as an exact one.
KRYLOV_STEPS = 2


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
    r"""Higher-order orthogonal iteration, which improves a Tucker model of given ranks.

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
    No SVD of an unfolding: each update takes a few steps of subspace iteration,
    warm-started from the current factor, on the small projected tensor. ``x`` is read N / (N - 1)
    times a sweep, 2 R_n prod(I_m) flops each: one projection of ``x`` serves the next N - 1
    updates, across the ends of sweeps.

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
    tensor = bring(op, x)
    _check.modes_at_least(op, tensor, 2)
    ranks = _check.tucker_rank(op, rank, tensor.shape)
    n_iter_max = _check.whole_number(op, "n_iter_max", n_iter_max, 1)
    tol = _check.number(op, "tol", tol)
    _check.only(op, "batch_dims", batch_dims, 0)
    _check.seed(op, seed)
    _check.callback(op, callback)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        tensor, squared, scale = scaled(op, tensor)
        factors = _initial(op, tensor, ranks, init, seed, squared)
        stop = StoppingRule(tol, compute_dtype(tensor.dtype))
        projections = _projections(tensor, factors)
        errors: list[float] = []
        status = "max_iter"
        with progress_bar(progress, n_iter_max, callback) as report:
            for sweep in range(1, n_iter_max + 1):
                for n in range(tensor.ndim):
                    projected = next(projections)
                    factors[n] = _improved(projected, n, factors[n])
                core = direct.ttm(projected, factors[n], n, transpose=True)
                error, exact = true_error(tensor, core, factors, squared)
                errors.append(error)
                recompute = partial(exact_error, tensor, core, factors, squared)
                reason = stop.status(errors, exact, recompute)
                if report is not None:
                    copies = [arrays.in_kind(f.clone(), x) for f in factors]
                    reason = "stopped" if report(sweep, errors[-1], copies) else reason
                if reason is not None:
                    status = reason
                    break
    info = account(status, errors, in_words(status, errors, tol))
    return result(rescaled(core, scale), factors, info, x)


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
            order = order_of_modes(op, x.shape, ranks, None)
            return truncate(x, ranks, None, order, squared, sequential=True, rng=rng)[1]
        raise ValueError(
            f"{op}: init is {init!r}; expected 'sthosvd', 'random', a TuckerTensor or "
            "(core, factors)"
        )
    _, given = bring_tucker(op, init)
    if len(given) != x.ndim:
        raise ValueError(f"{op}: init has {len(given)} modes but x has {x.ndim}; expected the same")
    if given[0].is_complex() and not dtype.is_complex:
        raise TypeError(f"{op}: init is complex but x is real; expected a real model")
    for n, factor in enumerate(given):
        expected = (x.shape[n], ranks[n])
        if tuple(factor.shape) != expected:
            raise ValueError(
                f"{op}: init factors[{n}] has shape {tuple(factor.shape)}; expected {expected}"
            )
        _check.finite(op, factor, f"init factors[{n}]")
    return [orthonormal(factor.detach().to(dtype)) for factor in given]


def _projections(x: Tensor, factors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield for mode after mode, for ever, ``x`` projected on the factors of all the others.

    The caller replaces the mode's factor before it asks for the next. The cyclic order of modes is
    cut into runs of N - 1, each served by ``x`` projected on the one factor that stays as it is.
    """
    order = itertools.cycle(range(x.ndim))
    while True:
        run = tuple(itertools.islice(order, max(1, x.ndim - 1)))
        outside = [n for n in range(x.ndim) if n not in run]
        yield from _descend(_project(x, outside, factors), run, factors)


def _descend(x: Tensor, run: tuple[int, ...], factors: Sequence[Tensor]) -> Iterator[Tensor]:
    if len(run) == 1:
        yield x
        return
    cut = len(run) // 2
    for half, other in ((run[:cut], run[cut:]), (run[cut:], run[:cut])):
        yield from _descend(_project(x, other, factors), half, factors)


def _project(x: Tensor, modes: Sequence[int], factors: Sequence[Tensor]) -> Tensor:
    """Multiply by the adjoint factors of ``modes``, the one that shrinks most first."""
    for n in sorted(modes, key=lambda n: factors[n].shape[1] / factors[n].shape[0]):
        x = direct.ttm(x, factors[n], n, transpose=True)
    return x


def _improved(projected: Tensor, mode: int, factor: Tensor) -> Tensor:
    """Return leading left singular vectors of a projected tensor's unfolding ``Y``.

    Rayleigh-Ritz on the block Krylov space of ``Y Y^H`` that the current factor spans, or on all of
    the mode's space where that is no larger.
    """
    size, rank = factor.shape
    if size == rank:
        return factor
    rows = projected.movedim(mode, 0).reshape(size, -1)
    if (KRYLOV_STEPS + 1) * rank >= size:
        small = direct.gram(rows, 0, solve_dtype(rows.dtype))
        return torch.linalg.eigh(small).eigenvectors[:, -rank:].flip(1).to(factor.dtype)
    blocks = [factor]
    for _ in range(KRYLOV_STEPS):
        blocks.append(orthonormal(rows @ (rows.mH @ blocks[-1])))
    basis = orthonormal(torch.cat(blocks, 1))
    small = direct.gram(basis.mH @ rows, 0, solve_dtype(rows.dtype))
    vectors = torch.linalg.eigh(small).eigenvectors[:, -rank:].flip(1)
    return basis @ vectors.to(factor.dtype)
