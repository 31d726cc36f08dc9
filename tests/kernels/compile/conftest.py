"""The kernels compiled for GPUs that are not there: ``make test-compile``.

Under Triton's interpreter nothing is compiled, and there is nothing to collect.
"""

import os
import sys
import time
from pathlib import Path

import pytest

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = ["test_*.py"] if INTERPRETING else []

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

COUNTED = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def reports(pytestconfig):
    """Compile what the heuristics ask for; return the reports by launch."""
    import triton

    from bench import launches

    start = time.monotonic()
    chosen, walked = launches.chosen()
    found = launches.compiled(chosen)
    configurations = {launch.configuration for launch in found}
    kernels = sorted({key.kernel for key in configurations})
    chips = sorted({key.capability for key in configurations})
    pytestconfig.stash[COUNTED] = (
        f"Triton {triton.__version__}, {', '.join(f'sm_{chip}' for chip in chips)}: "
        f"{len(kernels)} kernels ({', '.join(kernels)}), {walked} cases walked, "
        f"{len(configurations)} configurations checked in {len(found)} programs, "
        f"{time.monotonic() - start:.0f} s"
    )
    return found


def pytest_terminal_summary(terminalreporter, config):
    if COUNTED in config.stash:
        terminalreporter.section("compiled")
        terminalreporter.line(config.stash[COUNTED])
