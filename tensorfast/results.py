"""What a decomposition returns: factors, and an honest account of how they were reached.

Also what `tensorfast.explain` tells beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CPTensor", "ConvergenceInfo", "FitPlan", "TuckerTensor"]


@dataclass(frozen=True)
class ConvergenceInfo:
    """How an iteration ended.

    Attributes
    ----------
    n_iter : int
        Sweeps that ran.
    rel_errors : tuple of float
        ``||X - M|| / ||X||`` after each sweep; ``||M||`` where ``X`` is zero.
    fit : float
        ``1 - rel_errors[-1]``.
    converged : bool
        Whether the stopping rule was met (status ``"converged"`` or ``"precision_limit"``).
    status : str
        ``"converged"``, ``"max_iter"``, ``"stopped"`` (by the callback), ``"precision_limit"`` or
        ``"degenerate"``.
    message : str
        One sentence: what happened and what to do.
    """

    n_iter: int
    rel_errors: tuple[float, ...]
    fit: float
    converged: bool
    status: str
    message: str

    def __repr__(self) -> str:
        error = f"{self.rel_errors[-1]:.3e}" if self.rel_errors else "none"
        return f"ConvergenceInfo(status={self.status!r}, n_iter={self.n_iter}, rel_error={error})"


@dataclass(frozen=True)
class FitPlan:
    """How a fit would run.

    Attributes
    ----------
    method : str
        ``"cp_als"`` or ``"hooi"``.
    engine : str
        ``"kernels"``, those of the GPU, in sweeps launched ahead of their errors; or ``"torch"``,
        sweep by sweep.
    schedule : str
        Name of the schedule, and the modes that each contraction of ``x`` serves.
    reads : float
        Contractions of ``x`` in a sweep.
    seconds : float
        What the contractions of a sweep are expected to take, by data sheets.
    workspace : int
        Bytes that the fit takes besides ``x``: partial results and the state of the fit; of the
        kernels' engine all that its sweeps, and what is between them, ask of torch's allocator.
    """

    method: str
    engine: str
    schedule: str
    reads: float
    seconds: float
    workspace: int

    def __str__(self) -> str:
        return (
            f"{self.method} by {self.engine}: {self.schedule}, {self.reads:.2f} reads of x a "
            f"sweep, predicted {self.seconds:.2e} s a sweep, workspace "
            f"{self.workspace / 1e6:.3g} MB"
        )


class _Pair:
    """Two items under names: what iterates, indexes and has length as ``(first, factors)``."""

    def _pair(self) -> tuple[Any, list[Any]]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pair())

    def __getitem__(self, index: int) -> Any:
        return self._pair()[index]

    def __len__(self) -> int:
        return 2


@dataclass(frozen=True, eq=False)
class CPTensor(_Pair):
    """A sum of R rank-1 tensors, ``X[i, j, ...] = sum_r weights[r] A[i, r] B[j, r] ...``.

    Iterates, indexes and has length as the pair ``(weights, factors)``.

    Attributes
    ----------
    weights : array, shape (R,)
    factors : list of arrays, shapes (I_n, R)
    info : ConvergenceInfo or None
    """

    weights: Any
    factors: list[Any]
    info: ConvergenceInfo | None = field(default=None)

    def _pair(self) -> tuple[Any, list[Any]]:
        return self.weights, self.factors

    @property
    def rank(self) -> int:
        """Number of components R."""
        return int(self.factors[0].shape[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that the factors describe."""
        return tuple(int(f.shape[-2]) for f in self.factors)

    def __repr__(self) -> str:
        return f"CPTensor(shape={self.shape}, rank={self.rank}, info={self.info!r})"


@dataclass(frozen=True, eq=False)
class TuckerTensor(_Pair):
    """A core multiplied by a matrix along every mode, ``X = G x_0 U_0 x_1 U_1 ...``.

    Iterates, indexes and has length as the pair ``(core, factors)``.

    Attributes
    ----------
    core : array, shape (R_0, ..., R_{N-1})
    factors : list of arrays with orthonormal columns, shapes (I_n, R_n)
    info : ConvergenceInfo or None
    """

    core: Any
    factors: list[Any]
    info: ConvergenceInfo | None = field(default=None)

    def _pair(self) -> tuple[Any, list[Any]]:
        return self.core, self.factors

    @property
    def rank(self) -> tuple[int, ...]:
        """Multilinear rank, one number a mode."""
        return tuple(int(f.shape[-1]) for f in self.factors)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that core and factors describe."""
        return tuple(int(f.shape[-2]) for f in self.factors)

    def __repr__(self) -> str:
        return f"TuckerTensor(shape={self.shape}, rank={self.rank}, info={self.info!r})"
