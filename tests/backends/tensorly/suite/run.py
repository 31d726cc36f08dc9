"""TensorLy's own tests by our tensor algebra, held to how they end by TensorLy's: one table.

Every test that TensorLy's wheel ships runs under NumPy and under PyTorch, by both algebras. One that
passes by TensorLy's has to pass by ours, and ours has to have been called: ``make test-tensorly``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[3]
SITE = Path(find_spec("tensorly").origin).parents[1]

NUMERICS = ("numpy", "pytorch")
ALGEBRAS = ("core", "tensorfast")
#: Fewer calls under either, and the tests have not gone by our functions.
CALLS = 20_000
#: Random numbers with which a test is repeated that fails by ours only.
SEEDS = range(5)
#: How a test ends, from best to worst.
RANKS = {"passed": 0, "xpassed": 0, "xfailed": 1, "skipped": 2, "failed": 3, "missing": 4}
#: Tests that fail where another process holds the core, whichever algebra runs them: it suffices
#: that they pass when repeated.
TIMED = {"tensorly/tests/test_backend.py::test_svd_time"}


@dataclass(frozen=True)
class Record:
    """How each test ended, with the reason; how often TensorLy called each function of ours.

    ``reused`` counts the MTTKRPs that came from a partial result of one before.
    """

    tests: dict[str, tuple[str, str]]
    calls: dict[str, int]
    reused: int
    seconds: float

    def outcome(self, test: str) -> str:
        return self.tests.get(test, ("missing", ""))[0]

    def count(self, outcome: str) -> int:
        return sum(ended == outcome for ended, _ in self.tests.values())


def run(numeric: str, algebra: str, tests: list[str] | None = None, seed: int = 0) -> Record:
    """Run TensorLy's tests, all or some, in processes of their own."""
    where = [f"{SITE / test}" for test in tests] if tests else ["--pyargs", "tensorly"]
    spread = [] if tests else ["--numprocesses=auto", "--maxprocesses=8"]
    paths = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")},
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TENSORLY_BACKEND": numeric,
        "TENSORLY_TENALG_BACKEND": "core",
    }
    with tempfile.TemporaryDirectory() as folder:
        # Neither our settings of pytest nor our conftest apply, wherever TensorLy is installed.
        settings = Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n")
        record = Path(folder, "record.json")
        command = [sys.executable, "-m", "pytest", f"--config-file={settings}", f"--rootdir={SITE}"]
        command += ["--noconftest", "-p", "no:cacheprovider", "-p", "plugin", "-q"]
        command += [f"--tenalg={algebra}", f"--seed={seed}", f"--record={record}", *spread, *where]
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        # 1 says that tests have failed; what is above, that pytest has.
        if done.returncode > 1 or not record.exists():
            raise RuntimeError(f"{numeric}, {algebra}: {done.stdout}{done.stderr}")
        return Record(**json.loads(record.read_text()), seconds=seconds)


def worse(stock: Record, ours: Record) -> list[str]:
    """Return the tests that end worse by ours than by TensorLy's, or are not there."""
    return [test for test in stock.tests if RANKS[ours.outcome(test)] > RANKS[stock.outcome(test)]]


def excuse(test: str, stock: int, ours: int) -> str:
    """Return why a test may fail by ours and not by TensorLy's; nothing if it may not.

    Parameters
    ----------
    test : str
    stock, ours : int
        How often it failed when both repeated it, by itself, with the same random numbers. One
        that never fails so by ours has failed by what other tests had left behind.
    """
    if test in TIMED and not ours:
        return "goes by the clock, and passes when repeated"
    if 0 < ours <= stock:
        return f"fails {ours} times of {len(SEEDS)} when repeated, by TensorLy's {stock} times"
    return ""


def compare(numeric: str, stock: Record, ours: Record) -> list[str]:
    """Return what is wrong with ours, a paragraph each; print what is excused, and is no pass."""
    wrong = []
    suspects = worse(stock, ours)
    lost = [test for test in suspects if ours.outcome(test) == "missing"]
    again = [test for test in suspects if test not in lost]
    failures = {name: repeated(numeric, name, again) for name in ALGEBRAS}
    wrong += [f"{test} is missing" for test in lost]
    for test in again:
        reason = excuse(test, failures["core"][test], failures["tensorfast"][test])
        if reason:
            print(f"{numeric}: excused: {test} {reason}")
        else:
            times = f"{failures['tensorfast'][test]} times of {len(SEEDS)} when repeated"
            wrong.append(f"{test} {ours.outcome(test)}, {times}\n{ours.tests[test][1]}")
    for test, (outcome, reason) in stock.tests.items():
        if outcome not in ("passed", "xpassed"):
            print(f"{numeric}: {outcome} by TensorLy's: {test}: {reason.splitlines()[-1]}")
    if sum(ours.calls.values()) < CALLS:
        wrong.append(f"our functions were called {sum(ours.calls.values())} times only")
    if not ours.reused:
        wrong.append("no MTTKRP came from a partial result")
    return [f"{numeric}: {text}" for text in wrong]


def repeated(numeric: str, algebra: str, tests: list[str]) -> Counter[str]:
    """Count how often each of some tests does not pass, over several seeds."""
    failures: Counter[str] = Counter()
    for seed in SEEDS if tests else ():
        record = run(numeric, algebra, tests, seed)
        failures.update(test for test in tests if record.outcome(test) != "passed")
    return failures


def table(records: dict[tuple[str, str], Record]) -> str:
    """Return how many tests ended how, and how often each of our functions was called."""
    outcomes = [name for name in RANKS if name != "missing"]
    lines = [("", "", *outcomes, "seconds")]
    for (numeric, algebra), record in records.items():
        counts = [str(record.count(outcome)) for outcome in outcomes]
        lines.append((numeric, algebra, *counts, f"{record.seconds:.0f}"))
    text = aligned(lines)

    ours = {numeric: record for (numeric, name), record in records.items() if name != "core"}
    lines = [("calls", *ours)]
    for name in next(iter(ours.values())).calls:
        lines.append((name, *(str(record.calls[name]) for record in ours.values())))
    lines.append(("MTTKRPs reused", *(str(record.reused) for record in ours.values())))
    return f"{text}\n\n{aligned(lines)}"


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Return columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numeric", nargs="+", choices=NUMERICS, default=NUMERICS)
    given = parser.parse_args()
    records, wrong = {}, []
    for numeric in given.numeric:
        stock, ours = (run(numeric, algebra) for algebra in ALGEBRAS)
        records |= {(numeric, "core"): stock, (numeric, "tensorfast"): ours}
        wrong += compare(numeric, stock, ours)
    versions = [f"{name} {version(name)}" for name in ("tensorly", "numpy", "torch")]
    print(f"{', '.join(versions)}\n{table(records)}")
    print(*wrong, sep="\n\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
