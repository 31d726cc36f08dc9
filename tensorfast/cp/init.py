"""Where ALS starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check, arrays
from ..precision import compute_dtype
from ..svd import gaussian, generator, leading_subspace

__all__ = ["OFF_SADDLE", "check_name", "given_factors", "initial_factors"]

#: Length of the random vectors added to singular vectors. Symmetric data put the bare ones on a
#: saddle point of ALS: e0 e0 e1 + e0 e1 e0 + e1 e0 e0 at rank 2 rests there at an error of 0.82.
OFF_SADDLE = 1e-2


def initial_factors(
    op: str,
    x: Tensor,
    rank: int,
    init: Any,
    seed: int | torch.Generator | None,
    free: Sequence[int],
) -> list[Tensor]:
    """Return fresh contiguous factors of the computing type; given ones are copied.

    The weights of a given model go into its first free mode.
    """
    if isinstance(init, str):
        check_name(op, init)
        rng = generator(op, seed, x.device)
        start = _random(x, rank, rng)
        if init == "svd":
            # The first mode is solved for before it is ever used.
            for n in range(1, x.ndim):
                k = min(rank, x.shape[n])
                start[n] *= OFF_SADDLE
                start[n][:, :k] += leading_subspace(x, n, k, rng)
                start[n][:, k:] /= OFF_SADDLE
        return start
    return given_factors(op, x, rank, init, free)


def check_name(op: str, init: str) -> None:
    """Refuse a name that is none of a start."""
    if init not in ("svd", "random"):
        raise ValueError(
            f"{op}: init is {init!r}; expected 'svd', 'random', a CPTensor or (weights, factors)"
        )


def _random(x: Tensor, rank: int, rng: torch.Generator) -> list[Tensor]:
    """Gaussian columns scaled to length 1, so that no product of factors overflows."""
    dtype = compute_dtype(x.dtype)
    drawn = (gaussian(size, rank, dtype, x.device, rng) for size in x.shape)
    return [f / torch.linalg.vector_norm(f, dim=0) for f in drawn]


def given_factors(
    op: str,
    x: Tensor,
    rank: int,
    init: Any,
    free: Sequence[int],
    batch: Sequence[int] = (),
) -> list[Tensor]:
    """Return copies of a given model's factors, of the computing type, with the weights in one.

    ``batch`` are the leading axes that model and data have in common.
    """
    try:
        weights, factors = init
    except (TypeError, ValueError):
        raise TypeError(
            f"{op}: init is {type(init).__name__}; expected 'svd', 'random', a CPTensor or "
            "(weights, factors)"
        ) from None
    matrices = arrays.as_tensors(op, "init factors", factors)
    given = _check.factors(op, matrices, x.shape[len(batch) :], batch=batch)
    if given != rank:
        raise ValueError(f"{op}: init has rank {given} but rank is {rank}; expected the same")
    for n, matrix in enumerate(matrices):
        _check.one_device(op, {"x": x, f"init factors[{n}]": matrix})
        _check.finite(op, matrix, f"init factors[{n}]")
    if weights is not None:
        matrices.append(arrays.as_tensor(op, "init weights", weights))
        expected = (*batch, rank)
        if tuple(matrices[-1].shape) != expected:
            raise ValueError(
                f"{op}: init weights has shape {tuple(matrices[-1].shape)}; expected {expected}"
            )
        _check.finite(op, matrices[-1], "init weights")
    dtype = compute_dtype(x.dtype)
    if not dtype.is_complex and any(m.is_complex() for m in matrices):
        raise TypeError(f"{op}: init is complex but x is real; expected a real model")
    start = [m.detach().to(dtype).clone(memory_format=torch.contiguous_format) for m in matrices]
    if weights is not None:
        start[free[0]] *= start.pop()[..., None, :]
    return start
