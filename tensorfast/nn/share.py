"""The share of the largest eigenvalues of ``A^T A``, or of their roots, differentiable twice.

With eigenpairs ``lambda_i, v_i``, lengths ``l_i`` that are ``lambda_i`` or its root, the sum ``s``
of the k largest and the sum ``t`` of all, ``log(s / t)`` has the gradient ``A F``,

    F = sum_i f_i v_i v_i^T,    f_i = 2 l'(lambda_i) w_i,    w_i = [i is one of the k] / s - 1 / t

which for eigenvalues is ``2 A P / s - 2 A / t`` with the projector ``P`` onto the leading
eigenspace. Its derivative is ``dA F + A dF``. In the basis of the ``v_i``, ``dF`` is ``dA^T A + A^T
dA`` times the divided differences ``(f_i - f_j) / (lambda_i - lambda_j)``, entry by entry, and
``2 l' dw_i`` on the diagonal. Where both or neither of i and j are of the k, the differences have a
limit: only the gap between the k-th eigenvalue and the next matters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..ops.small import LARGEST, by_kernels, eigenvectors
from ..precision import matmul_precision

__all__ = ["is_lost", "log_share", "roots_of", "tall_of"]


def log_share(z: Tensor, norm: Tensor | float, k: int, center: bool, roots: bool) -> Tensor:
    """Return the logarithm of the share, of embeddings with that norm; 0 where all are equal."""
    out: Tensor = _LogShare.apply(z, norm, k, center, roots)
    return out


def tall_of(z: Tensor, center: bool) -> Tensor:
    """Return ``A``: embeddings, centred or not, with the longer side first."""
    if center:
        z = z - z.mean(0)
        # What rounding left of a mean far from zero: at 1e6 in float32, 3 % of the gradient.
        z = z.sub_(z.mean(0))
    return _turned(z, _is_wide(z))


def is_lost(trace: Tensor, norm: Tensor | float, dtype: torch.dtype) -> Tensor:
    """Whether a trace is no more than the rounding of embeddings of that norm and type."""
    lost: Tensor = trace <= (norm * (4 * torch.finfo(dtype).eps)) ** 2
    return lost


def roots_of(values: Tensor) -> Tensor:
    """Return the roots of ascending eigenvalues, 0 where these are no more than rounding."""
    rounding = 4 * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > rounding * values[-1], values, 0.0).sqrt()


def _is_wide(z: Tensor) -> bool:
    return z.shape[0] < z.shape[1]


def _turned(z: Tensor, wide: bool) -> Tensor:
    return z.t() if wide else z


def _eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors, in the type of the matrix."""
    if by_kernels(gram) and len(gram) <= LARGEST:
        values, vectors = eigenvectors(gram.to(torch.float64))
        return values.flip(0).to(gram.dtype), vectors.flip(1).to(gram.dtype)
    values, vectors = torch.linalg.eigh(gram)
    return values, vectors


