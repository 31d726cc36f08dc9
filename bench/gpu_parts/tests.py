"""The tests that need a GPU, by pytest in a process of its own; every outcome counts as it comes.

Only files that mention the mark are collected: the others may import what is not there. Most of the
time goes into compiling kernels, so that with pytest-xdist several processes share the GPU.
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.threads import cores

ROOT = Path(__file__).resolve().parents[2]

#: Processes that share the GPU; each holds half a gigabyte of it.
WORKERS = 12

#: Seconds from one look to the next whether they have ended.
POLL = 0.1

#: What runs first: the kernels through the operations, then the library.
FIRST = ("tests/kernels/test_gpu.py", "tests/test_gpu.py")

#: What is told of a run.
COUNTS = ("passed", "failed", "skipped", "never_ran")

#: What the tests of a rehearsal are: few, and skipped where there is no GPU.
REHEARSED = ("tests/test_gpu.py",)


def run(context):
    """Run the tests, and tell what passed, failed and never ran."""
    files = REHEARSED if context.rehearse else marked(ROOT)
    workers = 0 if context.rehearse or not _there("xdist") else min(WORKERS, cores())
    outcomes = context.path.with_suffix(".jsonl")
    outcomes.unlink(missing_ok=True)
    code = _pytest(files, workers, outcomes, context)
    found = counted(outcomes)
    outcomes.unlink(missing_ok=True)
    absent = [name for name in ("hypothesis", "xdist", "cupy") if not _there(name)]
    context.tell(workers=workers, absent=absent, exit_status=code, **found)
    for failed in found["failed_tests"]:
        context.record["failures"].append({"what": failed["test"], "error": failed["lines"]})
    if code is None:
        unfinished = f"{found['never_ran']} tests never ran: the time was over"
        context.record["failures"].append({"what": "time", "error": unfinished})
    # 0: all passed, 1: some failed, 5: there are none; else pytest itself did not get through.
    elif code not in (0, 1, 5):
        context.record["failures"].append({"what": "pytest", "error": f"exit status {code}"})
    context.entry(**{key: found[key] for key in COUNTS})
    print(
        f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped, ", end=""
    )
    print(f"{found['never_ran']} never ran; absent: {', '.join(absent) or 'nothing'}")
    for failed in found["failed_tests"][:20]:
        print(f"  {failed['test']}: {(failed['lines'].splitlines() or [''])[-1]}")


def marked(root):
    """Return the test files that mention the mark ``gpu``, the most telling first.

    Parameters
    ----------
    root : Path

    Returns
    -------
    list of str
    """
    paths = sorted(root.glob("tests/**/test_*.py"))
    names = [p.relative_to(root).as_posix() for p in paths if "mark.gpu" in p.read_text("utf-8")]
    return sorted(names, key=lambda name: (*(name != first for first in FIRST), name))


def counted(path):
    """Return counts, failures and the slowest tests from a file of outcomes.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
    """
    collected, tests = 0, {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        told = json.loads(line)
        collected = told.get("collected", collected)
        # The first failure stands: what follows it is its consequence.
        if "test" in told and tests.get(told["test"], {}).get("outcome") != "failed":
            tests[told["test"]] = told
    by = {
        outcome: [told for told in tests.values() if told["outcome"] == outcome]
        for outcome in ("passed", "failed", "skipped")
    }
    slowest = sorted(tests.values(), key=lambda told: -told.get("seconds", 0))[:10]
    counts = {outcome: len(found) for outcome, found in by.items()}
    return {
        **counts,
        "collected": collected,
        "never_ran": max(0, collected - len(tests)),
        "failed_tests": [{key: t[key] for key in ("test", "lines")} for t in by["failed"]],
        "slowest": [{"test": t["test"], "seconds": t.get("seconds")} for t in slowest],
    }


def _there(module):
    return importlib.util.find_spec(module) is not None


def _pytest(files, workers, outcomes, context):
    """Return pytest's exit status; None where the time was over."""
    command = [sys.executable, "-m", "pytest", *files, "-m", "gpu", "-q", "--no-header"]
    command += ["-p", "bench.gpu_parts.outcomes", "-p", "no:cacheprovider", "--tb=short"]
    # A file that imports what is absent fails, and the others run.
    command += ["--continue-on-collection-errors"]
    # Without the doctests, which import everything.
    command += ["-o", "addopts=--import-mode=importlib --strict-markers"]
    command += ["-n", str(workers), "--dist", "worksteal"] if workers else []
    # Not those by which a run of tests that this one is part of knows its processes.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["OUTCOMES"] = str(outcomes)
    # A group of its own, so that its workers end with it.
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        while context.left > 0 and process.poll() is None:
            time.sleep(POLL)
        return process.returncode
    finally:
        end(process)


def end(process):
    """End a process and whatever it started, if it still runs.

    Parameters
    ----------
    process : subprocess.Popen
        The leader of a group.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
