"""A batch of Tucker models beside its data: products with factors, and true errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...batch import fast_relative_errors, norms
from ...batch.contract import expand, gram, ttm
from ...blocks import SLAB, grain
from ...ops import direct
from ...precision import compute_dtype, precision_floor, solve_dtype
from ..shared import exact_error

__all__ = ["adjoint_product", "exact_errors", "fast_errors", "lifted"]


def lifted(x: Tensor, scales: Tensor | None) -> Tensor:
    """Return ``x [B, ...]`` in C order and a computing type, divided by its scales.

    What lies so is not copied.
    """
    x = x.to(compute_dtype(x.dtype))
    if scales is not None:
        x = x / along(scales, x)
    return x.contiguous()


def along(scales: Tensor, x: Tensor) -> Tensor:
    """Return the scales in the type of ``x`` and with its axes, to multiply by."""
    return scales.to(x.device, x.real.dtype).view(-1, *[1] * (x.ndim - 1))


def adjoint_product(x: Tensor, factors: Tensor, mode: int) -> Tensor:
    """``x x_n U^H`` of each; of one alone by the product for one, which a large tensor wants.

    (128^3 to 10^3 on one core: ten sweeps of two in 55 milliseconds, and 66 by batches.)
    """
    if len(x) == 1:
        return direct.ttm(x[0], factors[0], mode, transpose=True)[None]
    return ttm(x, factors.mH, mode)


def fast_errors(
    core: Tensor, factors: Sequence[Tensor], squared_norms: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return ``||x - model|| / ||x||`` of each by scalars, and where their digits are lost.

    ``core`` is ``x`` projected on the factors. As `tucker.shared.scalars` has it.
    """
    inner = squared = norms(core).square()
    for n, factor in enumerate(factors):
        wide = factor.to(solve_dtype(factor.dtype))
        skew = torch.bmm(wide.mH, wide)
        skew.diagonal(dim1=1, dim2=2).sub_(1)
        squared = squared + (skew * gram(core, n).conj()).sum((1, 2)).real
    return fast_relative_errors(squared_norms, inner, squared, torch.zeros_like(inner), dtype)


def exact_errors(
    x: Tensor, core: Tensor, factors: Sequence[Tensor], squared_norms: Tensor
) -> Tensor:
    """Return the same from residuals, in double precision where less is too coarse."""
    if math.prod(x.shape[1:]) > grain(SLAB, x):
        # Too large to form models whole.
        each = zip(x, core, zip(*factors, strict=True), squared_norms.tolist(), strict=True)
        return squared_norms.new_tensor([exact_error(*one) for one in each])
    errors = _distances(x, core, factors, squared_norms)
    wide = solve_dtype(core.dtype)
    if core.dtype != wide:
        coarse = errors < 100 * precision_floor(x.dtype)
        if coarse.any():
            again = [factor[coarse].to(wide) for factor in factors]
            errors[coarse] = _distances(
                x[coarse], core[coarse].to(wide), again, squared_norms[coarse]
            )
    return errors


def _distances(x: Tensor, core: Tensor, factors: Sequence[Tensor], squared_norms: Tensor) -> Tensor:
    gaps = norms(x.to(core.dtype) - expand(core, dict(enumerate(factors))))
    return gaps / torch.where(squared_norms > 0, squared_norms, 1.0).sqrt()
