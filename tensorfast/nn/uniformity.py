"""A loss that keeps embeddings from collapsing into a few directions, and how far they have.

The directions that embeddings fill are told by the eigenvalues of their covariance. They are those
of the smaller of two Gram matrices, so no singular value decomposition of the embeddings is needed;
and the gradient of a sum of leading eigenvalues is the projector onto their eigenspace, which is
defined where single eigenvectors are not.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .. import _check, arrays
from ..ops.small import LARGEST, by_kernels, eigenvectors
from ..precision import compute_dtype, matmul_precision

__all__ = ["SpectralUniformityLoss", "effective_rank", "spectral_uniformity_loss", "spectrum"]


def spectral_uniformity_loss(z: Any, *, k: int = 1, center: bool = True, log: bool = True) -> Any:
    r"""Share of the ``k`` largest eigenvalues in the covariance of embeddings, or its logarithm.

    ``log(sum_{i <= k} lambda_i / trace(C))`` with ``C = Z^T Z``, the columns of ``Z`` centred.
    Least, ``log(k / d)``, where all directions carry the same variance; 0 where k carry all of it.

    Parameters
    ----------
    z : array, shape (n, d)
        n embeddings of dimension d, real. float16 and bfloat16 are computed in float32, also under
        ``torch.autocast``.
    k : int
        Directions whose share is to be small, 1 to d.
    center : bool
        Subtract the mean first: without, a mean far from zero is itself the leading direction.
    log : bool
        False returns the share.

    Returns
    -------
    array, shape ()
        Of the computing type. Invariant under rotations, and under scaling of ``z`` as a whole.

    Raises
    ------
    ValueError, TypeError
        If ``z`` is not a real (n, d) array of finite values, or ``k`` does not fit.

    Warns
    -----
    UserWarning
        Once, if n <= d: so few embeddings span at most n directions (n - 1 centred), and what is
        minimised is the sample's spectrum, not that of the embeddings.

    Notes
    -----
    Differentiable, by the projector ``P`` onto the leading eigenspace: ``2 Z P / s - 2 Z / t`` for
    the logarithm, with ``s`` the sum of the leading eigenvalues and ``t`` the trace. That is finite
    where eigenvalues coincide, and where the k-th and the next do, it is the gradient for one of
    the eigenspaces that may be meant. Differentiable twice where there is a gap between these two.
    Embeddings that are all equal, up to rounding, have a share of 1 and no gradient.

    2 n d min(n, d) flops for the Gram matrix, and its eigenvectors.

    References
    ----------
    Magnus, "On differentiating eigenvalues and eigenvectors", Econometric Theory 1 (1985).

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    >>> spectral_uniformity_loss(z, log=False)
    tensor(0.8000)
    """
    op = "spectral_uniformity_loss"
    tensor = _embeddings(op, z)
    k = _check.whole_number(op, "k", k, 1)
    rows, dimension = tensor.shape
    if k > dimension:
        raise ValueError(f"{op}: k is {k} but z has {dimension} dimensions; expected at most that")
    if rows <= dimension:
        _warn_few()
    wide = tensor.to(compute_dtype(tensor.dtype))
    with matmul_precision("ieee", wide.device):
        loss = _Loss.apply(_tame(op, wide), min(k, rows), center, log)
    return arrays.in_kind(loss, z)


class SpectralUniformityLoss(nn.Module):
    """`spectral_uniformity_loss` as a module.

    Parameters
    ----------
    k, center, log
        As there.
    """

    def __init__(self, k: int = 1, center: bool = True, log: bool = True) -> None:
        super().__init__()
        self.k = _check.whole_number("SpectralUniformityLoss", "k", k, 1)
        self.center, self.log = center, log

    def forward(self, z: Tensor) -> Tensor:
        """Return the loss of embeddings (n, d)."""
        loss: Tensor = spectral_uniformity_loss(z, k=self.k, center=self.center, log=self.log)
        return loss

    def extra_repr(self) -> str:
        """Tell the options."""
        return f"k={self.k}, center={self.center}, log={self.log}"


def spectrum(z: Any, *, center: bool = True) -> Any:
    r"""Shares of the covariance's eigenvalues in its trace, descending.

    Parameters
    ----------
    z : array, shape (n, d)
        n real embeddings of dimension d.
    center : bool
        Subtract the mean first.

    Returns
    -------
    array, shape (d,)
        Sums to 1; where all embeddings are equal, ``(1, 0, ..., 0)``. Without a gradient.

    Raises
    ------
    ValueError, TypeError
        If ``z`` is not a real (n, d) array of finite values.

    Examples
    --------
    >>> import torch
    >>> spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]))
    tensor([0.8000, 0.2000])
    """
    return arrays.in_kind(_shares("spectrum", z, center), z)


def effective_rank(z: Any, *, center: bool = True) -> float:
    r"""Return how many directions embeddings fill: the exponential of an entropy.

    ``exp(-sum_i p_i log p_i)`` with ``p_i = s_i / sum_j s_j`` and ``s`` the singular values of the
    centred embeddings: d where all are equal, 1 where one direction has everything.

    Parameters
    ----------
    z : array, shape (n, d)
        n real embeddings of dimension d.
    center : bool
        Subtract the mean first.

    Returns
    -------
    float
        Between 1 and min(n, d).

    Raises
    ------
    ValueError, TypeError
        If ``z`` is not a real (n, d) array of finite values.

    References
    ----------
    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.

    Examples
    --------
    >>> import torch
    >>> round(effective_rank(torch.eye(4), center=False), 6)
    4.0
    """
    lengths = _shares("effective_rank", z, center).to(torch.float64).sqrt()
    shares = lengths / lengths.sum()
    return float(torch.special.entr(shares).sum().exp())


def _embeddings(op: str, z: Any) -> Tensor:
    tensor = arrays.as_tensor(op, "z", z)
    _check.storage(op, "z", tensor.dtype)
    if tensor.ndim != 2:
        raise ValueError(f"{op}: z has shape {tuple(tensor.shape)}; expected (n, d)")
    if tensor.is_complex():
        raise TypeError(f"{op}: z is complex; expected real embeddings")
    _check.nonempty(op, tensor, "z")
    return tensor


@cache
def _warn_few() -> None:
    """Say once that there are too few embeddings."""
    warnings.warn(
        "spectral_uniformity_loss: z has no more rows than columns, and so few embeddings cannot "
        "show how many directions there are; use batches larger than the dimension",
        stacklevel=3,
    )


def _tame(op: str, z: Tensor) -> Tensor:
    """Scale embeddings whose squares might over- or underflow; refuse what is not finite.

    A GPU is not asked: there the scale is always divided by, and what is not finite gives NaN.
    """
    # Not the norm of order infinity, which on a CPU took 20 times as long.
    largest = z.detach().abs().amax()
    if z.is_cuda or torch.compiler.is_compiling():
        return z / torch.where(largest > 0, largest, torch.ones_like(largest))
    size = float(largest)
    if not math.isfinite(size):
        _check.finite(op, z, "z")
    return z if 1e-9 < size < 1e9 or size == 0 else z / size


def _centred(z: Tensor, center: bool) -> Tensor:
    return z - z.mean(0) if center else z


def _is_wide(z: Tensor) -> bool:
    """Whether there are fewer embeddings than dimensions."""
    return z.shape[0] < z.shape[1]


def _gram(z: Tensor) -> Tensor:
    """Return the smaller Gram matrix."""
    return z @ z.t() if _is_wide(z) else z.t() @ z


def _trace(z: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the trace, and whether it is no more than the rounding of the mean of ``z``.

    If so it is infinite: what is divided by it vanishes.
    """
    trace = gram.trace()
    lost = trace <= (torch.linalg.vector_norm(z) * (4 * torch.finfo(z.dtype).eps)).square()
    return torch.where(lost, torch.inf, trace), lost


