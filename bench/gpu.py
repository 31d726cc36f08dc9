"""Test and measure everything on the NVIDIA GPU at hand, in under nine minutes: ``make gpu``.

``python bench/gpu.py [--only a,b] [--budget 520] [--out DIR] [--wheels DIR]``; ``--dry-run`` lists
the parts, anywhere. The Python that runs it needs numpy, scipy, torch, triton and pytest; TensorLy
may come as a wheel from a folder. Nothing is downloaded.

Each part is a process of its own, whose record, ``DIR/<part>.json``, is on disk as soon as there is
something in it. A part that fails, crashes or hangs is reported, and the rest goes on. Afterwards
``python bench/report.py`` writes the tables.
"""

import argparse
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine  # noqa: E402 (the root comes first)
from bench.gpu_parts import PARTS, RESERVE, START, named  # noqa: E402
from bench.gpu_parts.store import last_lines, read, write  # noqa: E402
from bench.gpu_parts.surroundings import NEEDED, folder_name, probe, unpack  # noqa: E402

#: Seconds for all parts: a minute short of what a machine is lent for.
BUDGET = 520.0

#: Seconds for a process to write and end before it is killed, and the least that a part is begun
#: for.
GRACE, LEAST = 3.0, 12.0


def plan(parts, budget):
    """Return the list of parts with what they are expected to take, and the sum.

    Parameters
    ----------
    parts : list of Part
    budget : float

    Returns
    -------
    str
    """
    lines = [f"{p.name:<10} {p.seconds:4.0f} s  {p.what}" for p in parts]
    total = sum(p.seconds for p in parts)
    return "\n".join([*lines, f"{'in all':<10} {total:4.0f} s  of a budget of {budget:.0f} s"])


def run_part(part, path, allowed, environment, rehearse=False):
    """Run one part and complete its record.

    Parameters
    ----------
    part : Part
    path : Path
        Of its record, which has been begun.
    allowed : float
        Seconds after which it is ended.
    environment : dict
    rehearse : bool

    Returns
    -------
    str
        ``"done"``, or what went wrong.
    """
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        own = max(1.0, allowed - START - RESERVE)
        process = subprocess.Popen(
            part.command(path, own, rehearse),
            cwd=ROOT,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            # A group of its own, so that what it starts ends with it.
            start_new_session=True,
        )
        try:
            code = process.wait(allowed)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        said.seek(0)
        tail = said.read()
    status = _status(code, allowed)
    record = read(path)
    record |= {"status": status, "seconds": round(time.monotonic() - begin, 1)}
    if status != "done":
        record["last_lines"] = last_lines(tail)
    write(path, record)
    print(last_lines(tail, 30), flush=True)
    return status


def _status(code, allowed):
    if code is None:
        return f"ended after {allowed:.0f} s"
    if code < 0:
        return f"crashed: {signal.Signals(-code).name}"
    return "done" if code == 0 else "failed"


def _end(process):
    """End a process and its group: kindly, so that it can end what is in other groups, then not."""
    for way, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, way)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def run_all(parts, out, budget, environment, about, rehearse=False):
    """Run parts one after the other, each with a share of the time.

    Parameters
    ----------
    parts : list of Part
    out : Path
    budget : float
        Seconds for all.
    environment : dict
    about : dict
        What every record begins with.
    rehearse : bool

    Returns
    -------
    dict of str to str
        How each part ended.
    """
    stop, ended = time.monotonic() + budget, {}
    for part in parts:
        left = stop - time.monotonic()
        path = out / f"{part.name}.json"
        begun = {**about, "part": part.name, "predicted": part.seconds, "status": "under way"}
        begun["date"] = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        if left < LEAST:
            ended[part.name] = "not begun: no time left"
            write(path, {**begun, "status": ended[part.name]})
            continue
        allowed = part.allowed(left)
        print(f"\n{part.name}: about {part.seconds:.0f} s, at most {allowed:.0f}", flush=True)
        write(path, begun)
        ended[part.name] = run_part(part, path, allowed, environment, rehearse)
    return ended


def failed(parts, ended):
    """Return the parts that are to make the run fail; one that had no time left for it is none.

    Parameters
    ----------
    parts : list of Part
    ended : dict of str to str

    Returns
    -------
    list of str
    """
    spare = {p.name for p in parts if p.rest}
    return [
        name
        for name, status in ended.items()
        if status != "done" and not (name in spare and status.startswith("not begun"))
    ]


def main(arguments=None):
    """Parse the command line and run the parts; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="parts, separated by commas")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all of them")
    parser.add_argument("--out", type=Path, help="default: bench/results/<gpu>")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels, TensorLy's for one")
    parser.add_argument("--commit", help="what is measured, where that is no git checkout")
    parser.add_argument("--dry-run", action="store_true", help="list the parts, run nothing")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU; measures nothing")
    options = parser.parse_args(arguments)
    try:
        parts = named(options.only.split(",")) if options.only else list(PARTS)
    except ValueError as error:
        parser.error(f"--only: {error}")
    if options.dry_run:
        print(plan(parts, options.budget))
        return 0
    if options.rehearse and options.out is None:
        parser.error("--rehearse: needs --out, as it measures nothing worth to be kept")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as unpacked:
        if options.wheels:
            unpack(options.wheels, Path(unpacked))
        paths = [str(ROOT), unpacked, os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        gpu, absent = probe(environment)
        lacking = [name for name in NEEDED if name in absent]
        if lacking:
            return _refuse(f"{Path(sys.executable).name} lacks {', '.join(lacking)}")
        if gpu is None and not options.rehearse:
            return _refuse("torch sees no CUDA GPU here (--dry-run lists what would run)")
        if "tensorly" in absent:
            print("gpu: TensorLy is absent, and will be missing beside us; --wheels brings it")
        out = options.out or ROOT / "bench" / "results" / folder_name(gpu)
        commit = machine.commit()
        if options.commit:
            commit = {"id": options.commit, "dirty": False}
        about = {"commit": commit, "rehearsal": options.rehearse, "absent": absent}
        left = options.budget - (time.monotonic() - begin)
        ended = run_all(parts, out.resolve(), left, environment, about, options.rehearse)
    wrong = failed(parts, ended)
    print(f"\n{time.monotonic() - begin:.0f} s in all")
    for name, status in ended.items():
        print(f"{name:<10} {status}")
    return 1 if wrong else 0


def _refuse(reason):
    print(f"gpu: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
