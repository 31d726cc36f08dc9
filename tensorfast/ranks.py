"""The choice of a rank: fits of many ranks and starts in one pass, and what speaks for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _check, arrays
from .cp.starts import Fit, fit_best, fit_starts, groups_of, starts_of
from .metrics import core_consistencies, factor_match_score
from .precision import matmul_precision, solve_dtype
from .results import ConvergenceInfo, CPTensor

__all__ = ["RankSweep", "rank_sweep"]

#: Core consistency, in percent, from which `RankSweep.suggest` takes it as high.
CONSISTENT = 50.0
#: Factor match score from which starts are taken to agree.
AGREE = 0.9
#: Share of the squared error that a component has to take away.
MATERIAL = 0.1


@dataclass(frozen=True, eq=False)
class RankSweep:
    """What `rank_sweep` found, rank by rank.

    Attributes
    ----------
    ranks : tuple of int
        In increasing order.
    models : tuple of CPTensor
        The best model of each rank; ``models[i].info`` tells how its fit went, and with several
        starts ``models[i].info.starts`` how all of them did.
    errors : ndarray, shape (len(ranks), n_init)
        Relative errors of all starts.
    core_consistency : ndarray, shape (len(ranks),)
        Of the best models, in percent.
    match : ndarray, shape (len(ranks),)
        Mean `factor_match_score` of the best model with what the other starts came to; NaN with one
        start.
    """

    ranks: tuple[int, ...]
    models: tuple[CPTensor, ...]
    errors: np.ndarray
    core_consistency: np.ndarray
    match: np.ndarray

    @property
    def infos(self) -> tuple[ConvergenceInfo, ...]:
        """The accounts of the best fits."""
        return tuple(model.info for model in self.models)

    @property
    def best_errors(self) -> np.ndarray:
        """Relative errors of the best models."""
        return np.array([info.rel_errors[-1] for info in self.infos])

    def table(self) -> str:
        """Write what was found as a table, a line a rank."""
        lines = ["rank     error  core consistency  match  status"]
        for at, rank in enumerate(self.ranks):
            consistency = max(self.core_consistency[at], -999.0)
            lines.append(
                f"{rank:4d}  {self.best_errors[at]:8.2e}  {consistency:16.1f}  "
                f"{self.match[at]:5.3f}  {self.infos[at].status}"
            )
        return "\n".join(lines)


def rank_sweep(
    x: Any,
    ranks: Iterable[int],
    *,
    init: str = "svd",
    n_init: int = 1,
    n_iter_max: int = 100,
    tol: float = 1e-6,
    l2_reg: float = 0.0,
    precision: str | None = "ieee",
    seed: int | torch.Generator | None = None,
    progress: bool = False,
    check_finite: bool = True,
) -> RankSweep:
    op = "rank_sweep"
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    _check.modes_at_least(op, tensor, 2)
    _check.nonempty(op, tensor)
    wanted = sorted(_check.cp_rank(op, rank) for rank in ranks)
    n_init = _check.whole_number(op, "n_init", n_init, 1)
    starts = [start for rank in wanted for start in starts_of(rank, init, n_init, seed)]
    with torch.inference_mode(), matmul_precision(precision, tensor.device):
        fits = fit_starts(
            op,
            tensor,
            starts,
            n_iter_max=_check.whole_number(op, "n_iter_max", n_iter_max, 1),
            tol=_check.number(op, "tol", tol),
            l2_reg=_check.number(op, "l2_reg", l2_reg),
            normalize=True,
            free=range(tensor.ndim),
            callback=None,
            progress=progress,
            check_finite=check_finite,
            like=x,
            precision=precision,
        )
        each = [fits[at : at + n_init] for at in range(0, len(fits), n_init)]
        best = [fit_best(some) for some in each]
        consistency = _consistencies(tensor, best)
        match = [_match(one, some) for one, some in zip(best, each, strict=True)]
    return RankSweep(
        ranks=tuple(wanted),
        models=tuple(_outward(fit, x) for fit in best),
        errors=np.array([[fit.info.rel_errors[-1] for fit in some] for some in each]),
        core_consistency=np.array(consistency),
        match=np.array(match),
    )


def _consistencies(x: Tensor, fits: list[Fit]) -> list[float]:
    """Core consistency of each model, several from one read."""
    models = []
    for fit in fits:
        first, *others = (factor.to(solve_dtype(factor.dtype)) for factor in fit.factors)
        models.append([first * fit.weights, *others])
    out = [math.nan] * len(fits)
    for group in groups_of(x.shape, [len(fit.weights) for fit in fits]):
        found = core_consistencies(x, [models[at] for at in group])
        for at, value in zip(group, found, strict=True):
            out[at] = value
    return out


def _match(best: Fit, fits: list[Fit]) -> float:
    """Mean score of the others with the best; NaN where there is none."""
    scores = [
        factor_match_score((best.weights, best.factors), (fit.weights, fit.factors))
        for fit in fits
        if fit.factors is not best.factors
    ]
    return sum(scores) / len(scores) if scores else math.nan


def _outward(fit: Fit, like: Any) -> CPTensor:
    # Tensors made in inference mode cannot take part in autograd; their copies can.
    weights, *factors = (t.clone() for t in (fit.weights, *fit.factors))
    return CPTensor(
        arrays.in_kind(weights, like), [arrays.in_kind(f, like) for f in factors], fit.info
    )
