"""Tucker decompositions of a batch of tensors of one shape: the calls of one for many.

The tensors are worked on in chunks that stay in cache, each from its first sweep to its last. What
a sweep of HOOI takes of 1000 tensors 16 x 16 x 16 to 4 x 4 x 4, float32, in runs ``(0, 1) (2, 0)
(1, 2)``, with the milliseconds of one core when nothing else runs there:

- one and a half projections of the tensors, 33 MFLOP, 16 MB read and 4 written each: 1.5;
- three of the projected tensors ``[B, 4, 16, 16]``, 8 MFLOP, 4 MB and 1 each: 1.5;
- three updates in float64, of ``[B, 16, 16]`` unfoldings: widened and squared, 8 MFLOP, 3 x 0.5;
  two products with the squares and two orthonormal bases ``[B, 16, 4]``, 3 x 1.6; one of
  ``[B, 16, 12]``, 3 x 2; its squares ``[B, 12, 12]``, 11 MFLOP, 3 x 0.5; their eigenvectors by
  LAPACK, one after another, 3 x 7.5; products with these, layout and type, 3 x 1;
- errors, rules, and calls: 1.

In all 43, half of it eigenvectors; 46 were measured, and up to 120 with others on the machine. A
loop over `hooi`, in turns with it on one core, took 10 times as long, over TensorLy's `tucker` 7.4
times on torch and 5.2 times on NumPy, at errors that differ by 5e-12. `sthosvd` of the same tensors
takes three Gram matrices in float64, of sums of 256, 64 and 16 terms, and their eigenvectors, 3 x
13: 58 in all, a loop over it 7 times as long, over TensorLy's HOSVD 8 and 6.7 times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import arrays
from ...batch import Stack, run_chunks, scales_of, squared_norms
from ...blocks import SLAB, grain
from ...convergence import account
from ...ops.small import orthonormal
from ...precision import compute_dtype
from ...progress import progress_bar
from ...results import BatchInfo, ConvergenceInfo, TuckerTensor
from ...svd import gaussian, generator
from ..init import check_name, given_factors
from ..modewise import order_of_modes, truncate
from .iteration import BatchHOOI
from .model import adjoint_product, along, exact_errors, fast_errors, lifted
from .subspace import bases_of_rank

__all__ = ["Callback", "hooi_batch", "truncate_batch"]

#: ``callback(sweep, errors, factors) -> bool``.
Callback = Callable[[int, Any, list[Any]], bool]


class _Models:
    """Room for the models of a batch."""

    def __init__(self, data: Stack, ranks: Sequence[int]) -> None:
        size, dtype, device = len(data), compute_dtype(data.dtype), data.x.device
        self.core = torch.empty(size, *ranks, dtype=dtype, device=device)
        pairs = zip(data.shape, ranks, strict=True)
        # The adjoint of each lies in C order, as products take it.
        self.factors = [
            torch.empty(size, rank, length, dtype=dtype, device=device).mT for length, rank in pairs
        ]
        self._batch = data.batch

    def outward(self) -> list[Tensor]:
        """Return the factors with the axes of the batch, as copies."""
        copies = [torch.empty(f.shape, dtype=f.dtype, device=f.device) for f in self.factors]
        for copy, factor in zip(copies, self.factors, strict=True):
            copy.copy_(factor)
        return [copy.view(*self._batch, *copy.shape[1:]) for copy in copies]

    def result(
        self, scales: Tensor | None, infos: Sequence[ConvergenceInfo], like: Any
    ) -> TuckerTensor:
        """Pack the models as arrays of the kind of ``like``."""
        core = self.core if scales is None else self.core * along(scales, self.core)
        return TuckerTensor(
            arrays.in_kind(core.view(*self._batch, *core.shape[1:]), like),
            [arrays.in_kind(factor, like) for factor in self.outward()],
            BatchInfo(infos, self._batch),
        )


def truncate_batch(
    op: str,
    x: Tensor,
    dims: int,
    ranks: Sequence[int],
    order: Sequence[int],
    *,
    sequential: bool,
    like: Any,
) -> TuckerTensor:
    """Truncate each tensor of ``x``, whose first ``dims`` axes are the batch's, to these ranks."""
    data = Stack(x, dims)
    scales, models = _scales(op, data), _Models(data, ranks)
    found = []
    for part in data.parts(grain(SLAB, x)):
        own = lifted(data[part], None if scales is None else scales[part])
        squared = squared_norms(own)
        core, factors = _truncated(own, ranks, order, sequential)
        errors, lost = fast_errors(core, factors, squared, own.dtype)
        index = lost.nonzero().squeeze(1)
        if len(index):
            some = [f[index] for f in factors]
            errors[index] = exact_errors(own[index], core[index], some, squared[index])
        found.append(errors)
        models.core[part] = core
        for room, factor in zip(models.factors, factors, strict=True):
            room[part] = factor
    message = f"One pass over the modes, ranks {tuple(ranks)}."
    every = torch.cat(found).tolist() if found else []
    return models.result(scales, [account("converged", [e], message) for e in every], like)


