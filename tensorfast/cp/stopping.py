"""How a CP fit ended: components that diverge, and the words for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..convergence import account, in_words, rose
from ..results import ConvergenceInfo

__all__ = ["DivergenceWatch", "describe", "diverging", "hadamard"]


class DivergenceWatch:
    """Finds components that grow without bound against each other.

    A tensor without a best approximation of rank R shows in two components that turn in opposite
    directions and lengthen without end, while what they model together, their sum, stands still.
    (On the textbook border-rank tensor, a power law: each doubling of the sweeps makes both longer
    by 1.14 to 1.18, the cosine goes -0.7, -0.77, -0.83, -0.88, and the sum's length keeps three
    digits.) Components of real data that merely cancel in part for a while grow, too, but their sum
    does not keep still. So the two most nearly opposite components are taken to diverge if over the
    last two doublings of the sweeps both have grown by ``GROWTH`` and their cosine has fallen, and
    if it is below ``OPPOSITE`` with their sum kept within ``STILL``, or below ``EXTREME`` (of three
    and more diverging components no two keep their sum).

    References
    ----------
    Krijnen, Dijkstra and Stegeman, Psychometrika 73 (2008); de Silva and Lim, SIAM J. Matrix Anal.
    Appl. 30 (2008).
    """

    OPPOSITE = -0.6
    EXTREME = -0.97
    GROWTH = 1.04
    STILL = 0.03
    FIRST = 16

    def __init__(self) -> None:
        # The inner products of the components at the last three of sweeps 16, 32, 64, ...
        self._seen: deque[tuple[int, Tensor]] = deque(maxlen=3)

    @classmethod
    def due(cls, sweep: int) -> bool:
        """Whether this is one of the sweeps 16, 32, 64, ..."""
        return sweep >= cls.FIRST and sweep & (sweep - 1) == 0

    def record(self, sweep: int, grams: Sequence[Tensor]) -> None:
        """Note where the components stand, where that is `due`."""
        if self.due(sweep):
            self._seen.append((sweep, hadamard(grams)))

    def keep(self, index: Tensor) -> None:
        """Go on with these of a batch of fits only."""
        for at, (sweep, inner) in enumerate(self._seen):
            self._seen[at] = sweep, inner[index]

    def diverging(self, sweep: int, grams: Sequence[Tensor]) -> tuple[int, int, float] | None:
        """Return a diverging pair of components and its cosine, or None."""
        return self.diverging_of(sweep, [gram[None] for gram in grams], None)[0]

    def diverging_of(
        self, sweep: int, grams: Sequence[Tensor], index: Tensor | None
    ) -> list[tuple[int, int, float] | None]:
        """Return `diverging` of the fits at ``index`` of a batch, whose Gram matrices these are.

        An index of None adds the axis of a batch to what was recorded.
        """
        before = [inner for at, inner in self._seen if 2 * at <= sweep][-2:]
        if len(before) < 2:
            return [None] * len(grams[0])
        past = [inner[index] for inner in before]
        return diverging((past[0], past[1]), hadamard(grams))


def diverging(past: tuple[Tensor, Tensor], now: Tensor) -> list[tuple[int, int, float] | None]:
    """Return the diverging pair of each of a batch of fits, with its cosine, or None.

    From inner products of the components ``[fits, R, R]``: two of the past, and now, each after
    twice the sweeps of the one before.
    """
    now = now.real
    lengths = now.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    outer = lengths[:, :, None] * lengths[:, None, :]
    cosines = torch.where(outer > 0, now / outer, torch.zeros_like(outer))
    at = cosines.flatten(1).argmin(1)
    rank = now.shape[-1]
    r, s = at // rank, at % rank
    then, half, last = (_Pair.of(inner, r, s) for inner in (past[0].real, past[1].real, now))
    grew = torch.ones_like(at, dtype=torch.bool)
    for old, new in ((then, half), (half, last)):
        grew &= (new.shorter > DivergenceWatch.GROWTH * old.shorter) & (new.cosine < old.cosine)
    still = torch.ones_like(grew)
    for old in (then, half):
        still &= (old.together - last.together).abs() <= DivergenceWatch.STILL * last.together
    limit = torch.where(still, DivergenceWatch.OPPOSITE, DivergenceWatch.EXTREME)
    found = (grew & (last.cosine < limit)).tolist()
    both = torch.stack([torch.minimum(r, s), torch.maximum(r, s)], 1).tolist()
    cosine = last.cosine.tolist()
    return [
        (*pair, value) if yes else None
        for yes, pair, value in zip(found, both, cosine, strict=True)
    ]


@dataclass(frozen=True)
class _Pair:
    """Length of the shorter of two components, their cosine, and the length of their sum.

    Of every fit of a batch.
    """

    shorter: Tensor
    cosine: Tensor
    together: Tensor

    @classmethod
    def of(cls, inner: Tensor, r: Tensor, s: Tensor) -> _Pair:
        """Read the pairs out of the components' inner products ``[fits, R, R]``."""
        fit = torch.arange(len(inner), device=inner.device)
        rr, ss, rs = inner[fit, r, r], inner[fit, s, s], inner[fit, r, s]
        outer = (rr * ss).clamp(min=0).sqrt()
        return cls(
            shorter=torch.minimum(rr, ss).clamp(min=0).sqrt(),
            cosine=torch.where(outer > 0, rs / outer, torch.zeros_like(outer)),
            together=(rr + ss + 2 * rs).clamp(min=0).sqrt(),
        )


def hadamard(grams: Sequence[Tensor]) -> Tensor:
    """Hadamard product."""
    out = grams[0]
    for gram in grams[1:]:
        out = out * gram
    return out


def describe(
    status: str,
    errors: Sequence[float],
    tol: float,
    ridge: float,
    pair: tuple[int, int, float] | None,
    remark: str = "",
) -> ConvergenceInfo:
    """Put the outcome of a fit into words, with a ``remark`` at the end.

    A diverging ``pair`` overrides every status, unless the fit is perfect.
    """
    perfect = status == "precision_limit" and not rose(errors)
    if pair is None or perfect:
        message = in_words(status, errors, tol)
    else:
        r, s, cosine = pair
        status = "degenerate"
        message = (
            f"After {len(errors)} sweeps components {r} and {s} diverge against each other (cosine "
            f"{cosine:.4f}): the tensor seems to have no best approximation of this rank; lower "
            "the rank, or bound the factors with l2_reg."
        )
    if ridge:
        message += (
            " The normal equations were singular (the rank is above what the data hold, or columns "
            f"are collinear); a relative ridge of up to {ridge:.0e} was added."
        )
    return account(status, errors, f"{message} {remark}".strip())
