"""Argument checks and their wording: *op: what was given; what is required; what to do*."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch

from .precision import PRECISIONS, STORAGE_DTYPES

__all__ = [
    "batch_dims",
    "callback",
    "cp_rank",
    "factors",
    "finite",
    "mode",
    "modes",
    "modes_at_least",
    "nonempty",
    "number",
    "one_device",
    "only",
    "precision",
    "seed",
    "storage",
    "tucker_rank",
    "whole_number",
]


def whole_number(op: str, name: str, value: Any, least: int) -> int:
    """Return ``value`` as an int, or say why it is not a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{op}: {name} is {value!r} ({type(value).__name__}); expected an integer")
    if value < least:
        raise ValueError(f"{op}: {name} is {value}; expected at least {least}")
    return int(value)


def only(op: str, name: str, value: Any, supported: int) -> None:
    """Refuse a value that the contract knows and this version does not serve yet."""
    least = min(supported, 1)
    if whole_number(op, name, value, least) != supported:
        raise NotImplementedError(
            f"{op}: {name} is {value}; this version supports "
            f"{name}={supported} only; loop over the calls"
        )


def one_device(op: str, tensors: Mapping[str, torch.Tensor | None]) -> None:
    """Refuse named tensors that lie on different devices."""
    (first, head), *others = ((name, t) for name, t in tensors.items() if t is not None)
    for name, tensor in others:
        if tensor.device != head.device:
            raise ValueError(
                f"{op}: {name} is on {tensor.device} but {first} is on {head.device}; expected the "
                "same device"
            )


def number(op: str, name: str, value: Any, least: float = 0.0) -> float:
    """Return ``value`` as a float, or say why it is not a finite number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{op}: {name} is {value!r} ({type(value).__name__}); expected a number")
    converted = float(value)
    if not (math.isfinite(converted) and converted >= least):
        raise ValueError(f"{op}: {name} is {value}; expected a finite number of at least {least}")
    return converted


def mode(op: str, value: Any, ndim: int, name: str = "mode", owner: str = "x has {} modes") -> int:
    """Return a mode in ``range(ndim)``; negative modes count from the end."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{op}: {name} is {value!r} ({type(value).__name__}); expected an integer")
    index = int(value)
    if not -ndim <= index < ndim:
        raise ValueError(
            f"{op}: {name} is {value} but {owner.format(ndim)}; expected {-ndim} <= {name} < {ndim}"
        )
    return index % ndim


def modes(op: str, values: Any, ndim: int, name: str = "modes") -> tuple[int, ...]:
    """Return distinct modes in ``range(ndim)``, in the order given."""
    values = _listed(values)
    if isinstance(values, Integral) or not isinstance(values, Sequence | set | frozenset | range):
        raise TypeError(f"{op}: {name} is {values!r}; expected a sequence of integers")
    out = tuple(mode(op, v, ndim) for v in values)
    if len(set(out)) != len(out):
        raise ValueError(f"{op}: {name} is {tuple(values)}; expected each mode once")
    return out


def _listed(values: Any) -> Any:
    """Return an index array, of whatever library, as a list of numbers."""
    return values.tolist() if hasattr(values, "tolist") else values


def callback(op: str, value: Any) -> None:
    """Check a ``callback`` argument."""
    if value is not None and not callable(value):
        raise TypeError(
            f"{op}: callback is {value!r} ({type(value).__name__}); expected a function of sweep, "
            "error and factors, or None"
        )


def storage(op: str, name: str, dtype: torch.dtype) -> None:
    """Raise a ``TypeError`` that names the supported types."""
    if dtype not in STORAGE_DTYPES:
        names = ", ".join(str(d).removeprefix("torch.") for d in STORAGE_DTYPES)
        raise TypeError(
            f"{op}: {name} has dtype {str(dtype).removeprefix('torch.')}; expected one of {names}"
        )


def precision(op: str, value: Any) -> None:
    """Check a ``precision`` argument."""
    if value is not None and value not in PRECISIONS:
        raise ValueError(f"{op}: precision is {value!r}; expected one of {PRECISIONS} or None")


def modes_at_least(op: str, x: torch.Tensor, least: int) -> None:
    """Refuse a tensor with too few modes."""
    if x.ndim < least:
        raise ValueError(
            f"{op}: x has {x.ndim} modes (shape {tuple(x.shape)}); expected at least {least}"
        )


def batch_dims(op: str, value: Any, x: torch.Tensor, least: int) -> int:
    """Return how many leading axes of ``x`` are a batch; at least ``least`` modes are beside."""
    count = whole_number(op, "batch_dims", value, 0)
    if count == 0:
        modes_at_least(op, x, least)
    elif x.ndim - count < least:
        raise ValueError(
            f"{op}: batch_dims is {count} but x has {x.ndim} axes (shape {tuple(x.shape)}); "
            f"expected at least {least} modes beside those of the batch"
        )
    return count