class _LogShare(torch.autograd.Function):
    """The logarithm of the share."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, norm: Tensor | float, k: int, center: bool, roots: bool
    ) -> Tensor:
        tall = tall_of(z, center)
        # The root of what float32 leaves of a zero is a thousandth of the largest.
        own = tall.to(torch.float64) if roots else tall
        values, vectors = _eigen(own.t() @ own)
        lengths = roots_of(values) if roots else values
        trace = values.sum()
        total = lengths.sum() if roots else trace
        lost = is_lost(trace, norm, z.dtype)
        # Rounding may leave a little more than everything.
        share = torch.where(lost, 1.0, (lengths[-k:].sum() / total).clamp(max=1))
        # What is divided by infinity vanishes.
        total = torch.where(lost, torch.inf, total)
        ctx.save_for_backward(z, tall, values, lengths, vectors, share, total)
        ctx.options = k, center, roots
        return share.log().to(z.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, *found = ctx.saved_tensors
        if torch.is_grad_enabled():
            out = _Gradient.apply(grad, z, ctx.options, *found)
        else:
            out = _turned(_gradient(grad, ctx.options, *found), _is_wide(z))
        return out, None, None, None, None


def _gradient(
    grad: Tensor,
    options: tuple[int, bool, bool],
    tall: Tensor,
    values: Tensor,
    lengths: Tensor,
    vectors: Tensor,
    share: Tensor,
    total: Tensor,
) -> Tensor:
    """Return ``A F``, times a scalar."""
    k, _, roots = options
    with matmul_precision("ieee", tall.device):
        if roots:
            f = grad * _slopes(lengths, roots) * _weights(lengths, k, share, total)
            return (tall @ (vectors * f).to(tall.dtype)) @ vectors.t().to(tall.dtype)
        # By the few columns of the projector.
        basis, scale = vectors[:, -k:], 2 * grad / total
        part = (tall @ (basis * (scale / share))) @ basis.t()
        return torch.addcmul(part, scale, tall, value=-1)


def _slopes(lengths: Tensor, roots: bool) -> Tensor:
    """Return ``2 l'``. A root that is 0 may have any, and is given none."""
    if not roots:
        return torch.full_like(lengths, 2.0)
    return torch.where(lengths > 0, 1 / lengths, 0.0)


def _are_leading(lengths: Tensor, k: int) -> Tensor:
    return torch.arange(len(lengths), device=lengths.device) >= len(lengths) - k


def _weights(lengths: Tensor, k: int, share: Tensor, total: Tensor) -> Tensor:
    """Return ``w``."""
    return (_are_leading(lengths, k) / share - 1) / total


def _differences(
    values: Tensor, lengths: Tensor, slopes: Tensor, weights: Tensor, k: int, roots: bool
) -> Tensor:
    """Return the divided differences of ``f``, 0 where there is no gap to divide by."""
    f, side = slopes * weights, _are_leading(values, k)
    gaps = values[:, None] - values
    apart = torch.where(gaps != 0, (f[:, None] - f) / gaps, 0.0)
    alike = (side[:, None] == side) & (slopes[:, None] * slopes > 0)
    if not roots:
        return torch.where(alike, 0.0, apart)
    limit = -f[:, None] * slopes / (lengths[:, None] + lengths)
    return torch.where(alike, limit, apart)


class _Gradient(torch.autograd.Function):
    """The gradient of `_LogShare`, times a scalar."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, z: Tensor, options: tuple[int, bool, bool], *found: Tensor
    ) -> Tensor:
        ctx.save_for_backward(grad, *found)
        ctx.options, ctx.wide = options, _is_wide(z)
        return _turned(_gradient(grad, options, *found), ctx.wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        grad, tall, values, lengths, vectors, share, total = ctx.saved_tensors
        k, center, roots = ctx.options
        change = _turned(change - change.mean(0) if center else change, ctx.wide)
        slopes, weights = _slopes(lengths, roots), _weights(lengths, k, share, total)
        with matmul_precision("ieee", tall.device):
            half = vectors.t() @ (change.t() @ tall).to(values.dtype) @ vectors
            of_gram = half + half.t()
            of_lengths = slopes / 2 * of_gram.diagonal()
            of_leading = _are_leading(lengths, k) * of_lengths[-k:].sum() / share**2
            of_weights = (of_lengths.sum() - of_leading) / total**2
            inner = of_gram * _differences(values, lengths, slopes, weights, k, roots)
            inner = inner + torch.diag(slopes * of_weights)
            here = (vectors * (slopes * weights) @ vectors.t()).to(tall.dtype)
            there = (vectors @ inner @ vectors.t()).to(tall.dtype)
            out = grad * (change @ here + tall @ there)
        # The Hessian is symmetric, so that a change forward and a gradient backward are the same.
        along = (of_lengths @ weights).to(grad.dtype)
        return along, _turned(out, ctx.wide), *[None] * 7
