"""Several CP fits of one tensor, from different starts and of different ranks, in one pass.

One thread, float32, 200^3, R 8: eight starts take 3.4 to 3.5 times as long as one (``python -m
bench.starts``). With 64 columns the products run at the rate of the CPU and no longer at that of
memory; what could still be saved is in fewer reads, not in more columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..batch import run_chunks
from ..blocks import SLAB
from ..ops.fused import LARGEST_RANK, fused_for
from ..progress import progress_bar
from ..results import BatchInfo, ConvergenceInfo
from .batch.als import BatchALS
from .batch.shared import SharedOperand
from .init import initial_factors
from .scaling import restored, scaled_l2
from .single import at_scale, outward, weighted

__all__ = ["Fit", "Start", "best_of", "fit_best", "fit_starts", "groups_of", "starts_of"]

#: Columns that a register of a CPU with AVX-512 holds of float32. (145 x 145 x 200, one thread: 64
#: columns 147 to 197 GFLOP/s, 67 columns 121 to 150.)
WIDTH = 16

#: By how much, of the error, a fit whose components diverge has to be better than one whose do not.
#: What diverges comes ever nearer to an infimum that no model attains, so it often wins by a
#: little, with components that mean nothing.
NEAR = 0.01


@dataclass(frozen=True)
class Start:
    """Where a fit begins: rank, ``init`` and ``seed`` as of a run of its own."""

    rank: int
    init: Any
    seed: int | torch.Generator | None


@dataclass(frozen=True)
class Fit:
    """What a fit came to."""

    weights: Tensor
    factors: list[Tensor]
    info: ConvergenceInfo


def starts_of(rank: int, init: Any, n_init: int, seed: int | torch.Generator | None) -> list[Start]:
    """Return the starts of ``n_init``: the first as ``init`` says, the others random.

    The one at j draws from ``seed + j``, or after the others from one generator.
    """
    seeds = [
        (int(seed) + at) % 2**64 if isinstance(seed, Integral) else seed for at in range(n_init)
    ]
    return [Start(rank, "random" if at else init, own) for at, own in enumerate(seeds)]


def groups_of(shape: Sequence[int], ranks: Sequence[int]) -> list[list[int]]:
    """Cut starts into groups that share a read of the tensor.

    What a read makes or takes has at most ``prod(I_n) / min(I_n)`` elements a column: partial
    results, and the Khatri-Rao product. All columns of a group have half of the tensor or `SLAB`,
    whichever is more; a single start may have more. Beyond that there is little to share, as a
    product with so many columns does not wait for the tensor. Products are quickest where the
    columns fill their `WIDTH`; so a group is filled, the largest ranks first.
    """
    numel = math.prod(shape)
    most = min(LARGEST_RANK, max(numel // 2, SLAB) // (numel // min(shape)))
    most = max(most // WIDTH * WIDTH, min(most, WIDTH))
    groups: list[list[int]] = []
    room: list[int] = []
    for at in sorted(range(len(ranks)), key=lambda at: (-ranks[at], at)):
        g = next((g for g, left in enumerate(room) if ranks[at] <= left), len(groups))
        if g == len(groups):
            groups.append([])
            room.append(most)
        groups[g].append(at)
        room[g] -= ranks[at]
    return groups


def best_of(infos: Sequence[ConvergenceInfo]) -> int:
    """Return which start is best: that of the lowest error, the first of several.

    One with diverging components only if no sound one comes within a hundredth of its error.
    """
    errors = [info.rel_errors[-1] for info in infos]
    best = min(range(len(errors)), key=errors.__getitem__)
    sound = [at for at, info in enumerate(infos) if info.status != "degenerate"]
    if best not in sound and sound:
        other = min(sound, key=errors.__getitem__)
        if errors[other] <= (1 + NEAR) * errors[best]:
            return other
    return best


def fit_best(fits: Sequence[Fit]) -> Fit:
    """Return the best of several starts, its account with those of all."""
    infos = [fit.info for fit in fits]
    best = best_of(infos)
    message = f"{infos[best].message} It is the best of {len(fits)} starts, that at {best}."
    starts = BatchInfo(infos, (len(fits),))
    return replace(fits[best], info=replace(infos[best], message=message, starts=starts))


def fit_starts(
    op: str,
    x: Tensor,
    starts: Sequence[Start],
    *,
    n_iter_max: int,
    tol: float,
    l2_reg: float,
    normalize: bool,
    free: Sequence[int],
    callback: Callable[[int, float, list[Any]], bool] | None,
    progress: bool,
    check_finite: bool,
    like: Any,
    precision: str | None,
) -> list[Fit]:
    """Return what comes of each start; the other arguments as `cp_als` has checked.

    A callback sees the fit with the lowest error.
    """
    groups = groups_of(x.shape, [start.rank for start in starts])
    columns = max(sum(starts[at].rank for at in group) for group in groups)
    x, data, unit = at_scale(op, x, fused_for(x, columns, precision), check_finite)
    begun, kept = _begun(op, x, starts, unit, free)
    weight = scaled_l2(l2_reg, unit, x.ndim)
    rows = [_stacked([begun[at] for at in group]) for group in groups]

    def begin(g: int) -> BatchALS:
        group = groups[g]
        ranks = [starts[start].rank for start in group]
        operand = SharedOperand(data, ranks)
        l2 = torch.full((len(group),), weight, dtype=torch.float64, device=x.device)
        return BatchALS(
            operand,
            rows[g],
            l2 if l2_reg else None,
            n_iter_max=n_iter_max,
            tol=tol,
            free=free,
            ranks=torch.tensor(ranks, device=x.device) if len(set(ranks)) > 1 else None,
            # Nothing is copied when they leave but their factors.
            done_enough=0.0,
        )

    place = {start: (g, at) for g, group in enumerate(groups) for at, start in enumerate(group)}

    def factors_of(start: int) -> list[Tensor]:
        g, at = place[start]
        return [f[at, : starts[start].rank].t().contiguous() for f in rows[g]]

    flat = [start for group in groups for start in group]
    # Kernels are launched on the current device.
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        if callback is None and not progress:
            infos = run_chunks(begin, range(len(groups)))
        else:
            shown = outward(callback, like, kept, unit)
            with progress_bar(progress, n_iter_max, shown) as bar:

                def report(sweep: int, errors: Tensor) -> bool:
                    told = errors.tolist()
                    best = min(range(len(told)), key=lambda at: (told[at], flat[at]))
                    return bar is not None and bar(sweep, told[best], factors_of(flat[best]))

                infos = run_chunks(begin, range(len(groups)), report)
    accounts = dict(zip(flat, infos, strict=True))
    modes = free if normalize else ()
    return [
        Fit(*weighted(restored(factors_of(at), kept, unit), modes), accounts[at])
        for at in range(len(starts))
    ]


def _begun(
    op: str, x: Tensor, starts: Sequence[Start], unit: float, free: Sequence[int]
) -> tuple[list[list[Tensor]], dict[int, Tensor]]:
    """Return the factors of all starts at the scale of the fit, and the fixed ones as given.

    These come from the first start, which is a model where modes are fixed.
    """
    begun: list[list[Tensor]] = []
    kept: dict[int, Tensor] = {}
    for at, start in enumerate(starts):
        factors = initial_factors(op, x, start.rank, start.init, start.seed, free)
        if at == 0:
            kept = {n: factor for n, factor in enumerate(factors) if n not in free}
        drawn = isinstance(start.init, str)
        begun.append(
            [
                kept[n] / unit if n in kept else factor if drawn else factor / unit
                for n, factor in enumerate(factors)
            ]
        )
    return begun, kept


def _stacked(models: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return factors by rows, ``[B, R, I_n]``, zero from each model's own rank on."""
    rank = max(factors[0].shape[1] for factors in models)
    out = []
    for n, first in enumerate(models[0]):
        rows = first.new_zeros(len(models), rank, first.shape[0])
        for at, factors in enumerate(models):
            rows[at, : factors[n].shape[1]] = factors[n].t()
        out.append(rows)
    return out
