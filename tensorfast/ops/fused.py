"""What engines take from the GPU's kernels besides the operations that users call.

Contractions to any modes in one pass, with what they are expected to cost, and the small algebra of
an ALS sweep. None of it waits for the device. Triton is imported when a CUDA tensor comes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .. import _dispatch
from ..precision import compute_dtype
from ._shared import describe_tensor
from ._triton import asked_precision

__all__ = ["Fused", "fused_for", "judge_sums"]


@dataclass(frozen=True)
class Fused:
    """The kernels for one tensor.

    Attributes
    ----------
    precision : str
        Arithmetic of float32 products.
    """

    precision: str

    def contract(self, x: Tensor, factors: Mapping[int, Tensor], rank: int) -> Tensor:
        """Contract the modes that have a factor; ``[kept modes ..., R]`` in C order."""
        from ..kernels.contraction import contract

        kept = [size for n, size in enumerate(x.shape) if n not in factors]
        out = x.new_empty(*kept, rank, dtype=compute_dtype(x.dtype))
        return contract(x, factors, out, self.precision)

    def contract_partial(self, p: Tensor, lo: int, hi: int, factors: Sequence[Tensor]) -> Tensor:
        """Contract axes ``lo ... hi-1`` of a partial result ``[..., R]``, column by column."""
        from ..kernels.partial import contract_partial

        return contract_partial(p, lo, hi, factors)

    def expected(self, x: Tensor, kept: Sequence[int], rank: int) -> tuple[float, int]:
        """Predict a contraction of ``x`` to the modes ``kept``: seconds, and bytes it takes."""
        from ..kernels.plan import Contraction, plan

        c = Contraction.of(x, kept, rank, self.precision)
        p = plan(c)
        results = c.length(kept) * rank * (1 if p.splits == 1 else 1 + p.splits)
        return p.seconds, results * c.computing

    def expected_partial(
        self, x: Tensor, sizes: Sequence[int], lo: int, hi: int, rank: int
    ) -> tuple[float, int]:
        """Predict one of axes ``lo ... hi-1`` of a partial result of these sizes, likewise."""
        from ..kernels.devices import chip_of
        from ..kernels.partial import expected

        kept = math.prod(sizes[:lo]) * math.prod(sizes[hi:]) * rank
        itemsize = compute_dtype(x.dtype).itemsize
        chip = chip_of(x.device)
        seconds, elements = expected(kept, math.prod(sizes[lo:hi]), itemsize, chip)
        return seconds, elements * itemsize

    def solve(
        self,
        grams: Sequence[Tensor],
        l2_reg: float,
        least: float,
        ridge: Tensor,
        product: Tensor,
        active: Tensor,
        factor: Tensor,
        gram: Tensor,
    ) -> None:
        """Replace a factor by the solution of its normal equations, and its Gram matrix.

        ``H`` is the Hadamard product of ``grams`` plus ``l2_reg``; see `cp.update.LeastSquares` for
        the ridge. Nothing changes unless ``active``.
        """
        from ..kernels.cholesky import factorize
        from ..kernels.solve import apply

        inverse, shift = factorize(grams, l2_reg, least, ridge, active)
        apply(product, factor, inverse, shift, active, factor, gram)

    def workspace_of_solve(self, x: Tensor, rows: int, rank: int) -> int:
        """Predict the bytes that `solve` takes for a factor of this many rows."""
        from ..kernels import cholesky, solve
        from ..kernels.devices import chip_of

        chip = chip_of(x.device)
        dtype = str(compute_dtype(x.dtype)).removeprefix("torch.")
        kept, besides = cholesky.workspace(rank, chip)
        return kept + max(besides, solve.workspace(rows, rank, dtype, chip))

    def workspace_of_residual(self, x: Tensor, rank: int) -> int:
        """Predict the bytes that the distance to a model takes, formed in double precision."""
        from ..kernels.devices import chip_of
        from ..kernels.residual import workspace

        dtype = str(x.dtype).removeprefix("torch.")
        return workspace(tuple(x.shape), x.stride(), rank, dtype, True, chip_of(x.device))

    def judge(
        self,
        grams: Sequence[Tensor],
        factor: Tensor,
        product: Tensor,
        log: Tensor,
        state: tuple[Tensor, Tensor, Tensor],
        limits: Tensor,
    ) -> None:
        """End a sweep; ``state`` is active, count and previous of `ahead.Standing`."""
        from ..kernels.judge import State, judge

        judge(grams, factor, product, log, State(*state), limits)


def judge_sums(
    sums: Tensor, log: Tensor, state: tuple[Tensor, Tensor, Tensor], limits: Tensor
) -> None:
    """End a sweep whose three sums, float64 ``[3]``, are known; as `Fused.judge`."""
    from ..kernels import judge

    judge.judge_sums(sums, log, judge.State(*state), limits)


#: The largest matrix of normal equations that one program factors in reasonable time.
LARGEST_RANK = 512


def fused_for(x: Tensor, rank: int, precision: str | None) -> Fused | None:
    """Return the kernels that serve ``x``; None where plain torch does."""
    # The description is worth a sweep of the smallest tensors.
    if not x.is_cuda or rank > LARGEST_RANK:
        return None
    problem = describe_tensor("mttkrp", x, mode=0, rank=rank, precision=precision)
    if _dispatch.choose(problem).name != "triton":
        return None
    return Fused(asked_precision(precision))
