"""How a fit ended: components that diverge, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..results import ConvergenceInfo

__all__ = ["DivergenceWatch", "describe", "hadamard"]


class DivergenceWatch:
    """Finds components that grow without bound against each other.

    A tensor without a best approximation of rank R shows in two components that turn in opposite
    directions and lengthen, what they model being their difference. So the two most nearly opposite
    components are taken to diverge if their cosine is below ``OPPOSITE`` and the shorter has grown
    by ``GROWTH`` since about half of the sweeps ago. (On the textbook border-rank tensor, sweep 100
    to 200: cosine -0.86, growth 1.2; a bounded pair stands still.)

    References
    ----------
    Krijnen, Dijkstra and Stegeman, Psychometrika 73 (2008); de Silva and Lim, SIAM J. Matrix Anal.
    Appl. 30 (2008).
    """

    OPPOSITE = -0.6
    GROWTH = 1.04
    FIRST = 8

    def __init__(self) -> None:
        self._lengths: dict[int, Tensor] = {}

    def record(self, sweep: int, grams: Sequence[Tensor]) -> None:
        """Note the components' lengths at sweeps 8, 16, 32, ..."""
        if sweep >= self.FIRST and sweep & (sweep - 1) == 0:
            self._lengths[sweep] = _lengths(hadamard(grams))

    def diverging(self, sweep: int, grams: Sequence[Tensor]) -> tuple[int, int, float] | None:
        """Return a diverging pair of components and its cosine, or None."""
        before = [lengths for at, lengths in self._lengths.items() if 2 * at <= sweep]
        if not before:
            return None
        inner = hadamard(grams)
        lengths = _lengths(inner)
        outer = lengths[:, None] * lengths
        cosine = torch.where(outer > 0, inner.real / outer, torch.zeros_like(outer))
        r, s = sorted(divmod(int(cosine.argmin()), len(cosine)))
        if float(cosine[r, s]) > self.OPPOSITE:
            return None
        now, then = (float(torch.minimum(at[r], at[s])) for at in (lengths, before[-1]))
        return (r, s, float(cosine[r, s])) if now > self.GROWTH * then else None


def _lengths(inner: Tensor) -> Tensor:
    return inner.diagonal().real.clamp(min=0).sqrt()


def hadamard(grams: Sequence[Tensor]) -> Tensor:
    """Hadamard product."""
    out = grams[0]
    for gram in grams[1:]:
        out = out * gram
    return out


_MESSAGES = {
    "converged": "The relative error changed by less than tol={tol:g} in the last of {sweeps}.",
    "max_iter": "All {sweeps} ran; raise n_iter_max if the error {error:.3g} still falls.",
    "stopped": "The callback stopped the iteration after {sweeps}.",
    "precision_limit": (
        "After {sweeps} the relative error {error:.3g} is at the rounding level of the data; "
        "use float64 data to go further."
    ),
    "rounding": (
        "After {sweeps} the relative error {error:.3g} rose by rounding: the data's type resolves "
        "no further progress; use float64 data to go further."
    ),
    "degenerate": (
        "After {sweeps} components {pair[0]} and {pair[1]} diverge against each other (cosine "
        "{pair[2]:.4f}): the tensor seems to have no best approximation of this rank; lower the "
        "rank, or bound the factors with l2_reg."
    ),
    "ridge": (
        " The normal equations were singular (the rank is above what the data hold, or columns are "
        "collinear); a relative ridge of up to {ridge:.0e} was added."
    ),
}


def describe(
    status: str,
    errors: Sequence[float],
    tol: float,
    ridge: float,
    pair: tuple[int, int, float] | None,
) -> ConvergenceInfo:
    """Put the outcome of a fit into words.

    A diverging ``pair`` overrides every status, unless the fit is perfect.
    """
    kind = status
    if status == "precision_limit" and len(errors) > 1 and errors[-1] > errors[-2]:
        kind = "rounding"
    if pair is not None and kind != "precision_limit":
        kind = status = "degenerate"
    sweeps = f"{len(errors)} sweep{'s' if len(errors) > 1 else ''}"
    text = _MESSAGES[kind] + (_MESSAGES["ridge"] if ridge else "")
    return ConvergenceInfo(
        n_iter=len(errors),
        rel_errors=tuple(errors),
        fit=1.0 - errors[-1],
        converged=status in ("converged", "precision_limit"),
        status=status,
        message=text.format(sweeps=sweeps, error=errors[-1], tol=tol, ridge=ridge, pair=pair),
    )
