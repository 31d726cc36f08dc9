"""Read what ``make gpu`` left behind, and hold it to the targets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.gate import Comparison, Timing, compare, rounding_tolerance
from bench.gpu_parts import PARTS
from bench.gpu_parts.store import read
from bench.gpu_problems import BY_NAME
from bench.records import OURS

#: How the folders of results begin.
PREFIX = "nvidia-"

#: Times TensorLy, by problem, and how near a sweep is to come to the ideal of one pass.
FASTER = {
    "512^3-R32": 8.0,
    "512^3-R64": 8.0,
    "128^4-R32": 12.0,
    "64^3-R16": 20.0,
    "HOOI-256^3-32^3": 15.0,
    "STHOSVD-512^3-64^3": 15.0,
}
NEAR = {"512^3-R32": 1.6, "512^3-R64": 1.6}

RIVAL = "tensorly"


class Target(NamedTuple):
    """What is aimed at, what was found, and whether it was met; None where it was not measured."""

    what: str
    found: str
    met: bool | None


@dataclass
class GpuMachine:
    """The records of one GPU.

    Parameters
    ----------
    folder : Path
    parts : dict of str to dict
        Those that were begun, in their order.
    """

    folder: Path
    parts: dict = field(default_factory=dict)

    @property
    def rehearsal(self):
        """Whether this is no measurement."""
        return any(record.get("rehearsal") for record in self.parts.values())

    def entries(self, part):
        """Return the entries of a part, none where it was not run."""
        return self.parts.get(part, {}).get("entries", [])

    def rows(self, part):
        """Return entries by problem and implementation."""
        found = {}
        for told in self.entries(part):
            found.setdefault(told["problem"], {})[told["implementation"]] = told
        return found

    def row(self, problem, implementation):
        """Return an entry of CP or Tucker, None where there is none."""
        for part in ("sweep", "tucker"):
            told = self.rows(part).get(problem, {}).get(implementation)
            if told:
                return told
        return None

    def never_ran(self):
        """Return the parts of which there is no result at all."""
        return [part.name for part in PARTS if not self.entries(part.name)]


def load(results):
    """Read the records of every GPU.

    Parameters
    ----------
    results : Path

    Returns
    -------
    list of GpuMachine
    """
    found = []
    for folder in sorted(Path(results).glob(f"{PREFIX}*")):
        there = [part.name for part in PARTS if (folder / f"{part.name}.json").exists()]
        if there:
            parts = {name: read(folder / f"{name}.json") for name in there}
            found.append(GpuMachine(folder, parts))
    return found


def compared(rows, problem, rival):
    """Compare tensorfast with a rival, by the gate: nothing is faster with a larger error.

    Parameters
    ----------
    rows : dict
        The entries of one problem, by implementation.
    problem : str
    rival : str

    Returns
    -------
    Comparison
    """
    about = BY_NAME.get(problem)
    if about is None:
        return Comparison(None, "problem not known")
    ours, theirs = (_timing(rows.get(name)) for name in (OURS, rival))
    return compare(ours, theirs, rounding_tolerance(about.shape, about.itemsize))


def _timing(told):
    if told is None or not told["ms"] > 0:
        return None
    return Timing(told["ms"] * 1e-3, told["error"], told["spread"])


def targets(machine):
    """Hold a machine to the targets, each met or not.

    Parameters
    ----------
    machine : GpuMachine

    Returns
    -------
    list of Target
    """
    every = machine.rows("sweep") | machine.rows("tucker")
    found = []
    for problem, times in FASTER.items():
        what = f"{problem}: at least {times:g} times TensorLy, at no larger error"
        speed = compared(every.get(problem, {}), problem, RIVAL)
        unknown = speed.text == "not run"
        met = None if unknown else speed.speedup is not None and speed.speedup >= times
        found.append(Target(what, speed.text, met))
    for problem, times in NEAR.items():
        told = every.get(problem, {}).get(OURS)
        what = f"{problem}: within {times:g} of the ideal of one pass"
        ratio = told["ms"] / told["ideal_ms"] if told else None
        text = "not run" if ratio is None else f"{ratio:.2f}"
        found.append(Target(what, text, None if ratio is None else ratio <= times))
    sync = machine.entries("sync")
    waits = [told for told in sync if (told["call"], told["mode"]) == ("cp_als", "error")]
    what = "CP-ALS: no wait for the GPU within a chunk of sweeps"
    text = (waits[0]["first"] or "none") if waits else "not run"
    found.append(Target(what, text, waits[0]["passed"] if waits else None))
    return found
