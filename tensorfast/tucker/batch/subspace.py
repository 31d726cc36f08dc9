"""Bases of the leading left singular vectors of unfoldings, for every tensor of a batch.

Small matrices go to LAPACK one by one, inside one call of torch's. (1000 symmetric matrices, one
core, float64, milliseconds:

| | 8 x 8 | 12 x 12 | 16 x 16 | 32 x 32 |
|---|---|---|---|---|
| `torch.linalg.eigh` | 4 | 8 | 14 | 57 |
| the projector alone, 40 steps of SP2 by batched products | 9 | 17 | 32 | 131 |
| six sweeps of Jacobi rotations, entry by entry, the batch last | 25 | 62 | 129 | 970 |
| `torch.linalg.qr`, 4 columns | 0.5 | 0.5 | 0.6 | 0.6 |)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...batch.contract import gram, unfold
from ...precision import compute_dtype, solve_dtype
from ...svd import sketch_pays
from .. import sweep
from ..subspace import GRAM_RESOLVES, basis_of_rank
from ..sweep import KRYLOV_STEPS, trial_space

__all__ = ["bases_of_rank", "by_rows", "improved"]


def bases_of_rank(
    x: Tensor, mode: int, rank: int, approximate: bool, rng: torch.Generator | None = None
) -> Tensor:
    """`tucker.subspace.basis_of_rank` of every tensor of ``x [B, ...]``: ``[B, I_n, R]``.

    Where that takes a sketch, the tensors take theirs one by one, all by the same random numbers.
    """
    dtype, size = compute_dtype(x.dtype), x.shape[mode + 1]
    if rank == size:
        eye = torch.eye(rank, dtype=dtype, device=x.device)
        return eye.expand(len(x), rank, rank).contiguous()
    if approximate and x.ndim > 2 and sketch_pays(x[0], mode, rank):
        return _sketched(x, mode, rank, rng)
    others = x[0].numel() // size
    if size > others:
        vectors = torch.linalg.svd(unfold(x, mode), full_matrices=False).U
        if rank > others:
            # The unfolding has fewer columns than that: any orthonormal ones will do beyond them.
            vectors = torch.linalg.qr(vectors, mode="complete").Q
    else:
        values, vectors = _eigenvectors(gram(x, mode))
        if dtype == solve_dtype(dtype):
            lost = values[:, rank - 1] < GRAM_RESOLVES * values[:, 0]
            index = lost.nonzero().squeeze(1)
            if len(index):
                vectors[index] = _orthogonal(x[index], mode)
    return by_rows(vectors[..., :rank].to(dtype))


def _sketched(x: Tensor, mode: int, rank: int, rng: torch.Generator | None) -> Tensor:
    state, found = None if rng is None else rng.get_state(), []
    for one in x:
        if rng is not None and state is not None:
            rng.set_state(state)
        found.append(basis_of_rank(one, mode, rank, True, rng)[0])
    return by_rows(torch.stack(found))


def _orthogonal(x: Tensor, mode: int) -> Tensor:
    """Left singular vectors by orthogonal reductions of unfoldings that are wide."""
    triangles = torch.linalg.qr(unfold(x, mode).mH, mode="r").R
    return torch.linalg.svd(triangles.mH, full_matrices=False).U


def improved(projected: Tensor, mode: int, factors: Tensor) -> Tensor:
    """`tucker.sweep.improved` of every tensor of a batch, in double precision."""
    size, rank = factors.shape[1:]
    if size == rank:
        return factors
    if len(factors) == 1:
        return sweep.improved(projected[0], mode, factors[0])[None]
    if trial_space(size, rank) == size:
        _, vectors = _eigenvectors(gram(projected, mode))
        return by_rows(vectors[..., :rank].to(factors.dtype))
    rows = unfold(projected, mode)
    # A longer side is gone through once.
    squares = torch.bmm(rows, rows.mH) if rows.shape[2] > size else None

    def squared(block: Tensor) -> Tensor:
        if squares is not None:
            return torch.bmm(squares, block)
        return torch.bmm(rows, torch.bmm(rows.mH, block))

    blocks = [factors.to(rows.dtype)]
    for _ in range(KRYLOV_STEPS):
        blocks.append(torch.linalg.qr(squared(blocks[-1])).Q)
    basis = torch.linalg.qr(torch.cat(blocks, 2)).Q
    turned = torch.bmm(basis.mH, squared(basis))
    _, vectors = _eigenvectors(turned)
    return by_rows(torch.bmm(basis, vectors[..., :rank]).to(factors.dtype))


def _eigenvectors(squares: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors."""
    values, vectors = torch.linalg.eigh(squares)
    return values.flip(-1), vectors.flip(-1)


def by_rows(bases: Tensor) -> Tensor:
    """Lay the adjoint of each in C order, as products take it."""
    return bases.mT.contiguous().mT
