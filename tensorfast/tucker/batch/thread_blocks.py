"""Small Tucker decompositions by kernels in CUDA C++ that give each tensor to a thread block."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...convergence import account, at_precision_limit, in_words
from ...precision import compute_dtype
from ...results import ConvergenceInfo

__all__ = ["iterate", "reasons", "truncate"]


def reasons(
    kernel: str,
    x: Tensor,
    shape: Sequence[int],
    ranks: Sequence[int],
    order: Sequence[int] | None = None,
    watched: bool = False,
) -> list[str]:
    """Every reason why a kernel cannot serve tensors of ``shape`` out of ``x``; empty if it can.

    ``watched`` is whether somebody looks on from sweep to sweep.
    """
    if x.device.type != "cuda":
        return [f"x is on {x.device}; the kernels for many small tensors run on CUDA"]
    from ...cuda import tucker_plan
    from ...kernels.devices import chip_of

    dtype, chip = str(compute_dtype(x.dtype)).removeprefix("torch."), chip_of(x.device)
    found = tucker_plan.reasons(shape, ranks, dtype, x.device.type, chip, order, kernel)
    if watched:
        found.append("callback or progress looks on; the kernel runs fits from beginning to end")
    return found


def truncate(
    x: Tensor, ranks: Sequence[int], order: Sequence[int]
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Truncate tensors ``x [B, ...]``; core, factors, relative errors, and which to do again.

    Those are float64 tensors that keep singular values below 1e-6 of the largest: of these the
    kernel's Gram matrices have lost digits.
    """
    from ...cuda.tucker import sthosvd_small

    done = sthosvd_small(x, ranks, mode_order=order)
    return done.core, done.factors, done.errors, done.unresolved.nonzero().squeeze(1)


def iterate(
    x: Tensor,
    ranks: Sequence[int],
    core: Tensor,
    factors: Sequence[Tensor],
    started: bool,
    n_iter_max: int,
    tol: float,
) -> list[ConvergenceInfo]:
    """Run HOOI on tensors ``x [B, ...]``, from ``factors`` if ``started``, into these."""
    from ...cuda.tucker import STATUSES, hooi_small

    start = [factor.contiguous() for factor in factors] if started else None
    fits = hooi_small(x, ranks, start=start, n_iter_max=n_iter_max, tol=tol)
    core.copy_(fits.core)
    for own, factor in zip(factors, fits.factors, strict=True):
        own.copy_(factor)
    infos = []
    ends = zip(fits.status.tolist(), fits.errors.tolist(), fits.sweeps.tolist(), strict=True)
    for code, log, sweeps in ends:
        status, errors = STATUSES[code], log[:sweeps]
        if status == "max_iter" and at_precision_limit(errors[-1], x.dtype):
            status = "precision_limit"
        infos.append(account(status, errors, in_words(status, errors, tol)))
    return infos
