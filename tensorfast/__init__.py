"""Fast and trustworthy tensor decompositions of NumPy, JAX, CuPy and torch arrays."""

from . import nn
from ._dispatch import explain
from .cp import cp_als
from .metrics import congruence, core_consistency, factor_match_score, relative_error
from .ops import gram, khatri_rao, mttkrp, multi_ttm, ttm
from .ranks import RankSweep, rank_sweep
from .reconstruct import cp_to_tensor, tucker_to_tensor
from .results import BatchInfo, ConvergenceInfo, CPTensor, TuckerTensor
from .svd import truncated_svd
from .tucker import hooi, hosvd, sthosvd, tucker
from .unfolding import fold, unfold

__version__ = "0.1.0"

__all__ = [
    "BatchInfo",
    "CPTensor",
    "ConvergenceInfo",
    "RankSweep",
    "TuckerTensor",
    "congruence",
    "core_consistency",
    "cp_als",
    "cp_to_tensor",
    "explain",
    "factor_match_score",
    "fold",
    "gram",
    "hooi",
    "hosvd",
    "khatri_rao",
    "mttkrp",
    "multi_ttm",
    "nn",
    "rank_sweep",
    "relative_error",
    "sthosvd",
    "truncated_svd",
    "ttm",
    "tucker",
    "tucker_to_tensor",
    "unfold",
]
