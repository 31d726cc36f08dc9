"""What a decomposition returns: factors, and an honest account of how they were reached.

Also what `tensorfast.explain` tells beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

__all__ = ["BatchInfo", "CPTensor", "ConvergenceInfo", "FitPlan", "TuckerTensor"]


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
    starts : BatchInfo or None
        Of the best of several starts the accounts of all of them, in their order.
    """

    n_iter: int
    rel_errors: tuple[float, ...]
    fit: float
    converged: bool
    status: str
    message: str
    starts: BatchInfo | None = field(default=None, hash=False)

    def __repr__(self) -> str:
        error = f"{self.rel_errors[-1]:.3e}" if self.rel_errors else "none"
        others = "" if self.starts is None else f", the best of {len(self.starts)} starts"
        told = f"status={self.status!r}, n_iter={self.n_iter}, rel_error={error}{others}"
        return f"ConvergenceInfo({told})"


class BatchInfo:
    """How the iterations of a batch ended, tensor by tensor; or those of several starts.

    ``info[i]``, or ``info[i, j]`` with several batch axes, is the `ConvergenceInfo` of one tensor;
    iteration goes over all of them, the last batch axis fastest, and ``len`` counts them.

    Parameters
    ----------
    infos : sequence of ConvergenceInfo
        One a tensor, the last batch axis fastest.
    shape : sequence of int
        Lengths of the batch axes.

    Examples
    --------
    >>> done = ConvergenceInfo(2, (0.3, 0.1), 0.9, True, "converged", "Done.")
    >>> info = BatchInfo([done, done], (2,))
    >>> info[1].n_iter, info.rel_error
    (2, array([0.1, 0.1]))
    """

    def __init__(self, infos: Sequence[ConvergenceInfo], shape: Sequence[int]) -> None:
        self._infos, self.shape = tuple(infos), tuple(shape)
        if len(self._infos) != math.prod(self.shape):
            raise ValueError(
                f"BatchInfo: got {len(self._infos)} infos for a batch of shape {self.shape}; "
                "expected one a tensor"
            )

    def __len__(self) -> int:
        return len(self._infos)

    def __iter__(self) -> Iterator[ConvergenceInfo]:
        return iter(self._infos)

    def __getitem__(self, index: int | tuple[int, ...]) -> ConvergenceInfo:
        at = index if isinstance(index, tuple) else (index,)
        if len(at) != len(self.shape):
            raise IndexError(
                f"BatchInfo: index {index} for a batch of shape {self.shape}; expected "
                f"{len(self.shape)} integers"
            )
        flat = 0
        for position, size in zip(at, self.shape, strict=True):
            if not -size <= position < size:
                raise IndexError(f"BatchInfo: index {index} is outside the shape {self.shape}")
            flat = flat * size + int(position) % size
        return self._infos[flat]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchInfo):
            return NotImplemented
        return (self.shape, self._infos) == (other.shape, other._infos)

    __hash__ = None  # type: ignore[assignment]

    @property
    def n_iter(self) -> np.ndarray:
        """Sweeps that ran for each tensor, of the shape of the batch."""
        return self._gathered(lambda info: info.n_iter, np.int64)

    @property
    def rel_error(self) -> np.ndarray:
        """Last relative error of each tensor, of the shape of the batch."""
        return self._gathered(lambda info: info.rel_errors[-1], np.float64)

    @property
    def converged(self) -> np.ndarray:
        """Whether the stopping rule was met for each tensor, of the shape of the batch."""
        return self._gathered(lambda info: info.converged, np.bool_)

    @property
    def status(self) -> np.ndarray:
        """Status of each tensor, of the shape of the batch."""
        return self._gathered(lambda info: info.status, np.str_)

    def _gathered(self, read: Callable[[ConvergenceInfo], Any], dtype: Any) -> np.ndarray:
        return np.array([read(info) for info in self._infos], dtype).reshape(self.shape)

    @property
    def message(self) -> str:
        """One sentence: how many converged, in how many sweeps, to what errors."""
        if not self._infos:
            return "The batch holds no tensor."
        sweeps, errors = self.n_iter, self.rel_error
        return (
            f"{int(self.converged.sum())} of {len(self)} converged, in all after "
            f"{_range(sweeps.min(), sweeps.max(), 'd')} sweeps at relative errors of "
            f"{_range(errors.min(), errors.max(), '.3g')}; info[i].message tells of one."
        )

    def __repr__(self) -> str:
        if not self._infos:
            return f"BatchInfo(shape={self.shape})"
        sweeps, errors = self.n_iter, self.rel_error
        return (
            f"BatchInfo(shape={self.shape}, converged={int(self.converged.sum())} of {len(self)}, "
            f"n_iter={_range(sweeps.min(), sweeps.max(), 'd')}, "
            f"rel_error={_range(errors.min(), errors.max(), '.3e')})"
        )