def _share(leading: Tensor, trace: Tensor, lost: Tensor) -> Tensor:
    # Rounding may leave a little more than everything.
    return torch.where(lost, 1.0, (leading / trace).clamp(max=1))


def _eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors, in the type of the matrix."""
    if by_kernels(gram) and len(gram) <= LARGEST:
        values, vectors = eigenvectors(gram.to(torch.float64))
        return values.to(gram.dtype), vectors.to(gram.dtype)
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0), vectors.flip(1)


def _shares(op: str, z: Any, center: bool) -> Tensor:
    """Return the spectrum, (1, 0, ...) where all embeddings are equal."""
    tensor = _embeddings(op, z).detach()
    wide = _tame(op, tensor.to(compute_dtype(tensor.dtype)))
    with torch.no_grad(), matmul_precision("ieee", wide.device):
        gram = _gram(_centred(wide, center))
        values, _ = _eigen(gram)
        _, lost = _trace(wide, gram)
    shares = values.new_zeros(wide.shape[1])
    shares[: len(values)] = torch.where(lost, 0.0, values.clamp(min=0))
    shares[0] += lost
    return shares / shares.sum()


class _Loss(torch.autograd.Function):
    """The share of the k largest eigenvalues in the trace, or its logarithm."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, k: int, center: bool, log: bool) -> Tensor:
        own = _centred(z, center)
        gram = _gram(own)
        values, vectors = _eigen(gram)
        trace, lost = _trace(z, gram)
        share = _share(values[:k].sum(), trace, lost)
        ctx.save_for_backward(z, own, values, vectors, trace, lost, share)
        ctx.options = k, center, log
        return share.log() if log else share

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        z, own, values, vectors, trace, lost, share = ctx.saved_tensors
        k, center, log = ctx.options
        with matmul_precision("ieee", z.device):
            if torch.is_grad_enabled():
                # All of it anew, as functions of z.
                own = _centred(z, center)
                gram = _gram(own)
                projector = _Projector.apply(gram, values, vectors, k)
                part = projector @ own if _is_wide(own) else own @ projector
                trace, _ = _trace(z, gram)
                share = _share((projector * gram).sum(), trace, lost)
            else:
                basis = vectors[:, :k]
                part = basis @ (basis.t() @ own) if _is_wide(own) else (own @ basis) @ basis.t()
        scale = 2 * grad / (trace * share if log else trace)
        return scale * torch.addcmul(part, share, own, value=-1), None, None, None


class _Projector(torch.autograd.Function):
    """The projector onto the eigenspace of the k largest eigenvalues, whose eigenpairs are known.

    ``dP = sum_{i <= k < j} (v_j v_j^T dC v_i v_i^T + transpose) / (lambda_i - lambda_j)``: only the
    gap between the k-th and the next matters. ``gram`` is there to be differentiated by.
    """

    @staticmethod
    def forward(gram: Tensor, values: Tensor, vectors: Tensor, k: int) -> Tensor:
        leading = vectors[:, :k]
        return leading @ leading.t()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, values, vectors, ctx.k = inputs
        ctx.save_for_backward(values, vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        values, vectors = ctx.saved_tensors
        leading, rest = vectors[:, : ctx.k], vectors[:, ctx.k :]
        gap = values[: ctx.k] - values[ctx.k :, None]
        inner = rest.t() @ (grad + grad.t()) @ leading
        out = rest @ torch.where(gap > 0, inner / gap, 0.0) @ leading.t()
        return (out + out.t()) / 2, None, None, None
