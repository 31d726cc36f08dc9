"""The operations as engines call them: without checks, gradients, or the cost of a registered call.

On a CPU the plain-torch formulation; on a GPU whatever the dispatch chooses, in ``"ieee"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _dispatch, baseline
from ..precision import compute_dtype
from .gram import _problem as _gram_problem
from .mttkrp import _problem as _mttkrp_problem
from .ttm import _problem as _ttm_problem

__all__ = ["gram", "mttkrp", "ttm"]


def gram(x: Tensor, mode: int, dtype: torch.dtype) -> Tensor:
    """``unfold(x, n) @ unfold(x, n)^H``, computed and returned in ``dtype``."""
    if not x.is_cuda:
        return baseline.gram(x, mode, dtype)
    problem = _gram_problem(x, mode, dtype != compute_dtype(x.dtype), "ieee")
    return _dispatch.runner(problem)(x, mode, dtype, "ieee")


def mttkrp(x: Tensor, others: Sequence[Tensor], mode: int) -> Tensor:
    """``unfold(x, n) @ conj(khatri_rao(others))``; ``others`` lacks the mode's factor."""
    if not x.is_cuda:
        return baseline.mttkrp(x, others, mode)
    problem = _mttkrp_problem(x, others, mode, None, "ieee")
    return _dispatch.runner(problem)(x, others, mode, None, "ieee")


def ttm(x: Tensor, matrix: Tensor, mode: int, transpose: bool = False) -> Tensor:
    """``x x_n matrix``, or its adjoint."""
    if not x.is_cuda:
        return baseline.ttm(x, matrix, mode, transpose)
    problem = _ttm_problem(x, matrix, mode, transpose, "ieee")
    return _dispatch.runner(problem)(x, matrix, mode, transpose, "ieee")
