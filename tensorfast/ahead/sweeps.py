"""Sweeps that are recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .recording import Capture, Replay

__all__ = ["Sweeps"]


class Sweeps:
    """Launches sweep after sweep: recorded once for each sweep of a cycle.

    Parameters
    ----------
    begin : callable
        Returns what makes a sweep, the next one of the cycle at each call, from its first on.
    cycle : int
        Sweeps after which what they launch repeats.
    capture : callable, optional
        Records what a function launches, without doing it.
    recorded : sequence of Replay
        The sweeps of the cycle, where they have been recorded before.

    Attributes
    ----------
    launched : int
        Sweeps so far, those that changed nothing included.
    recorded : list of Replay
        Of the sweeps of the cycle, as many as there are yet.
    trouble : str
        Why nothing is recorded, where that was tried.
    """

    def __init__(
        self,
        begin: Callable[[], Callable[[], None]],
        cycle: int,
        capture: Capture | None = None,
        recorded: Sequence[Replay] = (),
    ) -> None:
        self.launched = 0
        self.trouble = ""
        self.recorded = list(recorded)
        self._begin, self._sweep = begin, begin()
        self._cycle, self._capture = cycle, capture

    @property
    def complete(self) -> bool:
        """Whether every sweep of the cycle is recorded."""
        return len(self.recorded) == self._cycle

    def launch(self) -> None:
        """Launch one sweep; the first cycle directly, so that all code is loaded."""
        phase = self.launched % self._cycle
        first = self.launched < self._cycle and not self.complete
        self.launched += 1
        if not first and self._capture is not None and phase == len(self.recorded):
            try:
                self.recorded.append(self._capture(self._sweep))
            except RuntimeError as error:
                self.trouble = (str(error).strip() or type(error).__name__).splitlines()[0]
                # What was recorded in part has used up products that were never made.
                self._capture, self._sweep = None, self._begin()
        if phase < len(self.recorded) and self._capture is not None:
            self.recorded[phase].replay()
        else:
            self._sweep()

    def align(self, made: int) -> None:
        """Launch sweeps that change nothing until the cycle is where ``made`` sweeps left it."""
        while (self.launched - made) % self._cycle:
            self.launch()
