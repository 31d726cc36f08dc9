"""What of TensorLy's calls is served: NumPy arrays and torch tensors of one floating type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ... import arrays
from ...blocks import by_stride
from ...cp.tree import Products
from ...precision import STORAGE_DTYPES, compute_dtype
from . import in_numpy, in_torch

__all__ = ["Library", "Operands", "operands"]


class Library(Products, Protocol):
    """What computes: `in_torch` or `in_numpy`."""

    def khatri_rao(self, factors: Sequence[Tensor], weights: Tensor | None = None, /) -> Tensor:
        """Columnwise Kronecker product, times weights of columns."""
        ...

    def mttkrp(self, x: Tensor, others: Sequence[Tensor], mode: int, /) -> Tensor:
        """Matricised tensor times Khatri-Rao product."""
        ...

    def ttm(self, x: Tensor, matrix: Tensor, mode: int, transpose: bool, /) -> Tensor:
        """N-mode product."""
        ...

    def in_double(self, matrix: Tensor, vector: Tensor, /) -> Tensor:
        """Multiply a matrix of integers by a vector in double precision."""
        ...

    def equal(self, a: Tensor, b: Tensor, /) -> bool:
        """Whether two tensors hold the same numbers."""
        ...

    def copy(self, a: Tensor, /) -> Tensor:
        """Copy a tensor."""
        ...


#: Half precision is left to TensorLy, which answers in it.
DTYPES = {dtype for dtype in STORAGE_DTYPES if compute_dtype(dtype) == dtype}
NUMPY_DTYPES = {np.dtype(str(dtype).removeprefix("torch.")) for dtype in DTYPES}


@dataclass(frozen=True)
class Operands:
    """Arrays of one kind and type as tensors, and how to answer in kind.

    Attributes
    ----------
    tensors : list of Tensor
    by : Library or None
        What computes: on a CPU, where nobody differentiates or traces, the library that the arrays
        are of. Otherwise the registered operations do.
    answer : callable
    """

    tensors: list[Tensor]
    by: Library | None
    answer: Callable[[Tensor], Any]


def operands(*given: Any) -> Operands | None:
    """Bring arrays in; None unless they are all NumPy's or all torch's, of one type and device."""
    kinds = {type(a) for a in given}
    if kinds == {np.ndarray}:
        return _arrays(given)
    if kinds <= {Tensor, torch.nn.Parameter}:
        return _tensors(list(given))
    return None


def _arrays(given: tuple[Any, ...]) -> Operands | None:
    dtype = given[0].dtype
    if dtype not in NUMPY_DTYPES or any(a.dtype != dtype or not a.size for a in given):
        return None
    tensors = [arrays.as_tensor("tensorly", "tensor", a) for a in given]
    # Strided slices are copied block by block in torch.
    dense = tensors[0].permute(by_stride(tensors[0])).is_contiguous()
    return Operands(tensors, in_numpy if dense else in_torch, _as_numpy)


def _as_numpy(tensor: Tensor) -> Any:
    return tensor.resolve_conj().numpy()


def _tensors(given: list[Tensor]) -> Operands | None:
    dtype, device = given[0].dtype, given[0].device
    if dtype not in DTYPES or device.type not in ("cpu", "cuda"):
        return None
    for a in given:
        if a.dtype != dtype or a.device != device or a.layout != torch.strided or not a.numel():
            return None
    # These reach through plain operations, and so through TensorLy's own functions.
    if (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled(device.type)
    ):
        return None
    differentiated = torch.is_grad_enabled() and any(a.requires_grad for a in given)
    plain = device.type == "cpu" and not differentiated and not torch.compiler.is_compiling()
    tensors = [a.resolve_conj().resolve_neg() for a in given]
    return Operands(tensors, in_torch if plain else None, _as_it_is)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
