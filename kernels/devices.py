"""What the kernels' decisions may know of a GPU: limits, and rates to weigh against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

__all__ = ["CHIPS", "IN_CACHE", "ITEMSIZE", "LAUNCH", "REACHED", "Chip", "chip_like", "chip_of"]

#: Bytes of an element.
ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

#: Seconds from one launch to the next, and the share of the bandwidth that streaming kernels reach.
LAUNCH, REACHED = 4e-6, 0.85

#: Elements of partial results that stay in the L2 cache whatever else goes through it.
IN_CACHE = 1 << 20


@dataclass(frozen=True)
class Chip:
    """A GPU as the cost model sees it.

    Attributes
    ----------
    capability : int
        Compute capability times ten, such as 90.
    multiprocessors : int
    shared_memory : int
        Bytes one thread block may use.
    bandwidth : float
        Bytes a second from memory.
    fp32, tf32, bf16, fp64 : float
        Flops a second: fused multiply-adds of float32, dense tensor cores, the best of float64.
    name : str
        Under which ``tuned/`` may know it, such as ``"nvidia-h200"``.
    """

    capability: int
    multiprocessors: int
    shared_memory: int
    bandwidth: float
    fp32: float
    tf32: float
    bf16: float
    fp64: float
    name: str = ""

    @property
    def matrix_rows(self) -> int:
        """Rows that a tile needs for the newest matrix instructions, as Triton uses them.

        Of Hopper's and B200's, whose operands lie in shared memory; of the others', in registers.
        """
        return 64 if self.capability in (90, 100) else 16

    @property
    def double_cores(self) -> bool:
        """Whether Triton multiplies float64 on tensor cores."""
        return self.capability < 100


#: From the vendor's data sheets (A100 SXM, H200 SXM, B200, RTX 5090); ratios are what matters.
CHIPS = {
    80: Chip(80, 108, 163 << 10, 2.0e12, 19.5e12, 156e12, 312e12, 19.5e12),
    90: Chip(90, 132, 227 << 10, 4.8e12, 67e12, 495e12, 990e12, 67e12),
    100: Chip(100, 148, 227 << 10, 8.0e12, 75e12, 1100e12, 2250e12, 37e12),
    120: Chip(120, 170, 99 << 10, 1.8e12, 105e12, 105e12, 210e12, 1.6e12),
}


def chip_like(capability: int) -> Chip:
    """Return the chip whose numbers stand for a compute capability, the nearest older one known.

    Hopper's where it is 0: no GPU, as with fake tensors.
    """
    known = [c for c in CHIPS if c <= (capability or 90)]
    return CHIPS[max(known, default=80)]


@cache
def chip_of(device: torch.device) -> Chip:
    """Return the chip that stands for a device, with its own limits; without a GPU, Hopper's."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return chip_like(0)
    own = torch.cuda.get_device_properties(device)
    return replace(
        chip_like(10 * own.major + own.minor),
        multiprocessors=own.multi_processor_count,
        shared_memory=own.shared_memory_per_block_optin,  # type: ignore[attr-defined]
        name=own.name.lower().replace(" ", "-"),
    )
