"""CP decomposition by alternating least squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from .._dispatch import describe_method
from ..ahead import graphs
from ..ops.fused import Fused, fused_for
from ..precision import matmul_precision, safe_scale
from ..progress import progress_bar
from ..results import ConvergenceInfo, CPTensor
from .ahead import als_ahead
from .algebra import FusedAlgebra
from .als import als
from .explained import planned
from .init import initial_factors
from .operand import DenseOperand
from .update import LeastSquares, not_finite
from .workspace import workspace

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
    x : array, shape (I_0, ..., I_{N-1}), N >= 2
        torch, NumPy, CuPy or JAX; any strides. Integers become the default float type; float16 and
        bfloat16 are storage types, computed in float32. Not modified.
    rank : int
        Number of components R.
    init : {"svd", "random"}, CPTensor or (weights, factors)
        ``"svd"``: leading left singular vectors of each unfolding by a randomised range finder,
        moved by 0.01 at random, off saddle points; columns beyond I_n random. A given model is not
        modified.
    n_init : int
        Number of starts. This version runs one.
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
        Leading axes that index independent tensors. This version takes 0.
    precision : {"ieee", "tf32", "bf16"} or None
        Arithmetic of float32 products on a GPU; None follows torch's own setting.
    seed : int or torch.Generator, optional
        Source of random numbers, for the same result again.
    callback : callable, optional
        ``callback(sweep, error, factors) -> bool`` after each sweep (counted from 1); True stops.
    progress : bool
        Show a tqdm bar with the error in it.
    check_finite : bool
        Refuse NaN and Inf in ``x``. The check costs nothing beyond the norm of ``x``.

    Returns
    -------
    CPTensor
        Iterates as ``weights, factors``; ``info`` tells how the fit went. Arrays are of ``x``'s
        kind and on its device, in its type (float32 for half precision).

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
    """
    op = "cp_als"
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    _check.modes_at_least(op, tensor, 2)
    _check.nonempty(op, tensor)
    rank = _check.cp_rank(op, rank)
    n_iter_max = _check.whole_number(op, "n_iter_max", n_iter_max, 1)
    tol, l2_reg = _check.number(op, "tol", tol), _check.number(op, "l2_reg", l2_reg)
    _check.precision(op, precision)
    _check.seed(op, seed)
    _check.callback(op, callback)
    _check.only(op, "n_init", n_init, 1)
    _check.only(op, "batch_dims", batch_dims, 0)
    fixed = _check.modes(op, fixed_modes, tensor.ndim, "fixed_modes")
    free = [n for n in range(tensor.ndim) if n not in fixed]
    if not free:
        raise ValueError(f"{op}: fixed_modes is {fixed}; expected at least one mode to be free")
    if fixed and isinstance(init, str):
        raise ValueError(
            f"{op}: fixed_modes is {fixed} but init is {init!r}; pass the factors to keep "
            "as init=(weights, factors)"
        )
    with torch.inference_mode(), matmul_precision(precision, tensor.device):
        fused = fused_for(tensor, rank, precision)
        operand = DenseOperand(tensor, fused)
        # The norm is finite exactly if every entry is, overflow in float64 apart.
        if check_finite and not math.isfinite(operand.squared_norm):
            remedy = "fill or drop them, or pass check_finite=False to skip this check"
            _check.finite(op, tensor, remedy=remedy)
        unit = _unit(tensor, operand.squared_norm)
        if unit != 1.0:
            tensor = tensor.to(operand.dtype)
            for _ in range(tensor.ndim):
                tensor = tensor / unit
            operand = DenseOperand(tensor, fused)
        if not math.isfinite(operand.squared_norm):
            raise not_finite()
        start = initial_factors(op, tensor, rank, init, seed, free)
        kept = {n: start[n] for n in fixed}
        if unit != 1.0 and not isinstance(init, str):
            start = [factor / unit for factor in start]
        shown = _outward(callback, x, kept, unit)
        with progress_bar(progress, n_iter_max, shown) as report:
            factors, info = _fit(
                tensor,
                operand,
                start,
                _scaled_l2(l2_reg, unit, tensor.ndim),
                fused,
                line_search,
                n_iter_max=n_iter_max,
                tol=tol,
                free=free,
                callback=report,
            )
        factors = _restored(factors, kept, unit)
        weights = torch.ones(rank, dtype=factors[0].real.dtype, device=tensor.device)
        if normalize:
            for n in free:
                factors[n], lengths = _unit_columns(factors[n])
                weights *= lengths
    # Tensors made in inference mode cannot take part in autograd; their copies can.
    weights, *factors = (t.clone() for t in (weights, *factors))
    return CPTensor(arrays.in_kind(weights, x), [arrays.in_kind(f, x) for f in factors], info)


def _fit(
    x: Tensor,
    operand: DenseOperand,
    start: Sequence[Tensor],
    l2_reg: float,
    fused: Fused | None,
    line_search: bool,
    **options: Any,
) -> tuple[list[Tensor], ConvergenceInfo]:
    """Run sweeps as the device likes them: each judged when it ends, or launched ahead."""
    if fused is None or line_search:
        return als(operand, start, LeastSquares(l2_reg), line_search=line_search, **options)
    # Streams and events are those of the current device.
    rank = start[0].shape[1]
    with torch.cuda.device(operand.device):
        algebra, capture = FusedAlgebra(fused, l2_reg), graphs(operand.device)
        schedule = operand.schedule(rank, options["free"])
        keep = (operand.place, l2_reg), workspace(x, fused, rank, schedule)
        options |= {"monotone": not l2_reg, "schedule": schedule, "keep": keep}
        return als_ahead(operand, start, algebra, capture=capture, **options)


def _unit(x: Tensor, squared_norm: float) -> float:
    """Power of two by which every factor is scaled, and ``x`` by its N-th power; 1 if x is tame."""
    return 2.0 ** math.floor(math.log2(safe_scale(x, squared_norm)) / x.ndim)


def _scaled_l2(l2_reg: float, unit: float, order: int) -> float:
    """Weight that has the same effect once ``x`` and all its factors are scaled.

    From 1e200 on, the model is zero either way.
    """
    return min(1e200, l2_reg * 2.0 ** min(1023.0, (2 - 2 * order) * math.log2(unit)))


def _restored(factors: Sequence[Tensor], kept: dict[int, Tensor], unit: float) -> list[Tensor]:
    """Undo the scaling by ``unit``; the fixed factors are exactly those that were given."""
    if unit == 1.0:
        return list(factors)
    return [kept.get(n, factor * unit) for n, factor in enumerate(factors)]


def _unit_columns(factor: Tensor) -> tuple[Tensor, Tensor]:
    lengths = torch.linalg.vector_norm(factor, dim=0)
    return factor / torch.where(lengths > 0, lengths, torch.ones_like(lengths)), lengths


def _outward(
    callback: Callable[[int, float, list[Any]], bool] | None,
    like: Any,
    kept: dict[int, Tensor],
    unit: float,
) -> Callable[[int, float, list[Tensor]], bool] | None:
    """Show a callback copies of the factors, of the kind and in the scale of ``x``."""
    if callback is None:
        return None

    def report(sweep: int, error: float, factors: list[Tensor]) -> bool:
        with torch.inference_mode(False), torch.enable_grad():
            copies = [f.clone() for f in _restored(factors, kept, unit)]
            return bool(callback(sweep, error, [arrays.in_kind(f, like) for f in copies]))

    return report


describe_method("cp_als", planned)
