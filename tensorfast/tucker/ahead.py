"""HOOI whose sweeps are launched ahead of their errors: the loop on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..ahead import Capture, Kept, Replay, Shelf, Standing, Sweeps, run
from ..convergence import StoppingRule
from ..ops import direct
from ..ops.fused import judge_sums
from ..ops.small import LARGEST, by_kernels
from .plan import cost
from .shared import Outcome, exact_error, scalars
from .sweep import improved, projections, sweeps_of_cycle, trial_space

__all__ = ["RECORDED", "hooi_ahead", "never_waits"]

Judge = Callable[[Standing, Tensor], None]


def judge(standing: Standing, sums: Tensor) -> None:
    """End a sweep: write the log, and clear ``active`` where the host may have to decide."""
    state = standing.active, standing.count, standing.previous
    judge_sums(sums, standing.log, state, standing.limits)


def never_waits(x: Tensor, ranks: Sequence[int]) -> bool:
    """Whether nothing in a sweep would ask the host: all that is small is small enough."""
    sides = (trial_space(size, rank) for size, rank in zip(x.shape, ranks, strict=True))
    return by_kernels(x) and max(sides) <= LARGEST


@dataclass(frozen=True)
class _Iterate:
    """What sweeps change, in place."""

    factors: list[Tensor]
    core: Tensor
    standing: Standing

    def begin(self, factors: Sequence[Tensor]) -> None:
        for own, given in zip(self.factors, factors, strict=True):
            own.copy_(given)
        self.core.zero_()

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Let ``new`` take the place of what is ``old``, if the fit is active."""
        torch.where(self.standing.active, new, old, out=old)


def room_for(factors: Sequence[Tensor], rows: int) -> _Iterate:
    """Make room for factors of these shapes, and for a log of so many sweeps."""
    # A later fit writes there, too, perhaps outside of the inference mode of this one.
    with torch.inference_mode(False):
        own = [torch.empty_like(f, memory_format=torch.contiguous_format) for f in factors]
        core = own[0].new_empty([f.shape[1] for f in factors])
        return _Iterate(own, core, Standing.of_rows(rows, core.device))


#: Fits of small tensors by what was recorded for them.
RECORDED: Shelf[_Iterate] = Shelf(most=8, nbytes=1 << 27)


def hooi_ahead(
    x: Tensor,
    start: Sequence[Tensor],
    squared_norm: float,
    stop: StoppingRule,
    *,
    n_iter_max: int,
    judge: Judge = judge,
    capture: Capture | None = None,
    keep: bool = False,
    callback: Callable[[int, float, list[Tensor]], bool] | None = None,
    chunk: int = 1,
) -> Outcome:
    """Run the sweeps of `iteration.hooi_plainly`, launched in chunks.

    ``capture`` records a sweep to be replayed; to ``keep`` it for the next tensor in the place of
    this one is worth it for small tensors. A chunk is a single sweep: it keeps a device busy for
    longer than the host needs.
    """
    place = x.data_ptr(), x.shape, x.stride(), x.dtype, x.device
    key = (*place, chunk, *(f.shape for f in start))
    kept = RECORDED.take(key) if keep else None
    fit = room_for(start, rows=chunk) if kept is None else kept.state
    fit.begin(start)
    fit.standing.begin(squared_norm, x.dtype, stop.tol)
    sweeps = sweeps_of(x, fit, judge, capture, () if kept is None else kept.recorded)
    status, errors, _ = run(
        sweeps,
        fit.standing,
        stop,
        squared_norm,
        x.dtype,
        partial(exact_error, x, fit.core, fit.factors, squared_norm),
        n_iter_max=n_iter_max,
        chunk=chunk,
        callback=callback and (lambda n, e: callback(n, e, fit.factors)),
    )
    remark = f" No graph of the sweep was made: {sweeps.trouble}." if sweeps.trouble else ""
    core, *factors = (t.clone() for t in (fit.core, *fit.factors))
    if keep and sweeps.complete:
        nbytes = cost(x, tuple(fit.core.shape)).workspace
        RECORDED.put(key, Kept.now(fit, sweeps.recorded, nbytes))
    return Outcome(core, factors, errors, status, remark)


def sweeps_of(
    x: Tensor,
    fit: _Iterate,
    judge: Judge,
    capture: Capture | None = None,
    recorded: Sequence[Replay] = (),
) -> Sweeps:
    """Return the sweeps that change ``fit``."""

    def begin() -> Callable[[], None]:
        projected = projections(x, fit.factors)

        def sweep() -> None:
            for n, factor in enumerate(fit.factors):
                y = next(projected)
                fit.replace(factor, improved(y, n, factor))
            fit.replace(fit.core, direct.ttm(y, factor, n, transpose=True))
            inner, model = scalars(fit.core, fit.factors)
            judge(fit.standing, torch.stack([inner, model, torch.zeros_like(inner)]))

        return sweep

    return Sweeps(begin, sweeps_of_cycle(x.ndim), capture, recorded)