def seed(op: str, value: Any) -> None:
    """Check a ``seed`` argument: None, a generator, or an integer that can seed one."""
    if value is None or isinstance(value, torch.Generator):
        return
    if whole_number(op, "seed", value, 0) >= 2**64:
        raise ValueError(f"{op}: seed is {value}; expected at most 2**64 - 1")


def nonempty(op: str, x: torch.Tensor, name: str = "x", batch: int = 0) -> None:
    """Refuse a tensor with a mode of length 0; the first ``batch`` axes are none."""
    for n, size in enumerate(x.shape):
        if size == 0 and n >= batch:
            raise ValueError(
                f"{op}: {name}.shape[{n}] is 0 (shape {tuple(x.shape)}); expected every mode to "
                "have length 1 or more; drop the tensor or the empty mode"
            )


def finite(op: str, x: torch.Tensor, name: str = "x", remedy: str = "fill or drop them") -> None:
    """Refuse NaN and Inf: count them and name the first index."""
    bad = ~torch.isfinite(x)
    count = int(bad.sum())
    if count:
        first = bad.reshape(-1).to(torch.uint8).argmax()
        index = tuple(int(i) for i in torch.unravel_index(first, x.shape))
        raise ValueError(
            f"{op}: {name} has {count} non-finite values of {x.numel()}, the first at {index} "
            f"({x[index].item()}); expected finite values; {remedy}"
        )


def cp_rank(op: str, value: Any) -> int:
    """Return the rank of a CP decomposition, a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{op}: rank is {value!r} ({type(value).__name__}); expected one integer, the "
            "number of components"
        )
    if value < 1:
        raise ValueError(f"{op}: rank is {value}; expected at least 1")
    return int(value)


def tucker_rank(op: str, rank: Any, shape: Sequence[int]) -> tuple[int, ...]:
    """Return one rank a mode, cut to the mode's length, from an int, a sequence or a ratio."""
    rank = _listed(rank)
    if isinstance(rank, Real) and not isinstance(rank, Integral | bool):
        ratio = float(rank)
        if not 0.0 < ratio <= 1.0:
            raise ValueError(f"{op}: rank is {rank}; expected a ratio in (0, 1], or integers")
        # 0.07 * 100 is 7 and a rounding error, which is not to make it 8.
        return tuple(max(1, math.ceil(ratio * size - 1e-9 * size)) for size in shape)
    if isinstance(rank, Integral) and not isinstance(rank, bool):
        ranks: Sequence[Any] = [rank] * len(shape)
    elif isinstance(rank, Sequence) and not isinstance(rank, str):
        ranks = rank
    else:
        raise TypeError(
            f"{op}: rank is {rank!r}; expected an integer, one integer per mode, or a ratio "
            "in (0, 1]"
        )
    if len(ranks) != len(shape):
        raise ValueError(
            f"{op}: rank has {len(ranks)} entries but x has {len(shape)} modes; expected one a mode"
        )
    return tuple(
        min(whole_number(op, f"rank[{n}]", r, 1), size)
        for n, (r, size) in enumerate(zip(ranks, shape, strict=True))
    )


def factors(
    op: str,
    matrices: Sequence[torch.Tensor],
    shape: Sequence[int] | None = None,
    skip: int | None = None,
    batch: Sequence[int] = (),
) -> int:
    """Check factor matrices against each other and, if given, a tensor's shape; return their rank.

    The entry at ``skip`` is not looked at. Each has the leading axes ``batch``.
    """
    lead = "".join(f"{size}, " for size in batch)
    if shape is not None and len(matrices) != len(shape):
        raise ValueError(
            f"{op}: got {len(matrices)} factors but x has {len(shape)} modes; expected one a mode"
        )
    rank: int | None = None
    for n, factor in enumerate(matrices):
        if n == skip:
            continue
        if factor.ndim != 2 + len(batch):
            kind = "a stack of matrices" if batch else "a matrix"
            raise ValueError(
                f"{op}: factors[{n}] has shape {tuple(factor.shape)}; expected {kind} "
                f"({lead}I_{n}, R)"
            )
        storage(op, f"factors[{n}]", factor.dtype)
        rank = int(factor.shape[-1]) if rank is None else rank
        rows = int(factor.shape[-2]) if shape is None else int(shape[n])
        if tuple(factor.shape) != (*batch, rows, rank):
            given = f"{op}: factors[{n}] has shape {tuple(factor.shape)}"
            if shape is not None and factor.shape[-2] != rows:
                given += f" but x.shape[{n + len(batch)}] is {rows}"
            raise ValueError(f"{given}; expected ({lead}{rows}, {rank})")
    if rank is None:
        raise ValueError(f"{op}: no factor is left; expected at least one")
    if rank < 1:
        raise ValueError(f"{op}: the factors have 0 columns; expected rank 1 or more")
    return rank
