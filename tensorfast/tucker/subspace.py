"""Bases of the leading left singular vectors of unfoldings, by rank or by tolerated error."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import direct, norms
from ..ops.small import LARGEST, by_kernels, eigenvectors
from ..precision import compute_dtype, solve_dtype
from ..svd import OVERSAMPLE, generator, sketch, sketch_pays, tail_cut

__all__ = ["basis_of_rank", "basis_within"]


#: Columns of the sketches that are tried, and the squared norm, relative to that of the data, that
#: the rounding of float32 can hide: about ``eps`` by rounding of each entry, less by their number.
COLUMNS, SKETCH_RESOLVES = (32, 64, 128, LARGEST), 1e-6

#: Squares of singular values below this, relative to the largest, are lost in a Gram matrix in
#: double precision.
GRAM_RESOLVES = 1e-12


def basis_of_rank(
    x: Tensor, mode: int, rank: int, approximate: bool, rng: torch.Generator | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the ``rank`` leading left singular vectors of an unfolding.

    From a sketch, if that is allowed and costs less than the Gram matrix; with a fixed seed unless
    ``rng`` is given. ``x`` projected on them comes with them where it is known.
    """
    dtype = compute_dtype(x.dtype)
    size = x.shape[mode]
    if rank == size:
        return torch.eye(rank, dtype=dtype, device=x.device), None
    if approximate and x.ndim > 1 and sketch_pays(x, mode, rank):
        rng = generator("basis_of_rank", 0, x.device) if rng is None else rng
        found = sketch(x, mode, rank, rng)
        return found.basis, direct.ttm(found.projected, found.turn, mode, transpose=True)
    squares, vectors = _spectrum(x, mode)
    if rank > len(squares):
        # The unfolding has fewer columns than that: any orthonormal ones will do beyond them.
        return torch.linalg.qr(vectors, mode="complete").Q[:, :rank].to(dtype), None
    if squares[rank - 1] < GRAM_RESOLVES * squares[0] and dtype == solve_dtype(dtype):
        _, vectors = _orthogonal_spectrum(x, mode)
    return vectors[:, :rank].to(dtype), None


def basis_within(
    x: Tensor, mode: int, budget: float, squared_norm: float, approximate: bool
) -> tuple[Tensor, float]:
    """Return the fewest left singular vectors that leave out at most ``budget``, and the rest.

    From sketches, if that is allowed and may save the eigenvectors of a large matrix.
    """
    dtype = compute_dtype(x.dtype)
    worth = by_kernels(x) and x.ndim > 1 and x.shape[mode] > LARGEST
    if approximate and worth and budget > SKETCH_RESOLVES * squared_norm:
        found = _sketched_within(x, mode, budget)
        if found is not None:
            return found
    fine = budget < GRAM_RESOLVES * squared_norm and dtype == solve_dtype(dtype)
    squares, vectors = _orthogonal_spectrum(x, mode) if fine else _spectrum(x, mode)
    rank = tail_cut(squares, budget)
    if rank == x.shape[mode]:
        return torch.eye(rank, dtype=dtype, device=x.device), 0.0
    return vectors[:, :rank].to(dtype), float(squares[rank:].clamp(min=0).sum())


def _sketched_within(x: Tensor, mode: int, budget: float) -> tuple[Tensor, float] | None:
    """Return the same from sketches that grow, or None where the largest leaves out too much.

    What a basis leaves out is known exactly, but for the rounding of ``x`` projected on it. As its
    singular values are a little too small it may keep more vectors than needed: where the spectrum
    is flat, up to 6 % more (noise, 230 x 200 x 10), else none.
    """
    rng, whole = generator("basis_within", 0, x.device), float(norms.squared_norm(x))
    for columns in COLUMNS:
        found = sketch(x, mode, columns - OVERSAMPLE, rng)
        # On the host: a GPU's cumulative sum is not always the same.
        left = (whole - found.squares.cpu().cumsum(0)).clamp(min=0).tolist()
        if left[-1] <= budget:
            rank = sum(rest > budget for rest in left) + 1
            return found.basis[:, :rank], left[rank - 1]
    return None


def _spectrum(x: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """Squared singular values, descending, and left singular vectors, by a Gram matrix."""
    if x.shape[mode] ** 2 > x.numel():
        return _orthogonal_spectrum(x, mode)
    return eigenvectors(direct.gram(x, mode, solve_dtype(x.dtype)))


def _orthogonal_spectrum(x: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """Return the same by orthogonal reductions, which resolve values down to rounding."""
    dtype = solve_dtype(x.dtype)
    size = x.shape[mode]
    if size**2 > x.numel():
        u, s, _ = torch.linalg.svd(
            x.movedim(mode, 0).to(dtype).reshape(size, -1), full_matrices=False
        )
        return s**2, u
    # A running QR factorisation of the transposed unfolding, block by block of 4 I_n rows or more.
    axis = 0 if mode else x.ndim - 1
    step = max(1, 4 * size * size * x.shape[axis] // x.numel())
    triangle = x.new_zeros(0, size, dtype=dtype)
    for block in x.split(step, axis):
        rows = block.movedim(mode, -1).to(dtype).reshape(-1, size)
        triangle = torch.linalg.qr(torch.cat([triangle, rows]), mode="r").R
    u, s, _ = torch.linalg.svd(triangle.mT, full_matrices=False)
    return s**2, u
