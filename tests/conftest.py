"""What holds for every test: how much of the machine it may use, and which tests are skipped."""

import contextlib
import os

# One thread: the same everywhere, as how a sum is split changes its rounding, and on small problems
# several times faster than two wherever another process holds a core.
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

# `tensorfast.testing.poisoned_memory` sets torch to be deterministic, and then cuBLAS refuses every
# product without this. Torch looks for it once.
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import pytest  # noqa: E402
import torch  # noqa: E402

# A machine that is lent with its GPU may not have it, and the tests that need a GPU do without.
with contextlib.suppress(ImportError):
    import hypothesis

    # Random examples are few but each may be the first to touch an operation, so time says nothing.
    hypothesis.settings.register_profile("tensorfast", deadline=None)
    hypothesis.settings.load_profile("tensorfast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {}
    if not torch.cuda.is_available():
        skips["gpu"] = pytest.mark.skip(reason="needs a CUDA GPU, and torch sees none")
    if not config.getoption("--slow"):
        skips["slow"] = pytest.mark.skip(reason="slow; run with --slow")
    for item in items:
        for marker, skip in skips.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)
