"""Higher-order orthogonal iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from ..ahead import graphs
from ..convergence import StoppingRule, account, in_words
from ..ops import direct
from ..ops.small import orthonormal
from ..precision import compute_dtype, matmul_precision
from ..progress import progress_bar
from ..results import TuckerTensor
from ..svd import gaussian, generator, scaled
from .ahead import hooi_ahead, never_waits
from .batch import hooi_batch
from .init import check_name, given_factors
from .modewise import order_of_modes, truncate
from .shared import Outcome, bring, exact_error, rescaled, result, true_error
from .sweep import improved, projections

__all__ = ["hooi", "hooi_plainly"]


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
    x : array, shape (I_0, ..., I_{N-1}), after the axes of a batch
    rank : int, sequence of int, or float
        One rank for all modes, one a mode, or a ratio in (0, 1] of each mode's length.
    init : {"sthosvd", "random"}, TuckerTensor or (core, factors)
        A given model is not modified.
    n_iter_max : int
        Sweeps at most.
    tol : float
        Stop once the relative error changes by less than ``tol`` between sweeps; 0 runs all sweeps.
    batch_dims : int
        Leading axes that index independent tensors, which are fitted together and end one by one.
        All arrays of the result, and of ``init``, have them too.
    seed : int or torch.Generator, optional
    callback : callable, optional
        ``callback(sweep, error, factors) -> bool`` after each sweep; True stops. Of a batch
        ``error`` is a NumPy array, done tensors stand still, and True stops the rest.
    progress : bool
        Show a tqdm bar with the error in it, of a batch the largest.

    Returns
    -------
    TuckerTensor
        Iterates as ``core, factors``; factors have orthonormal columns. ``info`` tells how the fit
        went, of a batch as a `BatchInfo`, ``info[i]`` of one tensor.

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

    **Batches.** Each tensor gets what it would get alone with this ``seed``, to rounding: its own
    scale, stopping and status. Chunks of 2^20 elements, or of one tensor, run one after another;
    with ``callback`` or ``progress`` they run side by side, and their copies add up. Plain torch on
    every device: on a GPU the host waits at each update, for all tensors at once.

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
    tensor, batch = bring(op, x, batch_dims, least=2)
    ranks = _check.tucker_rank(op, rank, tensor.shape[batch:])
    n_iter_max = _check.whole_number(op, "n_iter_max", n_iter_max, 1)
    tol = _check.number(op, "tol", tol)
    _check.seed(op, seed)
    _check.callback(op, callback)
    if batch:
        options: dict[str, Any] = {"init": init, "seed": seed, "n_iter_max": n_iter_max, "tol": tol}
        options |= {"callback": callback, "progress": progress, "like": x}
        with torch.no_grad(), matmul_precision("ieee", tensor.device):
            return hooi_batch(op, tensor, batch, ranks, **options)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        tensor, squared, scale = scaled(op, tensor)
        factors = _initial(op, tensor, ranks, init, seed, squared)
        stop = StoppingRule(tol, compute_dtype(tensor.dtype))
        with progress_bar(progress, n_iter_max, _outward(callback, x)) as report:
            done = _fit(tensor, factors, squared, stop, n_iter_max=n_iter_max, callback=report)
    message = in_words(done.status, done.errors, tol) + done.remark
    info = account(done.status, done.errors, message)
    return result(rescaled(done.core, scale), done.factors, info, x)


def _fit(
    x: Tensor, factors: list[Tensor], squared_norm: float, stop: StoppingRule, **options: Any
) -> Outcome:
    """Run sweeps as the device likes them: each judged when it ends, or launched ahead."""
    ranks = [f.shape[1] for f in factors]
    if not never_waits(x, ranks):
        return hooi_plainly(x, factors, squared_norm, stop, **options)
    # Streams and events are those of the current device.
    with torch.cuda.device(x.device):
        capture = graphs(x.device)
        return hooi_ahead(x, factors, squared_norm, stop, capture=capture, keep=True, **options)


def hooi_plainly(
    x: Tensor,
    factors: Sequence[Tensor],
    squared_norm: float,
    stop: StoppingRule,
    *,
    n_iter_max: int,
    callback: Callable[[int, float, list[Tensor]], bool] | None = None,
) -> Outcome:
    """Run sweeps from ``factors`` until a rule says stop, each judged when it ends."""
    factors = [f.contiguous() for f in factors]
    projected = projections(x, factors)
    errors: list[float] = []
    status = "max_iter"
    for sweep in range(1, n_iter_max + 1):
        for n in range(x.ndim):
            y = next(projected)
            factors[n] = improved(y, n, factors[n])
        core = direct.ttm(y, factors[n], n, transpose=True).contiguous()
        error, exact = true_error(x, core, factors, squared_norm)
        errors.append(error)
        recompute = partial(exact_error, x, core, factors, squared_norm)
        reason = stop.status(errors, exact, recompute)
        if callback is not None and callback(sweep, errors[-1], factors):
            reason = "stopped"
        if reason is not None:
            status = reason
            break
    return Outcome(core, factors, errors, status)


def _outward(
    callback: Callable[[int, float, list[Any]], bool] | None, like: Any
) -> Callable[[int, float, list[Tensor]], bool] | None:
    """Show a callback copies of the factors, of the kind of ``x``."""
    if callback is None:
        return None

    def report(sweep: int, error: float, factors: list[Tensor]) -> bool:
        return bool(callback(sweep, error, [arrays.in_kind(f.clone(), like) for f in factors]))

    return report


def _initial(
    op: str, x: Tensor, ranks: Sequence[int], init: Any, seed: Any, squared: float
) -> list[Tensor]:
    dtype = compute_dtype(x.dtype)
    if not isinstance(init, str):
        given = given_factors(op, x.shape, ranks, dtype, init)
        return [orthonormal(factor) for factor in given]
    check_name(op, init)
    rng = generator(op, seed, x.device)
    if init == "random":
        return [
            orthonormal(gaussian(size, r, dtype, x.device, rng))
            for size, r in zip(x.shape, ranks, strict=True)
        ]
    order = order_of_modes(op, x.shape, ranks, None)
    return truncate(x, ranks, None, order, squared, sequential=True, rng=rng)[1]
