"""Means and covariances of what goes into a layer and comes out, and what they predict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..precision import solve_dtype

__all__ = ["Moments", "moments_of", "roots"]

#: What is added to a covariance before it is inverted, relative to its mean variance: directions
#: with less than that do not show in the output, and given inputs may lack them by chance.
RIDGE = 1e-6


@dataclass(frozen=True)
class Moments:
    """Of vectors ``z`` and ``y`` that belong together, in each group of channels.

    Attributes
    ----------
    zz, yz : Tensor, [groups, n, n], [groups, m, n]
        Covariances, or second moments, in double precision.
    z, y : Tensor, [groups, n], [groups, m]
        Means; zero where these are second moments.
    """

    zz: Tensor
    yz: Tensor
    z: Tensor
    y: Tensor

    def reduced(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return the matrices that predict ``y`` from ``z`` best, of a rank, as two factors.

        ``[groups, m, r]``, orthonormal, and ``[groups, r, n]``. Reduced-rank regression: of the
        least-squares prediction the leading principal components are kept.
        """
        _, inverse = roots(self.zz)
        prediction = self.yz @ inverse
        left, _, _ = torch.linalg.svd(prediction, full_matrices=False)
        left = left[..., :rank]
        return left, left.mT @ prediction @ inverse

    def shift(self, prediction: Tensor) -> Tensor:
        """Return what a prediction ``[groups, m, n]`` lacks in the mean."""
        return self.y - (prediction @ self.z[..., None])[..., 0]


def moments_of(pairs: Iterable[tuple[Tensor, Tensor]], groups: int, centred: bool) -> Moments:
    """Sum up over pairs of arrays ``[samples, groups * channels, ...]``."""
    sums: list[Tensor] = []
    count = 0
    for pair in pairs:
        z, y = (_vectors(a, groups) for a in pair)
        count += z.shape[2]
        parts = [z @ z.mT, y @ z.mT, z.sum(2), y.sum(2)]
        sums = [a + b for a, b in zip(sums, parts, strict=True)] if sums else parts
    if count < 2:
        raise ValueError(f"decompose: inputs holds {count} positions; expected many")
    zz, yz, z, y = (s / count for s in sums)
    if not centred:
        return Moments(zz, yz, torch.zeros_like(z), torch.zeros_like(y))
    return Moments(zz - z[:, :, None] * z[:, None], yz - y[:, :, None] * z[:, None], z, y)


def roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric root of each matrix, with a ridge, and its inverse."""
    mean = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    ridge = torch.where(mean > 0, RIDGE * mean, torch.ones_like(mean))[:, None]
    values, vectors = torch.linalg.eigh(covariance)
    root = (values.clamp(min=0) + ridge).sqrt()[:, None]
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT


def _vectors(a: Tensor, groups: int) -> Tensor:
    """Give ``[samples, groups * channels, ...]`` the shape ``[groups, channels, positions]``."""
    own = a.unflatten(1, (groups, -1)).movedim(0, 2).flatten(2)
    return own.to(solve_dtype(own.dtype))
