"""Tensor decompositions, fast and trustworthy: CP and Tucker of NumPy, JAX, CuPy and torch arrays."""

from ._dispatch import explain
from .ops import gram, khatri_rao, mttkrp, multi_ttm, ttm
from .unfolding import fold, unfold

__all__ = ["explain", "fold", "gram", "khatri_rao", "mttkrp", "multi_ttm", "ttm", "unfold"]
