"""The operations as engines call them: without checks, gradients, or the cost of a registered call.

On a CPU the plain-torch formulation; on a GPU whatever the dispatch chooses, in ``"ieee"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .. import _dispatch, baseline
from ..precision import compute_dtype
from ._shared import describe_tensor
from .gram import _problem as _gram_problem
from .mttkrp import _problem as _mttkrp_problem
from .ttm import _problem as _ttm_problem

__all__ = ["gram", "mttkrp", "ttm", "ttm_seconds"]


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


def ttm_seconds(x: Tensor, sizes: Sequence[int], mode: int, rank: int) -> float:
    """Predict `ttm` of ``x``, or of a C-ordered tensor of other sizes that it was contracted to."""
    whole = tuple(sizes) == tuple(x.shape)
    problem = describe_tensor("ttm", x, mode=mode, rank=rank, precision="ieee")
    if not whole:
        strides = tuple(math.prod(sizes[n + 1 :]) for n in range(len(sizes)))
        dtype = str(compute_dtype(x.dtype)).removeprefix("torch.")
        problem = replace(problem, shape=tuple(sizes), strides=strides, dtype=dtype)
    return _dispatch.choose(problem).cost(problem).seconds


def ttm(x: Tensor, matrix: Tensor, mode: int, transpose: bool = False) -> Tensor:
    """``x x_n matrix``, or its adjoint."""
    if not x.is_cuda:
        return baseline.ttm(x, matrix, mode, transpose)
    problem = _ttm_problem(x, matrix, mode, transpose, "ieee")
    return _dispatch.runner(problem)(x, matrix, mode, transpose, "ieee")
