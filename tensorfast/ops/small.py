"""Bases and eigenvectors of what is small in one direction at least, for the engines.

LAPACK's on a CPU. On a GPU its like waits for the device, or takes milliseconds, so there is an
orthonormal basis by Cholesky factorisation and eigenvectors by Jacobi rotations, both in kernels
that never ask the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from ..precision import pivot_tolerance
from ._shared import describe_tensor
from ._triton import reasons

__all__ = ["LARGEST", "by_kernels", "cholesky_qr", "eigenvectors", "orthonormal"]

#: The largest matrix whose eigenvectors the kernel finds, `kernels.jacobi.LARGEST`, and the most
#: columns whose Gram matrix one program factors in reasonable time.
LARGEST, COLUMNS = 192, 512

#: Passes of `cholesky_qr`: the last, and before it one for each ridge that can be needed.
PASSES = {torch.float32: 3, torch.float64: 4}


def by_kernels(a: Tensor) -> bool:
    """Whether the kernels serve matrices of this type on this device."""
    return a.is_cuda and _served(a.device, a.dtype)


@cache
def _served(device: torch.device, dtype: torch.dtype) -> bool:
    empty = torch.empty(1, 1, dtype=dtype, device=device)
    return not reasons(describe_tensor("small", empty, rank=1))


def orthonormal(a: Tensor) -> Tensor:
    """Orthonormal basis of the columns of ``a``, no more than rows; arbitrary where they vanish."""
    if not by_kernels(a) or a.shape[1] > COLUMNS:
        return torch.linalg.qr(a).Q
    from ..kernels.cholesky import factorize

    return cholesky_qr(a, factorize)


def eigenvectors(s: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors of a positive semidefinite matrix in float64."""
    if by_kernels(s) and s.shape[0] <= LARGEST:
        from ..kernels import jacobi

        return jacobi.eigenvectors(s)
    values, vectors = torch.linalg.eigh(s)
    return values.flip(0), vectors.flip(1)


def cholesky_qr(
    a: Tensor,
    factorize: Callable[[Sequence[Tensor], float, float, Tensor, Tensor], Sequence[Tensor]],
) -> Tensor:
    r"""Orthonormal basis of columns from Cholesky factors of Gram matrices in double precision.

    ``A <- A L^{-T}`` with ``A^T A = L L^T``, some times. Columns are scaled to length 1, and
    something as small as rounding is added that has full rank, so that whatever depends on other
    columns, or vanishes, becomes some direction orthogonal to them. Where a pivot is rounding,
    ``factorize`` raises it by a ridge and the next pass finds a better condition, by the root of
    the ridge each: condition numbers up to ``1 / eps`` take one pass of that kind, or two.

    References
    ----------
    Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, "Shifted Cholesky QR for computing the QR
    factorization of ill-conditioned matrices", SIAM J. Sci. Comput. 42 (2020), A477.
    """
    rows, columns = a.shape
    q = a.to(torch.float64)
    largest = torch.linalg.vector_norm(q, math.inf, 0)
    q = q / torch.where(largest > 0, largest, 1.0)
    lengths = torch.linalg.vector_norm(q, dim=0)
    q = q / torch.where(lengths > 0, lengths, 1.0)
    # As good as random, and the same every time.
    at = torch.arange(1, q.numel() + 1, dtype=q.dtype, device=q.device)
    noise = (at * 12.9898).sin_().mul_(43758.5453).frac_().view(rows, columns)
    q = q.add_(noise, alpha=torch.finfo(a.dtype).eps / math.sqrt(rows))
    least = pivot_tolerance(q.dtype, columns)
    ridge, active = q.new_zeros(1), torch.ones((), dtype=torch.bool, device=q.device)
    for _ in range(PASSES[a.dtype]):
        inverse, _ = factorize([q.t() @ q], 0.0, least, ridge, active)
        q = q @ inverse.t()
    return q.to(a.dtype)
