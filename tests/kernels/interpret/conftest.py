"""The kernels under Triton's interpreter: a process of its own, ``make test-interpret``.

The interpreter is chosen when a kernel is imported, by an environment variable; in a process
without it the same tests run on a GPU, and are skipped where there is none.
"""

import pytest


@pytest.fixture(autouse=True)
def _poisoned():
    from tensorfast.testing import poisoned_memory

    with poisoned_memory():
        yield


@pytest.fixture
def small_tiles(monkeypatch):
    """Cut small problems many times: the smallest tiles, and many programs."""
    from tensorfast.kernels import configs, plan

    def smallest(*_):
        return (configs.Tile(16, 16, 16, 4, 1),)

    monkeypatch.setattr(plan, "tiles_for", smallest)
    plan.plan.cache_clear()
    yield
    plan.plan.cache_clear()


@pytest.fixture
def wide(monkeypatch):
    """Take every tensor for one whose offsets need 64 bits."""
    from tensorfast.kernels import contraction, indexing

    monkeypatch.setattr(indexing, "NARROW", 0)
    contraction._walk.cache_clear()
    yield
    contraction._walk.cache_clear()
