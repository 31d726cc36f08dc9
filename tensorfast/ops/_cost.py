"""What plain torch is expected to take: the lower of two roofs, and its calls."""

from __future__ import annotations

import math

from .._dispatch import Cost, Problem

__all__ = ["contraction", "itemsize", "roofline", "streaming"]

#: Seconds of a call from Python, with what it launches.
_CALL = {"cpu": 1e-5, "cuda": 2e-5}


def itemsize(dtype: str) -> int:
    """Bytes of an element as stored."""
    return {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8}.get(dtype, 16)


def roofline(p: Problem, flops: float, nbytes: float, calls: int = 1) -> Cost:
    """Predict a cost from flops and bytes.

    A CPU is taken for two cores of a server at 150 GFLOP/s in float32 and 30 GB/s, a GPU for what
    its data sheet says, of which matrix products and copies reach four fifths.
    """
    double = p.double or p.dtype == "float64"
    if p.device == "cuda":
        from ..kernels.devices import chip_like

        chip = chip_like(p.capability)
        single = chip.fp32 if p.precision == "ieee" else chip.tf32
        rate, bandwidth = 0.8 * (chip.fp64 if double else single), chip.bandwidth
        bandwidth *= 0.8
    else:
        rate, bandwidth = 7.5e10 if double or itemsize(p.dtype) > 4 else 1.5e11, 3e10
    seconds = max(flops / rate, nbytes / bandwidth) + calls * _CALL.get(p.device, 1e-5)
    return Cost(seconds, flops, nbytes)


def contraction(p: Problem, results: float, formed: float = 0.0, calls: int = 1) -> Cost:
    """Predict a product of all of ``x`` with ``rank`` columns.

    ``results`` and ``formed`` are the elements written once, and those written and read back.
    """
    size, width = math.prod(p.shape), itemsize(p.dtype)
    wide = max(4, width)
    return roofline(p, 2.0 * size * p.rank, size * width + (results + 2 * formed) * wide, calls)


def streaming(p: Problem, flops: float, elements: float, calls: int = 1) -> Cost:
    """Predict an operation that moves ``elements`` and does little with them."""
    return roofline(p, flops, elements * max(4, itemsize(p.dtype)), calls)
