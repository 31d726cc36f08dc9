"""What holds for every test: how much of the machine it may use, and which tests are skipped."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def run_example() -> Callable[..., str]:
    """Run an example by its name, in a folder, with options; what it prints."""

    def run(name: str, folder: Path, *options: str) -> str:
        command = [sys.executable, ROOT / "examples" / f"{name}.py", *options]
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        # Threads gain nothing at this size, and lose much where the machine is shared.
        environment["OMP_NUM_THREADS"] = "1"
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


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
