"""The Triton kernels as implementations of the operations; loaded when a CUDA tensor comes.

Nothing here imports Triton before a call needs it, and a CPU tensor never does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._dispatch import Cost, Implementation, Problem

if TYPE_CHECKING:
    from ..kernels.devices import Chip

__all__ = ["asked_precision", "reasons", "triton"]

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_MODES = 8


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def reasons(p: Problem) -> list[str]:
    """Every reason why the kernels cannot serve a problem, empty if they can."""
    found = []
    if p.device != "cuda":
        found.append(f"x is on {p.device}; the kernels run on CUDA")
    if p.device == "cuda" and torch.version.hip:
        found.append("the kernels are written for NVIDIA GPUs")
    if not _installed():
        found.append("Triton is not installed; pip install triton")
    if p.capability and p.capability < 80:
        found.append(f"compute capability {p.capability / 10}; the kernels need 8.0 or newer")
    if p.dtype not in _DTYPES:
        found.append(f"x is {p.dtype}; the kernels have {', '.join(_DTYPES)}")
    if len(p.shape) > _MODES:
        found.append(f"{len(p.shape)} modes; the kernels have up to {_MODES}")
    if 0 in (*p.shape, p.rank):
        found.append("nothing to compute")
    return found


def asked_precision(asked: str | None) -> str:
    """Return what is asked for; torch's own setting where that is None."""
    if asked is not None:
        return asked
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def triton(
    load: Callable[[], Callable[..., Tensor]],
    cost: Callable[[Problem, str, Chip], tuple[float, float, float]],
) -> Implementation:
    """Describe a kernel to the dispatch.

    ``load`` imports the launcher, whose last argument is the precision; ``cost`` gives flops, bytes
    and seconds.
    """

    def run(*arguments: Any) -> Tensor:
        *rest, precision = arguments
        return load()(*rest, asked_precision(precision))

    def predict(p: Problem) -> Cost:
        from ..kernels.devices import chip_like

        flops, nbytes, seconds = cost(p, asked_precision(p.precision), chip_like(p.capability))
        return Cost(seconds, flops, nbytes)

    return Implementation("triton", run, predict, reasons)
