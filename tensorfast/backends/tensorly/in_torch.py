"""What computes for arrays of torch's on a CPU: `tensorfast.baseline`."""

from __future__ import annotations

from torch import clone as copy
from torch import equal as equal

from ...baseline import (
    contract_data,
    contract_partial,
    contract_sides,
    khatri_rao,
    khatri_rao_operand,
    mttkrp,
    ttm,
)

__all__ = [
    "contract_data",
    "contract_partial",
    "contract_sides",
    "copy",
    "equal",
    "khatri_rao",
    "khatri_rao_operand",
    "mttkrp",
    "ttm",
]
