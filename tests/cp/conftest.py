"""Fixtures of the tests of CP."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest


@pytest.fixture
def ends_soon() -> Iterator[None]:
    """Fail, in place of hanging, where a loop does not end."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError("still running after 60 seconds")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
