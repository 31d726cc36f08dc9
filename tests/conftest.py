"""What holds for every test: how much of the machine it may use, and which tests are skipped."""

import hypothesis
import pytest
import torch

# Random examples are few but each may be the first to touch an operation, so time says nothing.
hypothesis.settings.register_profile("tensorfast", deadline=None)
hypothesis.settings.load_profile("tensorfast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_configure() -> None:
    # The same number everywhere: how a sum is split over threads changes its rounding.
    torch.set_num_threads(2)


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
