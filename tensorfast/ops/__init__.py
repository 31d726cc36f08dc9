"""The algebra: one operation a file, each a torch custom op with a fake kernel and a gradient."""

from .gram import gram
from .khatri_rao import khatri_rao
from .mttkrp import mttkrp
from .ttm import multi_ttm, ttm

__all__ = ["gram", "khatri_rao", "mttkrp", "multi_ttm", "ttm"]
