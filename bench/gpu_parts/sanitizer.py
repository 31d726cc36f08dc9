"""compute-sanitizer over small calls of every kernel: bad accesses, then races in shared memory."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.gpu_parts import small_calls
from bench.gpu_parts.kernels import compile_ahead
from bench.gpu_parts.store import last_lines
from bench.gpu_parts.tests import end

ROOT = Path(__file__).resolve().parents[2]

TOOLS = ("memcheck", "racecheck")

#: The line that sums up what a tool found.
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")

#: The exit status that tells of findings.
FOUND = 9


def run(context):
    """Run the calls by themselves, then under each tool."""
    calls = [sys.executable, "-m", "bench.gpu_parts.small_calls", context.device.type]
    tool = located()
    context.tell(sanitizer=bool(tool))
    if context.device.type == "cuda":
        with context.guard("compiling ahead", ours=False):
            compile_ahead(small_calls.CALLS, context)
    # Alone they show whether it is the sanitizer that cannot run here.
    alone = watched(calls, context.left / 2)
    record(context, "none", alone)
    for check in TOOLS:
        if tool is None:
            context.missing(check, "compute-sanitizer is not installed")
        elif context.enough(check, 5):
            options = ["--tool", check, "--error-exitcode", str(FOUND), "--report-api-errors", "no"]
            share = context.left / (2 if check == TOOLS[0] else 1)
            record(context, check, watched([tool, *options, "--print-limit", "20", *calls], share))


def located():
    """Return where compute-sanitizer is, None where there is none.

    Returns
    -------
    str or None
    """
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=f"{home}/bin"
    )


def watched(command, seconds):
    """Run a command for so long at most.

    Parameters
    ----------
    command : list of str
    seconds : float

    Returns
    -------
    code : int or None
        None where the time was over.
    said : str
    """
    # Every tensor an allocation of its own, so that what lies behind it is out of bounds.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=max(1.0, seconds))
        code = process.returncode
    except subprocess.TimeoutExpired:
        end(process)
        said, code = process.communicate()[0], None
    finally:
        end(process)
    return code, said


def record(context, tool, outcome):
    """Add the entry of a tool, and a failure where it found something.

    Parameters
    ----------
    context : Context
    tool : str
        ``"none"`` for the calls by themselves.
    outcome : tuple
        As `watched` gives it.
    """
    code, said = outcome
    summed = SUMMARY.search(said)
    found = int(summed[1]) if summed else None
    made = said.count(": error ")
    ran = code == 0 or code == FOUND or bool(found)
    # A tool that refuses this device has found nothing, good or bad.
    told = "passed" if code == 0 else "found errors" if ran else "did not get through"
    if code is None:
        told = "the time was over"
    context.entry(tool=tool, exit_status=code, outcome=told, errors=found, calls=made)
    if code != 0:
        lines = "\n".join(said.splitlines()[:20]) if found else last_lines(said)
        lines = last_lines(lines, 20)
        if tool == "none" or ran:
            context.record["failures"].append({"what": tool, "error": lines})
        else:
            context.missing(tool, f"{told}: {lines.splitlines()[-1] if lines else ''}")
        context.write()
    print(f"{tool}: {told}, {made} calls" + (f", {found} errors" if found else ""))
