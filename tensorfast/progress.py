"""A tqdm bar with the error in it, as a callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress_bar"]

Callback = Callable[[int, float, Any], bool]


@contextmanager
def progress_bar(show: bool, total: int, callback: Callback | None) -> Iterator[Callback | None]:
    """Yield ``callback``, wrapped to advance a bar if one is to be shown.

    Raises
    ------
    ImportError
        If a bar is wanted and tqdm is not installed.
    """
    if not show:
        yield callback
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError(
            "progress: tqdm is not installed; run pip install 'tensorfast[progress]' "
            "or pass progress=False"
        ) from None
    with tqdm(total=total, unit="sweep") as bar:

        def report(sweep: int, error: float, state: Any) -> bool:
            bar.set_postfix(error=f"{error:.3e}")
            bar.update()
            return callback is not None and bool(callback(sweep, error, state))

        yield report
