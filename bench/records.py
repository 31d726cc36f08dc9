"""Read what pytest-benchmark wrote and pool the laps of each implementation."""

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.gate import Timing

OURS = "tensorfast"
PARTS = ("cp", "tucker", "memory", "embeddings", "tensorly")
DISTURBED = 10.0
TELLING = 1.0


@dataclass
class Row:
    """What is known of one implementation on one problem, from all its laps.

    Parameters
    ----------
    seconds : list of float
        One a lap: the median of its rounds, a round being all sweeps. Laps have unequal numbers of
        rounds, and one that fell on a slow minute is to count once.
    errors : list of float
        Exact relative errors, one a lap.
    others, available : float
        Processor seconds that other processes took and that there were, over all laps.
    info : dict
        The ``extra_info`` of the last lap.
    """

    seconds: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    others: float = 0.0
    available: float = 0.0
    info: dict = field(default_factory=dict)

    @property
    def ms(self):
        """Milliseconds a sweep (of the whole for ST-HOSVD), or a step: the median of the laps."""
        return 1e3 * statistics.median(self.seconds) / self.info["sweeps"]

    @property
    def spread(self):
        """Interquartile range of the laps over their median; 0 for a single lap."""
        if len(self.seconds) < 2:
            return 0.0
        low, middle, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / middle

    @property
    def error(self):
        """The largest of the laps' errors; a NaN among them stays one."""
        return max(self.errors, key=lambda e: (e != e, e))

    @property
    def others_percent(self):
        """Share of the cores' time that other processes took; 0 where too short to tell."""
        return 100 * self.others / self.available if self.available > TELLING else 0.0

    @property
    def disturbed(self):
        """Whether other processes took over `DISTURBED` percent of the cores."""
        return self.others_percent > DISTURBED

    @property
    def timing(self):
        """What the gate compares."""
        return Timing(self.ms * 1e-3, self.error, self.spread)


class Part(NamedTuple):
    """How a part came about: the machine's record, the commit, the date, whether it was quick."""

    record: dict
    commit: str | None
    dirty: bool
    date: str
    quick: bool

    @property
    def source(self):
        """The sources measured, in words."""
        changes = " with uncommitted changes" if self.dirty else ""
        return f"commit {self.commit[:12]}{changes}" if self.commit else "no commit"

    @property
    def flaw(self):
        """Why this is no measurement of a commit, or an empty string."""
        flaws = []
        if self.quick:
            flaws.append("a quick run")
        if self.dirty or not self.commit:
            flaws.append(self.source)
        return ", ".join(flaws)


@dataclass
class Machine:
    """The results of one machine.

    Parameters
    ----------
    folder : Path
    parts : dict of str to Part
        Those that were run.
    rows : dict
        ``rows[problem][implementation]``, a `Row`.
    memory : dict
        ``memory[problem][implementation]``, the ``extra_info`` of the probe.
    not_run : dict
        ``not_run[part]``: combinations without a result and their reasons.
    """

    folder: Path
    parts: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)
    memory: dict = field(default_factory=dict)
    not_run: dict = field(default_factory=dict)

    @property
    def record(self):
        """The machine record of the first part that was run."""
        return next(iter(self.parts.values())).record

    @property
    def disturbed(self):
        """What was measured while other processes took much of the cores, and how much."""
        return [
            f"{implementation} on {problem} ({row.others_percent:.0f} %)"
            for problem, rows in self.rows.items()
            for implementation, row in rows.items()
            if row.disturbed
        ]

    def row(self, problem, implementation):
        """Return the `Row`, or None where there is no measurement."""
        return self.rows.get(problem, {}).get(implementation)

    def timing(self, problem, implementation):
        """Return the `Timing`, or None where there is no measurement."""
        row = self.row(problem, implementation)
        return row.timing if row else None

    def fastest_tensorly(self, problem, default=False):
        """Return the name of the fastest TensorLy row of `problem`, or None.

        With `default`, of those that run TensorLy as it comes: not with its randomised SVD.
        """
        return self._fastest(problem, "tensorly", "-randomized" if default else None)

    def fastest_ours(self, problem):
        """Return the name of tensorfast's row of `problem`, the faster if it has two, or None."""
        return self._fastest(problem, OURS)

    def _fastest(self, problem, family, but=None):
        rows = self.rows.get(problem, {})
        names = [name for name in rows if name.startswith(family)]
        names = [name for name in names if not (but and name.endswith(but))]
        return min(names, key=lambda name: rows[name].ms, default=None)


def load(results):
    """Read ``results/<machine>/<part>.json`` for every machine whose CPU was measured.

    Parameters
    ----------
    results : Path

    Returns
    -------
    list of Machine
        By name; empty when there is no such folder.
    """
    machines = []
    for folder in sorted(path for path in Path(results).glob("*") if path.is_dir()):
        # Those of GPUs are read by `bench.gpu_records`.
        if folder.name.startswith("nvidia-"):
            continue
        machine = Machine(folder)
        for part in PARTS:
            path = folder / f"{part}.json"
            if path.exists():
                _add(machine, part, json.loads(path.read_text()))
        if machine.parts:
            machines.append(machine)
    return machines


def _add(machine, part, recorded):
    commit = recorded["commit_info"]
    machine.parts[part] = Part(
        recorded["machine_info"],
        commit["id"],
        commit["dirty"],
        recorded["datetime"][:10],
        recorded.get("quick", False),
    )
    machine.not_run[part] = recorded.get("not_run", [])
    for benchmark in recorded["benchmarks"]:
        info = benchmark["extra_info"]
        if not info:
            continue
        problem, implementation = info["problem"], info["implementation"]
        if info["kind"] == "memory":
            machine.memory.setdefault(problem, {})[implementation] = info
            continue
        row = machine.rows.setdefault(problem, {}).setdefault(implementation, Row())
        row.seconds.append(statistics.median(benchmark["stats"]["data"]))
        row.errors.append(info["error"])
        row.others += info["others_s"]
        row.available += info["available_s"]
        row.info = info
