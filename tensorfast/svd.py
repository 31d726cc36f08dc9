"""Truncated singular value decompositions, and sketches of unfoldings without unfolding."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _check, arrays, baseline
from .ops import direct, norms
from .ops.small import LARGEST, by_kernels, eigenvectors, orthonormal
from .precision import compute_dtype, matmul_precision, safe_scale, solve_dtype

__all__ = [
    "generator",
    "leading_subspace",
    "scaled",
    "sketch",
    "truncated_svd",
]

METHODS = ("auto", "full", "gram", "randomized")

#: Extra columns of a random sketch, and rounds of power iteration: Halko, Martinsson and Tropp,
#: SIAM Review 53 (2011), section 4.
OVERSAMPLE = 8
POWER_STEPS = 2

#: Extra columns of `truncated_svd`, as a share of the rank, where that is more. The spectra of
#: photographs fall slowly: of one of 3000 x 4000, at rank 100, the error is 1.7 % above the least
#: with 8 extra columns, 0.2 % with 50 in 1.4 times the time; two more power steps give 0.4 %, in
#: 1.6 times.
OVERSAMPLE_SHARE = 0.5

#: Up to this length of the shorter side the Gram matrix's eigenvectors are exact and cost little
#: more than sketching: eigh of 512 x 512 takes about 20 ms on two cores.
GRAM_UP_TO = 512

#: Longer over shorter side from which a QR factorisation goes before a full SVD.
NARROW = 4


def generator(op: str, seed: int | torch.Generator | None, device: torch.device) -> torch.Generator:
    """Return a generator on ``device`` for a ``seed`` argument; None draws a fresh seed."""
    _check.seed(op, seed)
    if isinstance(seed, torch.Generator):
        if seed.device.type != device.type:
            raise ValueError(
                f"{op}: seed is a generator on {seed.device} but x is on {device}; expected the "
                "same device"
            )
        return seed
    made = torch.Generator(device=device)
    if seed is None:
        made.seed()
    else:
        made.manual_seed(int(seed))
    return made


def gaussian(
    rows: int, columns: int, dtype: torch.dtype, device: torch.device, rng: torch.Generator
) -> Tensor:
    """Matrix of independent standard normal entries."""
    return torch.randn(rows, columns, dtype=dtype, device=device, generator=rng)


def scaled(op: str, x: Tensor, name: str = "x") -> tuple[Tensor, float, float]:
    """Return ``x / scale``, its squared norm, and the scale; refuse non-finite values.

    The scale is a power of two, and 1 unless squares would over- or underflow: then ``x`` is what
    was given.
    """
    squared = float(norms.squared_norm(x))
    # The norm is finite exactly if every entry is, overflow in float64 apart.
    if not math.isfinite(squared):
        _check.finite(op, x, name)
    scale = safe_scale(x, squared)
    if scale != 1.0:
        x = x.to(compute_dtype(x.dtype)) / scale
        squared = float(norms.squared_norm(x))
    return x, squared, scale


def sketch_pays(x: Tensor, mode: int, rank: int) -> bool:
    """Whether a sketch of an unfolding costs less than its Gram matrix and the eigenvectors of it.

    8 (rank + 8) numel flops against 2 size numel in double precision, which take twice as long;
    below 128 rows neither takes any time. (200^3 on two cores, by mode: at rank 20 14 to 18
    milliseconds against 42 to 52, at rank 58 26 to 40 against 42 to 47, level from rank 80 on.)
    Where kernels find eigenvectors, whatever is too large for them costs more.
    """
    size, columns = x.shape[mode], rank + OVERSAMPLE
    if by_kernels(x) and columns <= LARGEST < size:
        return True
    return size >= 128 and size > 3 * columns


def leading_subspace(x: Tensor, mode: int, rank: int, rng: torch.Generator) -> Tensor:
    """Approximate the ``rank <= I_n`` leading left singular vectors of an unfolding.

    By a `sketch`, unless the mode is hardly longer than that, or ``x`` is a vector.
    """
    dtype = compute_dtype(x.dtype)
    if x.ndim == 1:
        # The unfolding is one column: what stands beside it in the basis is arbitrary.
        beside = gaussian(x.shape[0], rank - 1, dtype, x.device, rng)
        return orthonormal(torch.cat([x.to(dtype)[:, None], beside], 1))
    if rank + OVERSAMPLE >= x.shape[mode]:
        _, vectors = eigenvectors(direct.gram(x, mode, solve_dtype(x.dtype)))
        return vectors[:, :rank].to(dtype)
    return sketch(x, mode, rank, rng).basis


class Sketch(NamedTuple):
    """Approximate singular vectors of an unfolding.

    Attributes
    ----------
    basis : Tensor, [I_n, rank]
        Left singular vectors, the leading ones first.
    squares : Tensor, [rank], float64
        Squares of their singular values, each at most the true one.
    projected : Tensor
        ``x`` times the adjoint basis of the whole sketch in the mode.
    turn : Tensor, [rank + OVERSAMPLE, rank]
        What that basis is multiplied by to give ``basis``.
    """

    basis: Tensor
    squares: Tensor
    projected: Tensor
    turn: Tensor


def sketch(x: Tensor, mode: int, rank: int, rng: torch.Generator) -> Sketch:
    """Approximate the leading left singular vectors of an unfolding, fewer than it has rows.

    ``Y = unfold(x, n) @ khatri_rao(random)``, then one step of subspace iteration through ``x`` and
    Rayleigh-Ritz on it. ``Y`` is an MTTKRP, which forms the test matrix whole, (rank + 8) / I_n of
    ``x``, only where the mode is first or last in memory. Four reads of ``x``, 8 (rank + 8)
    numel(x) flops. Workspace measured at 300^3 to 600^3, rank 16 to 100: 1 to 1.5 times (rank + 8)
    / I_n of ``x``, in the computing type, and 40 MB of blocks.
    """
    columns, dtype = rank + OVERSAMPLE, compute_dtype(x.dtype)
    others = [
        gaussian(size, columns, dtype, x.device, rng) for n, size in enumerate(x.shape) if n != mode
    ]
    basis = orthonormal(direct.mttkrp(x, others, mode))
    basis = orthonormal(baseline.cross(x, direct.ttm(x, basis, mode, transpose=True), mode))
    projected = direct.ttm(x, basis, mode, transpose=True)
    squares, vectors = eigenvectors(direct.gram(projected, mode, solve_dtype(x.dtype)))
    turn = vectors[:, :rank].to(dtype)
    return Sketch(basis @ turn, squares[:rank], projected, turn)


def truncated_svd(
    a: Any,
    rank: int,
    *,
    method: str = "auto",
    seed: int | torch.Generator | None = None,
) -> tuple[Any, Any, Any]:
    r"""Leading singular triplets of a matrix, ``a ~ U @ diag(S) @ Vh``.

    Parameters
    ----------
    a : array, shape (m, n)
    rank : int
        Number of triplets; cut to ``min(m, n)``.
    method : {"auto", "full", "gram", "randomized"}
        - ``"full"``: LAPACK's divide and conquer, of a long matrix after a QR factorisation, then
          cut. Most accurate, slowest.
        - ``"gram"``: eigenvectors of the smaller Gram matrix in double precision. Singular values
          below 1.5e-8 of the largest are lost in it.
        - ``"randomized"``: Gaussian sketch of ``rank + max(8, rank // 2)`` columns, two power
          steps, orthonormalised in between.
        - ``"auto"``: ``"full"`` where the smaller side is at most 64 or ``rank`` is more than half
          of it; for float32 ``"gram"`` where it is at most 512; else ``"randomized"`` if ``rank +
          8`` is at most a quarter of it, else ``"full"``.
    seed : int or torch.Generator, optional

    Returns
    -------
    U : array, shape (m, rank)
        Orthonormal columns; in each the entry of largest modulus is real and positive.
    S : array, shape (rank,)
        Real, descending.
    Vh : array, shape (rank, n)

    Raises
    ------
    ValueError, TypeError
        If ``a`` is not a non-empty matrix of finite values, or ``rank``, ``method`` or ``seed`` do
        not fit.

    Notes
    -----
    Flops: full O(m n min(m, n)); gram 2 m n min(m, n) in float64; randomized about 12 m
    n (rank + max(8, rank // 2)).

    References
    ----------
    Halko, Martinsson and Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> u, s, vh = truncated_svd(np.diag([3.0, 2.0, 1.0]), 2)
    >>> bool(np.allclose(s, [3.0, 2.0]))
    True
    """
    op = "truncated_svd"
    matrix = arrays.as_tensor(op, "a", a)
    _check.storage(op, "a", matrix.dtype)
    if matrix.ndim != 2:
        raise ValueError(f"{op}: a has shape {tuple(matrix.shape)}; expected a matrix (m, n)")
    _check.nonempty(op, matrix, "a")
    if method not in METHODS:
        raise ValueError(f"{op}: method is {method!r}; expected one of {METHODS}")
    k = min(_check.whole_number(op, "rank", rank, 1), *matrix.shape)
    rng = generator(op, seed, matrix.device)
    with torch.no_grad(), matmul_precision("ieee", matrix.device):
        matrix, _, scale = scaled(op, matrix, "a")
        matrix = matrix.to(compute_dtype(matrix.dtype))
        chosen = _automatic(matrix, k) if method == "auto" else method
        if chosen == "full":
            triplet = _full(matrix, k)
        elif chosen == "gram":
            triplet = _by_gram(matrix, k)
        else:
            triplet = _randomized(matrix, k, rng)
        u, s, vh = _signed(*triplet)
    return arrays.in_kind(u, a), arrays.in_kind(s * scale, a), arrays.in_kind(vh, a)


def _automatic(a: Tensor, rank: int) -> str:
    short = min(a.shape)
    if short <= 64 or 2 * rank > short:
        return "full"
    if short <= GRAM_UP_TO and a.dtype in (torch.float32, torch.complex64):
        return "gram"
    return "randomized" if 4 * (rank + OVERSAMPLE) <= short else "full"


def _full(a: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    if a.shape[0] >= NARROW * a.shape[1]:
        q, r = torch.linalg.qr(a)
        u, s, vh = _full(r, rank)
        return q @ u, s, vh
    if a.shape[1] >= NARROW * a.shape[0]:
        u, s, vh = _full(a.mH, rank)
        return vh.mH, s, u.mH
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return u[:, :rank], s[:rank], vh[:rank]


def _by_gram(a: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    if a.shape[0] > a.shape[1]:
        u, s, vh = _by_gram(a.mH, rank)
        return vh.mH, s, u.mH
    _, vectors = eigenvectors(direct.gram(a, 0, solve_dtype(a.dtype)))
    u = vectors[:, :rank].to(a.dtype)
    return _from_subspace(a, u, rank)


def _randomized(a: Tensor, rank: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    columns = min(rank + max(OVERSAMPLE, int(OVERSAMPLE_SHARE * rank)), *a.shape)
    basis = orthonormal(a @ gaussian(a.shape[1], columns, a.dtype, a.device, rng))
    for _ in range(POWER_STEPS):
        basis = orthonormal(a @ orthonormal(a.mH @ basis))
    return _from_subspace(a, basis, rank)


def _from_subspace(a: Tensor, basis: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rayleigh-Ritz: the singular triplets of ``a`` restricted to a subspace of its range."""
    u, s, vh = _full(basis.mH @ a, rank)
    return basis @ u, s, vh


def _signed(u: Tensor, s: Tensor, vh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    largest = u.gather(0, u.abs().argmax(0, keepdim=True))
    phase = torch.where(largest == 0, torch.ones_like(largest), largest.sgn())
    return u * phase.conj(), s, vh * phase.t()


def tail_cut(values: Tensor, budget: float) -> int:
    """Return the fewest leading entries whose tail sums to at most ``budget``; at least 1."""
    # On the host: a GPU's cumulative sum is not always the same.
    tail = torch.cumsum(values.cpu().flip(0).clamp(min=0), 0)
    omitted = int((tail <= budget).sum())
    return max(1, math.prod(values.shape) - omitted)
