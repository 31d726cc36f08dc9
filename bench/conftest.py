"""Wiring of the benchmark into pytest-benchmark: threads, cases, the record."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import threads

threads.pin()

import gc  # noqa: E402 (NumPy and torch read the thread count when they are loaded)
import itertools  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from bench import machine  # noqa: E402
from bench.measure import Session  # noqa: E402

SESSION = pytest.StashKey[Session]()
# How the names of problems end that are quick.
QUICK = ("200^3-R16", "10^3-R3", "16^3-R8", "30x40x50-R5", "1000x16^3-4^3", "spectrum-128x10")


def pytest_addoption(parser):
    """Add ``--quick``: small CP problems, one lap, three sweeps; checks the harness only."""
    parser.addoption("--quick", action="store_true", help="check the harness, measure nothing")


def pytest_configure(config):
    """Set the thread count and open the session's memory."""
    torch.set_num_threads(threads.count())
    config.stash[SESSION] = Session(quick=config.getoption("--quick"))


@pytest.fixture
def session(request):
    """Return what this pytest session remembers between its benchmarks."""
    return request.config.stash[SESSION]


def pytest_generate_tests(metafunc):
    """Order the cases problem by problem, lap by lap, so that implementations interleave."""
    if "lap" not in metafunc.fixturenames:
        return
    state = metafunc.config.stash[SESSION]
    names = [p.name for p in metafunc.module.PROBLEMS]
    if state.quick:
        names = [name for name in names if name.endswith(QUICK) or "^3-20" in name]
    cases = itertools.product(names, range(state.laps), metafunc.module.ADAPTERS)
    metafunc.parametrize(("problem", "lap", "implementation"), list(cases))


def pytest_benchmark_generate_machine_info():
    """Replace the plugin's record, which names the host, by ours."""
    return machine.record()


def pytest_benchmark_generate_commit_info():
    """Record the commit and whether the tree was dirty; nothing of the project's place."""
    return machine.commit()


def pytest_benchmark_update_json(config, output_json):
    """Record what was not run, with the reasons."""
    output_json["not_run"] = config.stash[SESSION].not_run
    output_json["quick"] = config.stash[SESSION].quick


def pytest_unconfigure():
    """Free what rivals hold: Kokkos aborts on an array that outlives its own shutdown."""
    gc.collect()