def hooi_batch(
    op: str,
    x: Tensor,
    dims: int,
    ranks: Sequence[int],
    *,
    init: Any,
    seed: int | torch.Generator | None,
    n_iter_max: int,
    tol: float,
    callback: Callback | None,
    progress: bool,
    like: Any,
) -> TuckerTensor:
    """Run `hooi` on each tensor of ``x``, whose first ``dims`` axes are the batch's."""
    data = Stack(x, dims)
    scales, models = _scales(op, data), _Models(data, ranks)
    start = _start(op, data, ranks, init, seed, models.factors)

    def begin(part: slice) -> BatchHOOI:
        own = lifted(data[part], None if scales is None else scales[part])
        factors = [factor[part] for factor in models.factors]
        if start is not None:
            for factor, found in zip(factors, start(own), strict=True):
                factor.copy_(found)
        return BatchHOOI(own, models.core[part], factors, n_iter_max=n_iter_max, tol=tol)

    def report(sweep: int, errors: Tensor) -> bool:
        if bar is not None:
            bar(sweep, float(errors.max()), None)
        if callback is None:
            return False
        told = errors.cpu().numpy().reshape(data.batch)
        return bool(callback(sweep, told, [arrays.in_kind(f, like) for f in models.outward()]))

    parts = list(data.parts(grain(SLAB, x)))
    if callback is None and not progress:
        infos = run_chunks(begin, parts)
    else:
        with progress_bar(progress, n_iter_max, None) as bar:
            infos = run_chunks(begin, parts, report)
    return models.result(scales, infos, like)


def _scales(op: str, data: Stack) -> Tensor | None:
    """Return for each tensor the power of two it is divided by; None if all are 1."""
    scales, _ = scales_of(op, data, "fill or drop them")
    return scales if bool((scales != 1).any()) else None


def _start(
    op: str,
    data: Stack,
    ranks: Sequence[int],
    init: Any,
    seed: int | torch.Generator | None,
    room: Sequence[Tensor],
) -> Callable[[Tensor], list[Tensor]] | None:
    """Put the starts where there is room, or return how those of a chunk are found."""
    dtype, device = compute_dtype(data.dtype), data.x.device
    if not isinstance(init, str):
        given = given_factors(op, data.shape, ranks, dtype, init, data.batch)
        for own, factor in zip(room, given, strict=True):
            own.copy_(torch.linalg.qr(factor.reshape(own.shape)).Q)
        return None
    check_name(op, init)
    rng = generator(op, seed, device)
    if init == "random":
        for own in room:
            own.copy_(orthonormal(gaussian(own.shape[1], own.shape[2], dtype, device, rng)))
        return None
    order, state = order_of_modes(op, data.shape, ranks, None), rng.get_state()

    def found(x: Tensor) -> list[Tensor]:
        # Each as alone with this seed.
        rng.set_state(state)
        return _truncated(x, ranks, order, True, rng)[1]

    return found


def _truncated(
    x: Tensor,
    ranks: Sequence[int],
    order: Sequence[int],
    sequential: bool,
    rng: torch.Generator | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """`truncation.truncate` of every tensor of a chunk."""
    if x[0].numel() > grain(SLAB, x):
        return _truncated_one_by_one(x, ranks, order, sequential, rng)
    core = x
    factors: list[Tensor] = [core] * len(ranks)
    for n in order:
        source = core if sequential else x
        factors[n] = bases_of_rank(source, n, ranks[n], sequential, rng)
        core = adjoint_product(core, factors[n], n)
    return core, factors


def _truncated_one_by_one(
    x: Tensor,
    ranks: Sequence[int],
    order: Sequence[int],
    sequential: bool,
    rng: torch.Generator | None,
) -> tuple[Tensor, list[Tensor]]:
    """Return the same of tensors that are too large to be worked on together."""
    state, found = None if rng is None else rng.get_state(), []
    for one in x:
        if rng is not None and state is not None:
            rng.set_state(state)
        found.append(truncate(one, ranks, None, order, 0.0, sequential, rng))
    factors = zip(*(each for _, each in found), strict=True)
    return torch.stack([core for core, _ in found]), [torch.stack(each) for each in factors]
