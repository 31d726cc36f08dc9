"""The choice of a rank: fits of many ranks and starts in one pass, and what speaks for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _check, arrays
from .cp.init import check_name
from .cp.starts import Fit, fit_best, fit_starts, groups_of, starts_of
from .metrics import core_consistencies, factor_match_score
from .precision import matmul_precision, solve_dtype
from .results import ConvergenceInfo, CPTensor

__all__ = ["RankSweep", "rank_sweep"]

# The thresholds of `RankSweep.suggest`. From 429 sweeps over tensors of known rank, 2 to 5: three
# and four modes of 6 to 30, congruence of the components 0 to 0.7, noise of 0 to 60 %, smooth,
# nonnegative and weak components. With these 411 ranks are found, 18 are too low (each at 30 or
# 60 % of noise and a congruence of 0.7) and none is too high. With 0.05 for `MATERIAL` 414 are
# found and 2 are too high; with 0.2, 384. With 80 for `CONSISTENT`, 399. `AGREE` from 0.5 to 0.9
# makes no difference with `MATERIAL` at 0.1; at 0.05, the lower one lets 33 come out too high.
#: Core consistency, in percent, from which on it is high.
CONSISTENT = 50.0
#: Match from which on starts agree.
AGREE = 0.9
#: How many times the least error a start may end at and be among those that have to agree. Among
#: components at right angles every fourth start rests in a worse minimum.
ALIKE = 1.05
#: Share of the squared error that a component has to take away.
MATERIAL = 0.1
#: Relative error below which no less is better: fits of data without noise end somewhere there.
EXACT = 1e-5


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
        Relative errors that the starts ended at.
    core_consistency : ndarray, shape (len(ranks),)
        Of the best models, in percent; see `core_consistency`.
    matches : ndarray, shape (len(ranks), n_init)
        The `factor_match_score` of the best model with what each start came to.
    """

    ranks: tuple[int, ...]
    models: tuple[CPTensor, ...]
    errors: np.ndarray
    core_consistency: np.ndarray
    matches: np.ndarray

    @property
    def infos(self) -> tuple[ConvergenceInfo, ...]:
        """The accounts of the best fits."""
        return tuple(model.info for model in self.models)

    @property
    def best_errors(self) -> np.ndarray:
        """Relative errors of the best models."""
        return np.array([info.rel_errors[-1] for info in self.infos])

    @property
    def match(self) -> np.ndarray:
        """Mean match of the best model with the others that came about as near to ``x``.

        That is, to an error at most 1.05 times as large (or below 1e-5): a start that ended in a
        worse minimum says nothing about the best one. NaN where there is no other.
        """
        out = np.full(len(self.ranks), np.nan)
        for at, (errors, matches) in enumerate(zip(self.errors, self.matches, strict=True)):
            near = errors <= max(EXACT, ALIKE * self.best_errors[at])
            if near.sum() > 1:
                # Without the best one, whose match with itself is 1.
                out[at] = (matches[near].sum() - 1.0) / (near.sum() - 1)
        return out

    def suggest(self) -> int:
        """Return the largest rank that everything speaks for; the smallest where there is none.

        Its core consistency is at least 50; the starts that came near the best one agree (a `match`
        of 0.9, where there are any); its components do not diverge; and the error still falls: a
        component takes away a tenth of what the ranks before left of ``||x - model||^2``.

        A suggestion and no test: noise alone gets the smallest rank, too. Under much noise, and
        where components are much alike, it is more often too low than too high.
        """
        return max(
            (rank for rank, good in zip(self.ranks, self._good(), strict=True) if good),
            default=self.ranks[0],
        )

    def _good(self) -> Sequence[bool]:
        """Whether everything speaks for each rank."""
        left = np.maximum(np.minimum.accumulate(self.best_errors), EXACT) ** 2
        components = np.diff(self.ranks, prepend=0)
        taken = 1.0 - (left / np.concatenate([[1.0], left[:-1]])) ** (1.0 / components)
        sound = np.array([info.status != "degenerate" for info in self.infos])
        agree = np.isnan(self.match) | (self.match >= AGREE)
        good = sound & agree & (taken >= MATERIAL) & (self.core_consistency >= CONSISTENT)
        return [bool(one) for one in good]

    def table(self) -> str:
        """Return a line for each rank; an arrow points at what `suggest` returns."""
        lines = ["  rank     error  core consistency  match  status"]
        suggested = self.suggest()
        for at, rank in enumerate(self.ranks):
            consistency = f"{self.core_consistency[at]:.1f}"
            if self.core_consistency[at] < 0:
                consistency = "below 0"
            match = "-" if math.isnan(self.match[at]) else f"{self.match[at]:.3f}"
            lines.append(
                f"{'>' if rank == suggested else ' '} {rank:4d}  {self.best_errors[at]:8.2e}  "
                f"{consistency:>16}  {match:>5}  {self.infos[at].status}"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        ranks = ", ".join(map(str, self.ranks))
        return (
            f"RankSweep(ranks=({ranks}), n_init={self.errors.shape[1]}, suggests {self.suggest()})"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the errors of all starts, and on a second scale core consistency and match.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new ones if not given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError:
                raise ImportError(
                    "RankSweep.plot: matplotlib is not installed; run pip install matplotlib, or "
                    "print table()"
                ) from None
            ax = pyplot.figure().add_subplot()
        ax.plot(self.ranks, self.errors, "o", color="0.7", markersize=4)
        ax.plot(self.ranks, self.best_errors, "-o", color="#0072b2", label="error of the best")
        ax.axvline(self.suggest(), color="0.8", zorder=0)
        ax.set(xlabel="rank", ylabel="relative error", yscale="log", xticks=self.ranks)
        beside = ax.twinx()
        shown = np.clip(self.core_consistency, 0, 100)
        beside.plot(self.ranks, shown, "--s", color="#d55e00", label="core consistency")
        beside.plot(self.ranks, 100 * self.match, ":^", color="#009e73", label="match of starts")
        beside.set(ylabel="percent; below 0 as 0", ylim=(-3, 103))
        lines = [*ax.get_lines(), *beside.get_lines()]
        named = [line for line in lines if not str(line.get_label()).startswith("_")]
        beside.legend(named, [line.get_label() for line in named], loc="center right")
        return ax


def rank_sweep(
    x: Any,
    ranks: Iterable[int],
    *,
    init: str = "svd",
    n_init: int = 1,
    n_iter_max: int = 100,
    tol: float = 1e-6,
    l2_reg: float = 0.0,
    normalize: bool = True,
    precision: str | None = "ieee",
    seed: int | torch.Generator | None = None,
    progress: bool = False,
    check_finite: bool = True,
) -> RankSweep:
    r"""Fit CP models of several ranks, each from several starts, and tell what speaks for which.

    What ``cp_als(x, rank, n_init=n_init, seed=seed)`` finds for each rank, from reads of ``x`` that
    serve many ranks and starts at once.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1}), N >= 2
        As in `cp_als`.
    ranks : iterable of int
        Each once, in any order. ``range(1, top + 1)`` serves `RankSweep.suggest` best, which looks
        at what a rank adds to those before.
    init : {"svd", "random"}
        Of the first start of each rank; the others are random.
    n_init : int
        Starts of each rank. With one there is no `RankSweep.match`; 5 is a good number.
    n_iter_max, tol, l2_reg, normalize, precision, seed, progress, check_finite
        As in `cp_als`; the bar shows the lowest error of all fits.

    Returns
    -------
    RankSweep
        ``print`` shows it as a table; ``plot()`` draws it, ``suggest()`` returns one rank.

    Raises
    ------
    ValueError, TypeError
        Before any work, naming what was given and what is required.

    Notes
    -----
    Every fit is that of a run of its own from the same start, to rounding. Fits run in groups, one
    after another, cut so that no partial result and no Khatri-Rao product of a group has more than
    half the elements of ``x``, or 2^20, unless that of one fit has; factors of all fits are kept
    until the end. Core consistencies take one more read of ``x`` a group.

    References
    ----------
    Bro and Kiers, J. Chemometrics 17 (2003): core consistency, beside the fit and the agreement of
    starts, for the number of components.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = np.einsum("ir,jr,kr->ijk", *(rng.standard_normal((n, 2)) for n in (9, 8, 7)))
    >>> sweep = rank_sweep(x + 0.01 * rng.standard_normal(x.shape), range(1, 5), n_init=3, seed=0)
    >>> sweep.suggest(), sweep.models[1].rank
    (2, 2)
    """
    op = "rank_sweep"
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    _check.modes_at_least(op, tensor, 2)
    _check.nonempty(op, tensor)
    wanted = _ranks(op, ranks)
    if not isinstance(init, str):
        raise TypeError(
            f"{op}: init is {type(init).__name__}; expected 'svd' or 'random': a model has one rank"
        )
    check_name(op, init)
    n_init = _check.whole_number(op, "n_init", n_init, 1)
    _check.precision(op, precision)
    _check.seed(op, seed)
    options: dict[str, Any] = {
        "n_iter_max": _check.whole_number(op, "n_iter_max", n_iter_max, 1),
        "tol": _check.number(op, "tol", tol),
        "l2_reg": _check.number(op, "l2_reg", l2_reg),
    }
    starts = [start for rank in wanted for start in starts_of(rank, init, n_init, seed)]
    with torch.inference_mode(), matmul_precision(precision, tensor.device):
        fits = fit_starts(
            op,
            tensor,
            starts,
            **options,
            normalize=normalize,
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
        matches = [_matches(one, some) for one, some in zip(best, each, strict=True)]
    return RankSweep(
        ranks=wanted,
        models=tuple(_outward(fit, x) for fit in best),
        errors=np.array([[fit.info.rel_errors[-1] for fit in some] for some in each]),
        core_consistency=np.array(consistency),
        matches=np.array(matches),
    )


def _ranks(op: str, ranks: Any) -> tuple[int, ...]:
    """Return distinct ranks in increasing order."""
    ranks = ranks.tolist() if hasattr(ranks, "tolist") else ranks
    if isinstance(ranks, str) or not isinstance(ranks, Iterable):
        raise TypeError(f"{op}: ranks is {ranks!r}; expected several integers, range(1, 6) for one")
    given = [_check.cp_rank(op, rank) for rank in ranks]
    if not given or len(set(given)) != len(given):
        raise ValueError(f"{op}: ranks is {given}; expected at least one rank, and each once")
    return tuple(sorted(given))


def _consistencies(x: Tensor, fits: Sequence[Fit]) -> list[float]:
    """Core consistency of each model, of a group of them from one read."""
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


def _matches(best: Fit, fits: Sequence[Fit]) -> list[float]:
    """Score of each fit with the best, exactly 1 for that itself."""
    model = best.weights, best.factors
    return [
        1.0
        if fit.factors is best.factors
        else factor_match_score(model, (fit.weights, fit.factors))
        for fit in fits
    ]


def _outward(fit: Fit, like: Any) -> CPTensor:
    # Tensors made in inference mode cannot take part in autograd; their copies can.
    weights, *factors = (t.clone() for t in (fit.weights, *fit.factors))
    return CPTensor(
        arrays.in_kind(weights, like), [arrays.in_kind(f, like) for f in factors], fit.info
    )
