"""How a CP fit ended: components that diverge, and the words for it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..convergence import account, in_words, rose
from ..results import ConvergenceInfo

__all__ = ["DivergenceWatch", "describe", "hadamard"]


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

    def diverging(self, sweep: int, grams: Sequence[Tensor]) -> tuple[int, int, float] | None:
        """Return a diverging pair of components and its cosine, or None."""
        before = [inner for at, inner in self._seen if 2 * at <= sweep][-2:]
        if len(before) < 2:
            return None
        inner = hadamard(grams)
        lengths = inner.diagonal().real.clamp(min=0).sqrt()
        outer = lengths[:, None] * lengths
        cosines = torch.where(outer > 0, inner.real / outer, torch.zeros_like(outer))
        r, s = sorted(divmod(int(cosines.argmin()), len(cosines)))
        then, half, now = (_Pair.of(at, r, s) for at in (*before, inner))
        for past, present in ((then, half), (half, now)):
            if present.shorter <= self.GROWTH * past.shorter or present.cosine >= past.cosine:
                return None
        still = all(
            abs(past.together - now.together) <= self.STILL * now.together for past in (then, half)
        )
        if now.cosine < (self.OPPOSITE if still else self.EXTREME):
            return r, s, now.cosine
        return None


@dataclass(frozen=True)
class _Pair:
    """Length of the shorter of two components, their cosine, and the length of their sum."""

    shorter: float
    cosine: float
    together: float

    @classmethod
    def of(cls, inner: Tensor, r: int, s: int) -> _Pair:
        """Read the pair out of the components' inner products."""
        rr, ss, rs = float(inner[r, r].real), float(inner[s, s].real), float(inner[r, s].real)
        outer = math.sqrt(max(0.0, rr * ss))
        return cls(
            shorter=math.sqrt(max(0.0, min(rr, ss))),
            cosine=rs / outer if outer > 0 else 0.0,
            together=math.sqrt(max(0.0, rr + ss + 2 * rs)),
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
