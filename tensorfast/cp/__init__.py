"""CP decomposition by alternating least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import _check, arrays
from .._dispatch import describe_method
from ..precision import matmul_precision
from ..results import BatchInfo, ConvergenceInfo, CPTensor
from .batch import fit_batch
from .explained import planned
from .single import fit_single
from .starts import fit_best, fit_starts, starts_of

__all__ = ["cp_als"]


def cp_als(
    x: Any,
    rank: int,
    *,
    init: Any = "svd",
    n_init: int = 1,
    n_iter_max: int = 100,
    tol: float = 1e-6,
    l2_reg: float = 0.0,
    normalize: bool = True,
    fixed_modes: Sequence[int] = (),
    line_search: bool = False,
    batch_dims: int = 0,
    precision: str | None = "ieee",
    seed: int | torch.Generator | None = None,
    callback: Callable[[int, float, list[Any]], bool] | None = None,
    progress: bool = False,
    check_finite: bool = True,
) -> CPTensor:
    r"""CP decomposition (CANDECOMP/PARAFAC) by alternating least squares.

    Fits ``x[i, j, ...] ~ sum_r weights[r] A[i, r] B[j, r] ...`` by minimising ``||x - model||^2
    + l2_reg * sum_n ||A_n||^2`` over one factor at a time, the modes in increasing order.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1}), N >= 2, after the axes of a batch
        torch, NumPy, CuPy or JAX; any strides. Integers become the default float type; float16 and
        bfloat16 are storage types, computed in float32. Not modified.
    rank : int
        Number of components R.
    init : {"svd", "random"}, CPTensor or (weights, factors)
        ``"svd"``: leading left singular vectors of each unfolding by a randomised range finder,
        moved by 0.01 at random, off saddle points; columns beyond I_n random. A given model is not
        modified.
    n_init : int
        Number of starts, which run together and share each read of ``x``. The first is as ``init``
        says, the others are random; the best is returned.
    n_iter_max : int
        Sweeps at most.
    tol : float
        Stop once the relative error changes by less than ``tol`` between sweeps; 0 runs all sweeps.
    l2_reg : float
        Weight of the squared norms of the factors in the objective.
    normalize : bool
        Return columns of length 1 and put the lengths into ``weights``; the columns of fixed modes
        stay as given. Else ``weights`` are ones. The iterates are the same.
    fixed_modes : sequence of int
        Modes whose given factor is kept.
    line_search : bool
        Extrapolate along the last change every second sweep and keep what lowers the error. One
        more read of ``x`` a trial; worthwhile when convergence is slow.
    batch_dims : int
        Leading axes that index independent tensors, which are fitted together and end one by one;
        modes are counted after them. All arrays of the result, and of ``init``, have them too.
    precision : {"ieee", "tf32", "bf16"} or None
        Arithmetic of float32 products on a GPU; None follows torch's own setting.
    seed : int or torch.Generator, optional
        Source of random numbers, for the same result again. With an integer the start at j is that
        of a run with ``seed + j``; from a generator the starts draw in turn.
    callback : callable, optional
        ``callback(sweep, error, factors) -> bool`` after each sweep (counted from 1); True stops.
        Of a batch ``error`` is a NumPy array, done tensors stand still, and True stops the rest. Of
        several starts it sees the one with the lowest error.
    progress : bool
        Show a tqdm bar with the error in it, of a batch the largest, of starts the lowest.
    check_finite : bool
        Refuse NaN and Inf in ``x``. The check costs nothing beyond the norm of ``x``.

    Returns
    -------
    CPTensor
        Iterates as ``weights, factors``; ``info`` tells how the fit went, of a batch as a
        `BatchInfo`, ``info[i]`` of one tensor; ``info.starts`` of several starts, all of them, as a
        `BatchInfo`. Arrays are of ``x``'s kind and on its device, in its
        type (float32 for half precision).

    Raises
    ------
    ValueError, TypeError
        Before any work, naming what was given and what is required.

    Notes
    -----
    **Cost.** A sweep reads ``x`` between N / (N - 1) and N times, 2 R prod(I_n) flops
    each: a cost model picks among exact schedules (mode by mode, dimension tree, multi-sweep
    dimension tree), all of which compute plain ALS's iterates. A partial result takes at most half
    of ``x``, or a few MiB, and as much again while one that comes out by columns is transposed;
    its memory serves the whole fit. Beside it stands the Khatri-Rao product of the modes that a
    read of ``x`` contracts. ``init="svd"`` takes one and a half times ``(R + 8) / I_n`` of ``x``,
    mode after mode, and blocks of 40 MB together.

    **Numerics.** Grams, their products, the solves and the scalars of the fit are double precision.
    ``info.rel_errors`` are true: where ``||X||^2 - 2<X,M> + ||M||^2`` has lost its digits, the
    residual itself is computed. Singular normal equations get a rising relative ridge, and
    ``info.message`` says so. ``info.status`` is ``"degenerate"`` where components diverge against
    each other.

    **Batches.** Each tensor gets what it would get alone from its start, to rounding. Its random
    start depends on ``seed`` and its index, not on the other tensors. Chunks of 2^20 elements, or
    of one tensor, run one after another in up to seven times their memory: copies of what is
    not done yet, or does not lie as products want it, partial results, exact residuals. With
    ``callback`` or ``progress`` all chunks run side by side, and their copies add up. Plain torch
    on every device; ``line_search`` is for one tensor.

    **Starts.** Each gets what it would get in a run of its own, to rounding, and leaves once it has
    ended. The best has the lowest last error; one whose components diverge is best only if no other
    comes within a hundredth of its error. Groups of starts run one after another (side by side with
    ``callback`` or ``progress``), cut so that no partial result and no Khatri-Rao product of a
    group has more than half the elements of ``x``, or 2^20, unless that of one start has. On a
    GPU the kernels contract, and the rest waits for the host; ``line_search`` and ``batch_dims``
    are for one start.

    Deterministic for a fixed seed and number of threads. Results are detached from autograd.

    References
    ----------
    Kolda and Bader, SIAM Review 51 (2009), section 3.4; Ma and Solomonik, arXiv:2010.12056.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = np.einsum("ir,jr,kr->ijk", *(rng.standard_normal((n, 2)) for n in (5, 6, 7)))
    >>> weights, factors = cp_als(x, 2, seed=0)
    >>> [f.shape for f in factors]
    [(5, 2), (6, 2), (7, 2)]

    The best of four starts:

    >>> model = cp_als(x, 2, n_init=4, seed=0)
    >>> errors = model.info.starts.rel_error
    >>> errors.shape, bool(model.info.rel_errors[-1] == errors.min())
    ((4,), True)

    A batch of two:

    >>> model = cp_als(np.stack([x, 2 * x]), 2, batch_dims=1, seed=0)
    >>> model.weights.shape, model.info[1].status
    ((2, 2), 'converged')
    """
    op = "cp_als"
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    batch = _check.batch_dims(op, batch_dims, tensor, 2)
    _check.nonempty(op, tensor, batch=batch)
    rank = _check.cp_rank(op, rank)
    n_iter_max = _check.whole_number(op, "n_iter_max", n_iter_max, 1)
    tol, l2_reg = _check.number(op, "tol", tol), _check.number(op, "l2_reg", l2_reg)
    _check.precision(op, precision)
    _check.seed(op, seed)
    _check.callback(op, callback)
    n_init = _check.whole_number(op, "n_init", n_init, 1)
    if line_search and (batch or n_init > 1):
        several = f"batch_dims is {batch}" if batch else f"n_init is {n_init}"
        raise NotImplementedError(
            f"{op}: line_search is {line_search} and {several}; this version searches for one fit "
            "at a time; loop over the calls, or leave it out"
        )
    if batch and n_init > 1:
        raise NotImplementedError(
            f"{op}: n_init is {n_init} and batch_dims is {batch}; this version starts each tensor "
            "of a batch once; call it with several seeds, or tensor by tensor"
        )
    order = tensor.ndim - batch
    fixed = _check.modes(op, fixed_modes, order, "fixed_modes")
    free = [n for n in range(order) if n not in fixed]
    if not free:
        raise ValueError(f"{op}: fixed_modes is {fixed}; expected at least one mode to be free")
    if fixed and isinstance(init, str):
        raise ValueError(
            f"{op}: fixed_modes is {fixed} but init is {init!r}; pass the factors to keep "
            "as init=(weights, factors)"
        )
    options: dict[str, Any] = {
        "init": init,
        "seed": seed,
        "n_iter_max": n_iter_max,
        "tol": tol,
        "l2_reg": l2_reg,
        "normalize": normalize,
        "free": free,
        "callback": callback,
        "progress": progress,
        "check_finite": check_finite,
        "like": x,
    }
    info: ConvergenceInfo | BatchInfo
    with torch.inference_mode(), matmul_precision(precision, tensor.device):
        if batch:
            weights, factors, info = fit_batch(op, tensor, batch, rank, **options)
        elif n_init > 1:
            starts = starts_of(rank, options.pop("init"), n_init, options.pop("seed"))
            fit = fit_best(fit_starts(op, tensor, starts, precision=precision, **options))
            weights, factors, info = fit.weights, fit.factors, fit.info
        else:
            options |= {"precision": precision, "line_search": line_search}
            weights, factors, info = fit_single(op, tensor, rank, **options)
    # Tensors made in inference mode cannot take part in autograd; their copies can.
    weights, *factors = (t.clone() for t in (weights, *factors))
    return CPTensor(arrays.in_kind(weights, x), [arrays.in_kind(f, x) for f in factors], info)


describe_method("cp_als", planned)
