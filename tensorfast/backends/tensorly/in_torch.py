"""What computes for arrays of torch's on a CPU: `tensorfast.baseline`."""

from __future__ import annotations

import torch
from torch import Tensor
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
from ...blocks import SLAB
from ...precision import solve_dtype

__all__ = [
    "contract_data",
    "contract_partial",
    "contract_sides",
    "copy",
    "equal",
    "inner",
    "khatri_rao",
    "khatri_rao_operand",
    "mttkrp",
    "ttm",
]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Sum of products, in double precision."""
    wide = solve_dtype(a.dtype)
    parts = zip(a.reshape(-1).split(SLAB), b.reshape(-1).split(SLAB), strict=True)
    return torch.stack([torch.dot(p.to(wide), q.to(wide)) for p, q in parts]).sum().to(a.dtype)
