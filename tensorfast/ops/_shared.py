"""What every op needs once: weights, real gradients of complex products, and a vmap rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .. import _check, arrays
from .._dispatch import Problem
from ..precision import common_dtype, compute_dtype

__all__ = [
    "as_torch_is_set",
    "bring_weights",
    "by_layout",
    "describe_tensor",
    "gradient_of",
    "map_over_batch",
    "unfolded",
]

Result = TypeVar("Result")

#: Layouts of which something is remembered at most.
REMEMBERED = 256


def bring_weights(op: str, weights: Any, rank: int) -> Tensor | None:
    """Bring in column weights of shape (rank,), or None."""
    if weights is None:
        return None
    w = arrays.as_tensor(op, "weights", weights)
    _check.storage(op, "weights", w.dtype)
    if tuple(w.shape) != (rank,):
        raise ValueError(f"{op}: weights has shape {tuple(w.shape)}; expected ({rank},)")
    return w


def gradient_of(argument: Tensor, grad: Tensor) -> Tensor:
    """Cast a gradient to its argument's type; that of a real argument is the real part."""
    if grad.is_complex() and not argument.is_complex():
        grad = grad.real
    return grad.to(argument.dtype)


def unfolded(x: Tensor, mode: int) -> Tensor:
    """Return mode ``mode`` against all others, for tensors that may be empty."""
    return x.movedim(mode, 0).reshape(x.shape[mode], x.numel() // max(1, x.shape[mode]))


def describe_tensor(op: str, x: Tensor, *others: Tensor | None, **more: Any) -> Problem:
    """Describe a call by its tensor for the dispatch; ``others`` may widen the type."""
    wide = common_dtype(x, *(t for t in others if t is not None))
    dtype = str(x.dtype if wide == compute_dtype(x.dtype) else wide).removeprefix("torch.")
    capability = 0
    if x.is_cuda and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(x.device)
        capability = 10 * major + minor
    return Problem(
        op=op,
        shape=tuple(x.shape),
        dtype=dtype,
        device=x.device.type,
        strides=tuple(x.stride()),
        capability=capability,
        **more,
    )


def by_layout(function: Callable[..., Result]) -> Callable[..., Result]:
    """Remember what a function of a tensor's layout, and of what is hashable, returned for it.

    The layout is its first argument's; the tensor itself is not kept.
    """
    known: dict[Any, Result] = {}

    @wraps(function)
    def remembering(x: Tensor, *others: Any) -> Result:
        key = (tuple(x.shape), x.stride(), x.dtype, x.device, *others)
        # One look: another thread may clear what is known at any time.
        found = known.get(key, known)
        if found is known:
            found = function(x, *others)
            if len(known) >= REMEMBERED:
                known.clear()
            known[key] = found
        return cast(Result, found)

    return remembering


def as_torch_is_set(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Drop the last argument, the precision: torch's own products follow `matmul_precision`."""
    return lambda *arguments: run(*arguments[:-1])


def map_over_batch(op: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, int]]:
    """Return a rule for ``op.register_vmap``: one call an entry of the batch, results stacked.

    Of an empty batch the fake kernel tells shape and type.
    """

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        if info.batch_size == 0:
            entry = op(*(_on_meta(a, d) for a, d in zip(args, in_dims, strict=True)))
            like = args[0] if isinstance(args[0], Tensor) else args[0][0]
            return like.new_empty(0, *entry.shape, dtype=entry.dtype), 0
        calls = (
            [_select(a, d, index) for a, d in zip(args, in_dims, strict=True)]
            for index in range(info.batch_size)
        )
        return torch.stack([op(*call) for call in calls]), 0

    return rule


def _select(argument: Any, dim: Any, index: int) -> Any:
    if isinstance(argument, list | tuple):
        return [_select(a, d, index) for a, d in _with_dims(argument, dim)]
    return argument if dim is None else argument.select(dim, index)


def _on_meta(argument: Any, dim: Any) -> Any:
    """Return an entry without values."""
    if isinstance(argument, list | tuple):
        return [_on_meta(a, d) for a, d in _with_dims(argument, dim)]
    if not isinstance(argument, Tensor):
        return argument
    shape = [size for n, size in enumerate(argument.shape) if n != dim]
    return argument.new_empty(shape, device="meta")


def _with_dims(arguments: Sequence[Any], dim: Any) -> Iterator[tuple[Any, Any]]:
    dims = dim if isinstance(dim, list | tuple) else [dim] * len(arguments)
    return zip(arguments, dims, strict=True)