def _range(least: Any, most: Any, form: str) -> str:
    """Write two numbers as a range, or one where they are the same."""
    low, high = f"{least:{form}}", f"{most:{form}}"
    return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class FitPlan:
    """How a fit would run.

    Attributes
    ----------
    method : str
        ``"cp_als"`` or ``"hooi"``.
    engine : str
        ``"kernels"``, those of the GPU, in sweeps launched ahead of their errors; ``"blocks"``, a
        thread block of the GPU for each tensor of a batch; or ``"torch"``, sweep by sweep.
    schedule : str
        Name of the schedule, and the modes that each contraction of ``x`` serves.
    reads : float
        Contractions of ``x`` in a sweep.
    seconds : float
        What the contractions of a sweep are expected to take, by data sheets.
    workspace : int
        Bytes that the fit takes besides ``x``: partial results and the state of the fit; of the
        kernels' engine all that its sweeps, and what is between them, ask of torch's allocator.
    reasons : tuple of str
        Why a faster engine cannot serve, where there is one for such problems.
    """

    method: str
    engine: str
    schedule: str
    reads: float
    seconds: float
    workspace: int
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.method} by {self.engine}: {self.schedule}, {self.reads:.2f} reads of x a "
            f"sweep, predicted {self.seconds:.2e} s a sweep, workspace "
            f"{self.workspace / 1e6:.3g} MB" + "".join(f"; {reason}" for reason in self.reasons)
        )


class _Pair:
    """Two items under names: what iterates, indexes and has length as ``(first, factors)``."""

    factors: list[Any]
    info: Any

    def _pair(self) -> tuple[Any, list[Any]]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pair())

    def __getitem__(self, index: int) -> Any:
        return self._pair()[index]

    def __len__(self) -> int:
        return 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that the model describes; of one of them in a batch."""
        return tuple(int(f.shape[-2]) for f in self.factors)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Lengths of the batch axes; empty for a single model."""
        return tuple(int(size) for size in self.factors[0].shape[:-2])

    def at(self, index: int | tuple[int, ...]) -> Self:
        """Return one model of a batch; ``model[0]`` and ``model[1]`` are the items of the pair."""
        position = index if isinstance(index, tuple) else (index,)
        if len(position) != len(self.batch_shape) or not position:
            raise IndexError(
                f"{type(self).__name__}: at({index}) in a batch of shape {self.batch_shape}; "
                f"expected {len(self.batch_shape)} integers"
            )
        first, factors = self._pair()
        info = None if self.info is None else self.info[index]
        return type(self)(first[position], [f[position] for f in factors], info)  # type: ignore[call-arg]


@dataclass(frozen=True, eq=False)
class CPTensor(_Pair):
    """A sum of R rank-1 tensors, ``X[i, j, ...] = sum_r weights[r] A[i, r] B[j, r] ...``.

    Iterates, indexes and has length as the pair ``(weights, factors)``. A batch of models has
    leading axes in all its arrays, and a `BatchInfo`; `at` gives one of them.

    Attributes
    ----------
    weights : array, shape (R,)
    factors : list of arrays, shapes (I_n, R)
    info : ConvergenceInfo, BatchInfo or None
    """

    weights: Any
    factors: list[Any]
    info: Any = field(default=None)

    def _pair(self) -> tuple[Any, list[Any]]:
        return self.weights, self.factors

    @property
    def rank(self) -> int:
        """Number of components R."""
        return int(self.factors[0].shape[-1])

    def __repr__(self) -> str:
        return f"CPTensor(shape={self.shape}, rank={self.rank}, info={self.info!r})"


@dataclass(frozen=True, eq=False)
class TuckerTensor(_Pair):
    """A core multiplied by a matrix along every mode, ``X = G x_0 U_0 x_1 U_1 ...``.

    Iterates, indexes and has length as the pair ``(core, factors)``. A batch of models has leading
    axes in all its arrays, and a `BatchInfo`; `at` gives one of them.

    Attributes
    ----------
    core : array, shape (R_0, ..., R_{N-1})
    factors : list of arrays with orthonormal columns, shapes (I_n, R_n)
    info : ConvergenceInfo, BatchInfo or None
    """

    core: Any
    factors: list[Any]
    info: Any = field(default=None)

    def _pair(self) -> tuple[Any, list[Any]]:
        return self.core, self.factors

    @property
    def rank(self) -> tuple[int, ...]:
        """Multilinear rank, one number a mode."""
        return tuple(int(f.shape[-1]) for f in self.factors)

    def __repr__(self) -> str:
        return f"TuckerTensor(shape={self.shape}, rank={self.rank}, info={self.info!r})"
