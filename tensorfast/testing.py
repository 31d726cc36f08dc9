"""Named problems, tensors with a known answer, and a comparison with a computed tolerance.

For the tests of this library and of code that builds on it::

    weights, factors = random_cp((30, 40, 50), rank=4)
    x, truth = planted((30, 40, 50), rank=4, noise=0.1)
    assert_close(fast(x), exact, scale=exact_of_absolute_values, length=number_of_terms)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import arrays, reference
from .precision import compute_dtype, solve_dtype, unit_roundoff

__all__ = [
    "PROBLEMS",
    "Problem",
    "assert_close",
    "normal",
    "planted",
    "poisoned_memory",
    "random_cp",
]


@dataclass(frozen=True)
class Problem:
    """A named shape and rank: one label for a test, a benchmark and a report.

    Attributes
    ----------
    name : str
        Unique in `PROBLEMS`; also what ``str(problem)`` gives, for test ids.
    shape : tuple of int
    rank : int
    """

    name: str
    shape: tuple[int, ...]
    rank: int

    def __str__(self) -> str:
        return self.name


PROBLEMS = (
    Problem("matrix", (9, 8), 3),
    Problem("matrix_row", (1, 6), 2),
    Problem("cubic3", (8, 8, 8), 4),
    Problem("prime3", (7, 11, 13), 5),
    Problem("prime3_rank1", (13, 7, 5), 1),
    Problem("ragged3", (3, 40, 17), 6),
    Problem("tall3", (65, 2, 3), 3),
    Problem("one_first", (1, 7, 5), 3),
    Problem("one_middle", (6, 1, 9), 3),
    Problem("one_last", (5, 8, 1), 3),
    Problem("all_ones", (1, 1, 1), 2),
    Problem("over_rank3", (3, 4, 5), 11),
    Problem("cubic4", (5, 5, 5, 5), 3),
    Problem("prime4", (3, 7, 5, 11), 4),
    Problem("ones4", (1, 6, 1, 5), 2),
    Problem("over_rank4", (2, 3, 2, 4), 7),
    Problem("cubic5", (4, 4, 4, 4, 4), 3),
    Problem("ragged5", (2, 7, 1, 5, 3), 4),
    Problem("prime5_rank1", (3, 5, 2, 7, 3), 1),
)


def normal(shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return standard normal entries, the same for every type up to rounding.

    Parameters
    ----------
    shape : sequence of int
    dtype : torch.dtype
    seed : int

    Returns
    -------
    Tensor
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=solve_dtype(dtype)).to(dtype)


def random_cp(
    shape: Sequence[int],
    rank: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    congruence: float = 0.3,
) -> tuple[Tensor, list[Tensor]]:
    r"""Random weights and factors of a CP model whose conditioning is known.

    In every mode of at least ``rank`` entries, ``A = Q K`` with orthonormal ``Q`` and
    ``K^H K = (1 - congruence) I + congruence 1 1^T``: the inner product of any two columns is
    ``congruence``, and the condition number of A is
    ``sqrt(1 + rank * congruence / (1 - congruence))``. Shorter modes cannot hold that; their
    columns are independent random directions.

    Parameters
    ----------
    shape : sequence of int
    rank : int
    seed : int
    dtype : torch.dtype
        Real or complex; generated in double precision and rounded.
    congruence : float in [0, 1)
        0: orthonormal columns; near 1: an ill-conditioned problem.

    Returns
    -------
    weights : Tensor, shape (rank,)
        Real, from 2 down to 1, none equal to another.
    factors : list of Tensor, shapes (I_n, rank)
        Columns of norm 1.

    Examples
    --------
    >>> weights, factors = random_cp((5, 6, 7), 3)
    >>> bool(torch.allclose((factors[2].T @ factors[2])[0, 1], torch.tensor(0.3).double()))
    True
    """
    generator = torch.Generator().manual_seed(seed)
    solve = solve_dtype(dtype)
    mixing = torch.full((rank, rank), congruence, dtype=solve)
    root = torch.linalg.cholesky(mixing.fill_diagonal_(1.0)).mH
    factors = []
    for size in shape:
        gaussian = torch.randn(size, rank, generator=generator, dtype=solve)
        if size >= rank:
            columns = torch.linalg.qr(gaussian).Q @ root
        else:
            columns = gaussian / torch.linalg.vector_norm(gaussian, dim=0)
        factors.append(columns.to(dtype))
    weights = torch.linspace(2.0, 1.0, rank, dtype=torch.float64)
    return weights.to(dtype.to_real()), factors


def planted(
    shape: Sequence[int],
    rank: int,
    *,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, tuple[Tensor, list[Tensor]]]:
    """Build a tensor of known CP factors plus Gaussian noise of a known size.

    ``||x - model|| = noise * ||model||`` exactly, up to the rounding of ``x`` to its type.

    Parameters
    ----------
    shape, rank, seed, dtype
        As in `random_cp`, which makes the factors.
    noise : float
        Norm of the noise relative to that of the model.

    Returns
    -------
    x : Tensor of ``shape`` and ``dtype``
    truth : (weights, factors)
        Already rounded to ``dtype``: the model is that of the factors returned.

    Examples
    --------
    >>> x, (weights, factors) = planted((5, 6, 7), 2, noise=0.1)
    >>> model = reference.cp_to_tensor(weights, factors)
    >>> round(float((x - model).norm() / model.norm()), 12)
    0.1
    """
    weights, factors = random_cp(shape, rank, seed=seed, dtype=dtype)
    solve = solve_dtype(dtype)
    model = reference.cp_to_tensor(weights.to(solve), [factor.to(solve) for factor in factors])
    generator = torch.Generator().manual_seed(seed + 1)
    gaussian = torch.randn(model.shape, generator=generator, dtype=solve)
    gaussian *= noise * torch.linalg.vector_norm(model) / torch.linalg.vector_norm(gaussian)
    return (model + gaussian).to(dtype), (weights, factors)


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill with NaN whatever memory torch hands out uninitialised, inside the block.

    An entry of a result that was never written, or was added to before it was cleared, then shows.
    Torch is deterministic meanwhile: on a GPU its matrix products ask for the environment variable
    ``CUBLAS_WORKSPACE_CONFIG=:4096:8``, set before the first of them.

    Examples
    --------
    >>> with poisoned_memory():
    ...     print(torch.empty(2))
    tensor([nan, nan])
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    setting: Any = torch.utils.deterministic
    fill = setting.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    setting.fill_uninitialized_memory = True
    try:
        yield
    finally:
        setting.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def assert_close(
    actual: Any,
    expected: Any,
    scale: Any,
    length: int,
    *,
    dtype: torch.dtype | None = None,
    precision: str = "ieee",
    c: float = 4.0,
) -> None:
    """Hold a contraction to the error that its arithmetic explains, entry by entry.

    Passes where ``|actual - expected| <= c * u * length * scale`` everywhere, u being the unit
    roundoff of the type that computes. A result stored in half precision may also be half a unit in
    the last place away from ``expected``. NaN never passes; neither does an infinity.

    Parameters
    ----------
    actual : array
        The result under test.
    expected : array
        The exact result: the reference in double precision, of the very same inputs.
    scale : array or float
        The reference of the absolute values of the inputs: what rounding is relative to.
    length : int
        K, the number of terms summed into each entry.
    dtype : torch.dtype, optional
        Type of the inputs; that of ``actual`` if not given.
    precision : {"ieee", "tf32", "bf16"}
        Arithmetic asked for.
    c : float
        The constant: each term is rounded once a factor before it is summed.

    Raises
    ------
    AssertionError
        Naming the worst entry, its error and its tolerance.

    Examples
    --------
    >>> exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> assert_close(exact.float(), exact, scale=exact, length=1)
    >>> assert_close(exact.float() + 1e-5, exact, scale=exact, length=1)
    Traceback (most recent call last):
        ...
    AssertionError: 2 of 2 entries are wrong; the worst is [0]: ...
    """
    result, want = _tensor("actual", actual), _tensor("expected", expected)
    if result.shape != want.shape:
        raise AssertionError(f"shape {tuple(result.shape)}; expected {tuple(want.shape)}")
    if result.numel() == 0:
        return
    rounding = (
        c * unit_roundoff(result.dtype if dtype is None else dtype, precision) * max(length, 1)
    )
    solve = torch.promote_types(solve_dtype(result.dtype), solve_dtype(want.dtype))
    got, want = result.detach().to("cpu", solve), want.detach().to("cpu", solve)
    error = (got - want).abs()
    bound = _tensor("scale", scale).detach().to("cpu", torch.float64).expand(error.shape)
    tolerance = rounding * bound
    if result.dtype != compute_dtype(result.dtype):
        limits = torch.finfo(result.dtype)
        spacing = limits.eps * want.abs().clamp(min=limits.smallest_normal)
        tolerance = tolerance + spacing / 2

    wrong = ~(error <= tolerance) | ~error.isfinite()
    if not wrong.any():
        return
    # What is not a number, or is above a tolerance of zero, is as wrong as can be.
    excess = torch.nan_to_num(error / tolerance, nan=math.inf).masked_fill(~wrong, 0.0)
    worst = excess.argmax()
    index = [int(i) for i in torch.unravel_index(worst, error.shape)]
    values = (a.flatten()[worst].item() for a in (got, want, error, tolerance, bound))
    has, should, off, allowed, size = values
    raise AssertionError(
        f"{int(wrong.sum())} of {wrong.numel()} entries are wrong; the worst is {index}: {has}, "
        f"expected {should}; error {off:.3g}, tolerance {allowed:.3g} "
        f"(c * u * K = {rounding:.3g}, scale {size:.3g})"
    )


def _tensor(name: str, array: Any) -> Tensor:
    # A tolerance may lie beyond the range of the default float type.
    if isinstance(array, Tensor):
        return array
    if isinstance(array, int | float):
        return torch.tensor(array, dtype=torch.float64, device="cpu")
    return arrays.as_tensor("assert_close", name, array)
