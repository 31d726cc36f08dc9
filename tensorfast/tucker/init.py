"""Where orthogonal iteration starts from: what is given, and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..reconstruct import bring_tucker

__all__ = ["check_name", "given_factors"]


def check_name(op: str, init: str) -> None:
    """Refuse what is not the name of a start."""
    if init not in ("sthosvd", "random"):
        raise ValueError(
            f"{op}: init is {init!r}; expected 'sthosvd', 'random', a TuckerTensor or "
            "(core, factors)"
        )


def given_factors(
    op: str,
    shape: Sequence[int],
    ranks: Sequence[int],
    dtype: torch.dtype,
    init: Any,
    batch: Sequence[int] = (),
) -> list[Tensor]:
    """Return the factors of a given model in ``dtype``, if they fit; not yet orthonormal."""
    _, given = bring_tucker(op, init, batched=bool(batch))
    if len(given) != len(shape):
        raise ValueError(
            f"{op}: init has {len(given)} modes but x has {len(shape)}; expected the same"
        )
    if given[0].is_complex() and not dtype.is_complex:
        raise TypeError(f"{op}: init is complex but x is real; expected a real model")
    for n, factor in enumerate(given):
        expected = (*batch, shape[n], ranks[n])
        if tuple(factor.shape) != expected:
            raise ValueError(
                f"{op}: init factors[{n}] has shape {tuple(factor.shape)}; expected {expected}"
            )
        _check.finite(op, factor, f"init factors[{n}]")
    return [factor.detach().to(dtype) for factor in given]
