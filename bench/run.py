"""Run the benchmark: ``python bench/run.py [--only cp,tucker] [--out DIR] [--quick]``.

Each part is a pytest session of its own and leaves ``DIR/<machine>/<part>.json`` as soon as it has
finished, unless it failed; `bench.report` then writes the tables and the plots. Run it on a machine
that does nothing else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine, report, threads  # noqa: E402 (the root comes first)
from bench.records import PARTS  # noqa: E402


def run_part(part, folder, quick):
    """Run one part in a fresh process.

    Parameters
    ----------
    part : str
    folder : Path
        Where ``<part>.json`` goes; an earlier one is replaced only by that of a part in which
        tensorfast answered everywhere.
    quick : bool

    Returns
    -------
    bool
        Whether tensorfast answered everywhere.
    """
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / f"{part}.json"
        command = [sys.executable, "-m", "pytest", str(ROOT / "bench" / f"bench_{part}.py")]
        command += ["-q", "-rfs", "-p", "no:cacheprovider", "--import-mode=importlib"]
        # The tests' own options (doctests, warnings as errors) are not for measurements.
        command += ["-o", "addopts=", "-o", "filterwarnings=default", f"--rootdir={ROOT}"]
        command += [f"--benchmark-json={fresh}", f"--benchmark-storage=file://{scratch}/storage"]
        command += ["--benchmark-columns=min,median,iqr,rounds", "--benchmark-sort=name"]
        command += ["--quick"] if quick else []
        done = subprocess.run(command, cwd=ROOT, env=os.environ, check=False)
        if done.returncode == 0:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{part}.json").write_bytes(fresh.read_bytes())
        else:
            print(f"{part}: failed; nothing was recorded, and an earlier record stands")
    return done.returncode == 0


def main():
    """Parse the command line, run the parts, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--out", type=Path, help="default: bench/results, or bench/quick")
    parser.add_argument("--quick", action="store_true", help="check the harness, measure nothing")
    parser.add_argument("--threads", type=int, help="for every library; default: all cores")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"--only: unknown parts {unknown}; the parts are {', '.join(PARTS)}")
    out = arguments.out or ROOT / "bench" / ("quick" if arguments.quick else "results")
    threads.pin(arguments.threads)
    passed = []
    for part in parts:
        passed.append(run_part(part, out / machine.name(), arguments.quick))
        if out.exists():
            report.write(out)
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
