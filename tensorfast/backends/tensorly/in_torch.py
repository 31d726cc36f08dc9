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

__all__ = [
    "contract_data",
    "contract_partial",
    "contract_sides",
    "copy",
    "equal",
    "in_double",
    "khatri_rao",
    "khatri_rao_operand",
    "mttkrp",
    "ttm",
]


def in_double(matrix: Tensor, vector: Tensor) -> Tensor:
    """Multiply a matrix of integers by a vector in double precision, in blocks."""
    blocks = matrix.split(SLAB // matrix.shape[1])
    return torch.cat([block.to(vector.dtype) @ vector for block in blocks])
