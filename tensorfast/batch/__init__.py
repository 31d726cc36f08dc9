"""Many tensors of one shape: what the fits of a batch share, of whatever model."""

from .chunks import Report, run_chunks
from .data import named_index, norms, scales_of, squared_norms
from .ledger import Ledger
from .stack import Stack
from .stopping import BatchStoppingRule, fast_relative_errors

__all__ = [
    "BatchStoppingRule",
    "Ledger",
    "Report",
    "Stack",
    "fast_relative_errors",
    "named_index",
    "norms",
    "run_chunks",
    "scales_of",
    "squared_norms",
]
