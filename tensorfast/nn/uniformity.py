"""A loss that keeps embeddings from collapsing into a few directions, and how far they have.

The directions that embeddings fill are told by the eigenvalues of their covariance. They are those
of the smaller of two Gram matrices, so no singular value decomposition of the embeddings is needed;
and the gradient of a sum of leading eigenvalues is the projector onto their eigenspace, which is
defined where single eigenvectors are not. `share.py` beside this has the mathematics.
"""

from __future__ import annotations

import math
import sys
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .. import _check, arrays
from ..ops.small import eigenvectors
from ..precision import compute_dtype, matmul_precision, safe_scale
from .share import is_lost, log_share, roots_of, tall_of

__all__ = ["SpectralUniformityLoss", "effective_rank", "spectral_uniformity_loss", "spectrum"]


def spectral_uniformity_loss(
    z: Any, *, k: int = 1, center: bool = True, log: bool = True, of: str = "eigenvalues"
) -> Any:
    r"""Share of the ``k`` largest eigenvalues in the covariance of embeddings, or its logarithm.

    ``log(sum_{i <= k} lambda_i / trace(C))`` with ``C = Z^T Z``, the columns of ``Z`` centred.
    Least, ``log(k / d)``, where all directions carry the same variance; 0 where k carry all of it.
    Of eigenvalues, it evens out the directions that there are; of singular values, their roots, it
    also wakes those that carry next to nothing, whose eigenvalues have next to no gradient.

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
    of : str
        ``"eigenvalues"``, or ``"singular_values"``: ``sigma_i`` in place of ``lambda_i``, and their
        sum in place of the trace.

    Returns
    -------
    array, shape ()
        Of the computing type. Invariant under rotations, and under scaling of ``z`` as a whole.

    Raises
    ------
    ValueError, TypeError
        If ``z`` is not a real (n, d) array of finite values, ``k`` does not fit, or ``of`` is
        neither. On a GPU, which is not waited for, values that are not finite give NaN instead, or
        an error of `torch.linalg`.

    Warns
    -----
    UserWarning
        Once, if n <= d: so few embeddings span at most n directions (n - 1 centred), and what is
        minimised is the sample's spectrum, not that of the embeddings. Not in a compiled graph.

    Notes
    -----
    Differentiable, by the projector ``P`` onto the leading eigenspace: ``2 Z P / s - 2 Z / t`` for
    the logarithm, with ``s`` the sum of the leading eigenvalues and ``t`` the trace. That is finite
    where eigenvalues coincide, and where the k-th and the next do, it is the gradient for one of
    the eigenspaces that may be meant. Differentiable twice where there is a gap between these two.
    Embeddings that are all equal, up to rounding, have a share of 1 and no gradient. By
    `torch.autograd`, backward: not by `torch.func`, nor in forward mode.

    Singular values have the gradient ``Z (V_k S_k^-1 V_k^T / s - V S^-1 V^T / t)``. One that
    vanishes, below ``sqrt(4 min(n, d) eps)`` of the largest in float64, has many: it is given none.
    One that is small has as large a gradient as any.

    2 n d min(n, d) flops for the Gram matrix, and its eigenvectors; in float64 for singular values,
    as the root of a zero that was rounded in float32 is a thousandth of the largest.

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
    roots = _roots_of(op, of)
    rows, dimension = tensor.shape
    if k > dimension:
        raise ValueError(f"{op}: k is {k} but z has {dimension} dimensions; expected at most that")
    # A graph that is compiled has no warnings.
    if rows <= dimension and not torch.compiler.is_compiling():
        _warn_few()
    wide = tensor.to(compute_dtype(tensor.dtype))
    with matmul_precision("ieee", wide.device):
        loss = log_share(*_scaled(op, wide), min(k, rows), center, roots)
        loss = loss if log else loss.exp()
    return arrays.in_kind(loss, z)


class SpectralUniformityLoss(nn.Module):
    """`spectral_uniformity_loss` as a module.

    Parameters
    ----------
    k, center, log, of
        As there.
    """

    def __init__(
        self, k: int = 1, center: bool = True, log: bool = True, of: str = "eigenvalues"
    ) -> None:
        super().__init__()
        op = "SpectralUniformityLoss"
        self.k = _check.whole_number(op, "k", k, 1)
        _roots_of(op, of)
        self.center, self.log, self.of = center, log, of

    def forward(self, z: Tensor) -> Tensor:
        """Return the loss of embeddings (n, d)."""
        loss: Tensor = spectral_uniformity_loss(
            z, k=self.k, center=self.center, log=self.log, of=self.of
        )
        return loss

    def extra_repr(self) -> str:
        """Tell the options."""
        return f"k={self.k}, center={self.center}, log={self.log}, of={self.of!r}"


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
        Sums to 1; where all embeddings are equal, ``(1, 0, ..., 0)``. Computed in float64, returned
        in float32 unless ``z`` is in float64. Without a gradient.

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
    shares, dtype = _shares("spectrum", z, center)
    return arrays.in_kind(shares.to(dtype), z)


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
    shares, _ = _shares("effective_rank", z, center)
    lengths = roots_of(shares.flip(0))
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


def _roots_of(op: str, of: str) -> bool:
    """Whether eigenvalues are to be replaced by their roots."""
    if of not in ("eigenvalues", "singular_values"):
        raise ValueError(f'{op}: of is {of!r}; expected "eigenvalues" or "singular_values"')
    return of == "singular_values"


@cache
def _warn_few() -> None:
    """Say once, to whoever called us or the module, that there are too few embeddings."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in ("tensorfast", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        "spectral_uniformity_loss: z has no more rows than columns, and so few embeddings cannot "
        "show how many directions there are; use batches larger than the dimension",
        stacklevel=level,
    )


def _scaled(op: str, z: Tensor) -> tuple[Tensor, Tensor | float]:
    """Scale embeddings whose squares might over- or underflow; return their norm, too.

    By a power of two, which rounds nothing. What is not finite is refused where asking does not
    wait for a device; elsewhere the scale is always divided by, and what is not finite gives NaN.
    """
    fixed = z.detach()
    if z.device.type != "cpu" or torch.compiler.is_compiling():
        largest = fixed.abs().amax().clamp(min=torch.finfo(z.dtype).tiny)
        z = z / (largest / (2 * torch.frexp(largest).mantissa))
        return z, torch.linalg.vector_norm(z.detach())
    norm = float(torch.linalg.vector_norm(fixed))
    if not math.isfinite(norm):
        _check.finite(op, z, "z")
    scale = safe_scale(fixed, norm * norm)
    if scale != 1:
        z = z / scale
        norm = float(torch.linalg.vector_norm(z.detach()))
    return z, norm


def _shares(op: str, z: Any, center: bool) -> tuple[Tensor, torch.dtype]:
    """Return the spectrum in float64, and the type it is to be told in.

    (1, 0, ...) where all embeddings are equal.
    """
    tensor = _embeddings(op, z).detach()
    dtype = compute_dtype(tensor.dtype)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        wide, norm = _scaled(op, tensor.to(torch.float64))
        tall = tall_of(wide, center)
        values, _ = eigenvectors(tall.t() @ tall)
        lost = is_lost(values.sum(), norm, dtype)
    shares = values.new_zeros(wide.shape[1])
    shares[: len(values)] = torch.where(lost, 0.0, values.clamp(min=0))
    shares[0] += lost
    return shares / shares.sum(), dtype
