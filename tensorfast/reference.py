"""The operations as literal formulas: one einsum each, any dtype, no thought for speed or memory.

This is the oracle of the tests (in float64) and the last resort of the dispatch.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["cp_to_tensor", "gram", "khatri_rao", "mttkrp", "ttm", "tucker_to_tensor"]

_R = "z"


def _letters(n: int) -> str:
    return string.ascii_lowercase[:n]


def _conjugate(a: Tensor) -> Tensor:
    """Conjugate, not lazily: compiled graphs call this code where lazy ones are ignored."""
    return torch.conj_physical(a) if a.is_complex() else a


def _lift(*tensors: Tensor) -> list[Tensor]:
    """Bring tensors to one type that computes: half precision is storage only."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    dtype = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    return [tensor.to(dtype) for tensor in tensors]


def khatri_rao(factors: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """``out[(i, j, ...), r] = weights[r] A[i, r] B[j, r] ...``, the first index slowest."""
    modes = _letters(len(factors))
    terms = ",".join(f"{m}{_R}" for m in modes)
    operands = list(factors)
    if weights is not None:
        terms, operands = f"{terms},{_R}", [*operands, weights]
    out = torch.einsum(f"{terms}->{modes}{_R}", *_lift(*operands))
    return out.reshape(-1, out.shape[-1])


def mttkrp(x: Tensor, others: Sequence[Tensor], mode: int, weights: Tensor | None = None) -> Tensor:
    """``out[i_n, r] = conj(weights[r]) sum x[i_0, ...] prod_{m != n} conj(A_m[i_m, r])``.

    ``others`` are the factors of all modes but ``mode``.
    """
    modes = _letters(x.ndim)
    terms = [modes, *(m + _R for m in modes.replace(modes[mode], ""))]
    operands = [x, *(_conjugate(factor) for factor in others)]
    out = torch.einsum(f"{','.join(terms)}->{modes[mode]}{_R}", *_lift(*operands))
    if weights is None:
        return out
    # Weights of another precision do not widen the result.
    return out * _conjugate(
        weights.to(out.dtype.to_complex() if weights.is_complex() else out.dtype)
    )


def ttm(x: Tensor, matrix: Tensor, mode: int, transpose: bool = False) -> Tensor:
    """``out[..., j, ...] = sum_i x[..., i, ...] matrix[j, i]``, or ``conj(matrix[i, j])``."""
    modes = _letters(x.ndim)
    new = modes.replace(modes[mode], _R)
    operand = _conjugate(matrix) if transpose else matrix
    term = modes[mode] + _R if transpose else _R + modes[mode]
    return torch.einsum(f"{modes},{term}->{new}", *_lift(x, operand))


def gram(x: Tensor, mode: int, dtype: torch.dtype | None = None) -> Tensor:
    """``out[i, j] = sum x[..., i, ...] conj(x[..., j, ...])``."""
    modes = _letters(x.ndim)
    other = modes.replace(modes[mode], _R)
    lifted = _lift(x)[0].to(dtype) if dtype is not None else _lift(x)[0]
    return torch.einsum(f"{modes},{other}->{modes[mode]}{_R}", lifted, _conjugate(lifted))


def cp_to_tensor(weights: Tensor | None, factors: Sequence[Tensor]) -> Tensor:
    """``out[i, j, ...] = sum_r weights[r] A[i, r] B[j, r] ...``."""
    modes = _letters(len(factors))
    terms, operands = [m + _R for m in modes], list(factors)
    if weights is not None:
        terms, operands = [*terms, _R], [*operands, weights]
    return torch.einsum(f"{','.join(terms)}->{modes}", *_lift(*operands))


def tucker_to_tensor(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """``out = core x_0 U_0 x_1 U_1 ...``."""
    for mode, factor in enumerate(factors):
        core = ttm(core, factor, mode)
    return core
