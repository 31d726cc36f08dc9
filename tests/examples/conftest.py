"""What the tests of every example share: a short run of it, and what its page says."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import example_pages

ROOT = example_pages.ROOT


@pytest.fixture(scope="session")
def run_example() -> Callable[..., str]:
    """Run an example by its name, small, in a folder, with further options; what it prints."""
    pytest.importorskip("matplotlib")

    def run(name: str, folder: Path, *options: str) -> str:
        command = [sys.executable, ROOT / "examples" / f"{name}.py", "--quick", *options]
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


@pytest.fixture(scope="module")
def quick(request, run_example, tmp_path_factory) -> tuple[str, Path]:
    """Run the EXAMPLE of a module once, with its OPTIONS; what it printed, and the folder."""
    name, options = request.module.EXAMPLE, getattr(request.module, "OPTIONS", ())
    folder = tmp_path_factory.mktemp(name)
    return run_example(name, folder, *options), folder


@pytest.fixture(scope="module")
def blocks(request, quick) -> dict[str, str]:
    """Blocks that the example wrote, by name."""
    path = quick[1] / f"{request.module.PAGE}.md"
    return example_pages.blocks(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(request) -> dict[str, str]:
    """Blocks of the same names on the PAGE in docs/ that the example is for."""
    path = ROOT / "docs" / f"{request.module.PAGE}.md"
    return example_pages.blocks(path.read_text(encoding="utf-8"))
