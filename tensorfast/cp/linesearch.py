"""Extrapolation of ALS along the line from one sweep's factors to the next."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["LineSearch"]


class LineSearch:
    """Bro's extrapolation: from sweep t a step of length ``t^(1/p)`` along the last change.

    Tried every ``EVERY`` sweeps from sweep ``FIRST`` on; a refused step raises p after ``PATIENCE``
    refusals in a row. The caller keeps an extrapolated point only if its exact error is smaller.

    References
    ----------
    Bro, "Multi-way analysis in the food industry", PhD thesis (1998), section 4.4.
    """

    FIRST = 5
    EVERY = 2
    PATIENCE = 4

    def __init__(self) -> None:
        self._power = 2.0
        self._refused = 0
        self._previous: list[Tensor] | None = None

    def candidate(self, sweep: int, factors: Sequence[Tensor]) -> list[Tensor] | None:
        """Return extrapolated factors after sweep number ``sweep`` (1-based), or None."""
        previous, self._previous = self._previous, list(factors)
        if previous is None or sweep < self.FIRST or (sweep - self.FIRST) % self.EVERY:
            return None
        step = float(sweep) ** (1.0 / self._power)
        return [old + step * (new - old) for old, new in zip(previous, factors, strict=True)]

    def report(self, accepted: bool, factors: Sequence[Tensor]) -> None:
        """Tell whether the candidate was kept."""
        if accepted:
            self._previous, self._refused = list(factors), 0
            return
        self._refused += 1
        if self._refused == self.PATIENCE:
            self._power, self._refused = self._power + 1.0, 0
