"""Measure one implementation on one problem: the fastest variant, the times, the exact error."""

import gc
import statistics
import time

import pytest

from bench import cost, machine, problems, residual
from bench.quiet import Watch
from bench.records import OURS
from bench.rivals import Unsupported


class Session:
    """What one pytest session remembers between its benchmarks.

    Parameters
    ----------
    quick : bool
        One lap, fewer rounds and sweeps: a check of the harness, not a measurement.

    Attributes
    ----------
    laps : int
        Every problem visits its implementations this many times in turn, so that a slow minute of
        the machine falls on all of them.
    lap_seconds : float
        Rounds of one implementation in one lap stop at about this time.
    slow_seconds : float
        An implementation whose single call takes longer is measured in the first lap only.
    not_run : list of dict
        Every combination without a time, with its reason; goes into the record.
    """

    max_rounds = 10
    slow_seconds = 8.0

    def __init__(self, quick=False):
        self.quick = quick
        self.laps = 1 if quick else 5
        self.lap_seconds = 0.2 if quick else 2.0
        self.not_run = []
        self._built = {}
        self._chosen = {}
        self._first_call = {}

    def sweeps(self, problem):
        """Return the sweeps to run: those of the problem, fewer when `quick`."""
        return min(problem.sweeps, 3) if self.quick else problem.sweeps

    def data(self, problem):
        """Return the data of `problem`; one problem is kept at a time."""
        if problem.name not in self._built:
            self._built = {problem.name: problem.build()}
        return self._built[problem.name]

    def refuse(self, problem, implementation, reason):
        """Record that there is no time for this combination, and why."""
        entry = {"problem": problem.name, "implementation": implementation, "reason": reason}
        if entry not in self.not_run:
            self.not_run.append(entry)

    def prepare(self, problem, implementation, adapter, sweeps):
        """Return the fastest `Run` of an adapter; a short trial decides, once a session."""
        key = (problem.name, implementation)
        data = self.data(problem)
        if key not in self._chosen:
            trials = adapter(problem, data, max(1, sweeps // 10))
            timed = {run.variant: 0.0 for run in trials}
            if len(trials) > 1:
                timed = {run.variant: min(_seconds(run)[0] for _ in range(3)) for run in trials}
            self._chosen[key] = min(timed, key=timed.get)
        runs = adapter(problem, data, sweeps)
        return next(run for run in runs if run.variant == self._chosen[key])

    def rounds(self, key, run, sweeps):
        """Warm up where it matters and return how often to time `run`; 0 means: not this lap.

        Raises
        ------
        RuntimeError
            When the implementation says that it ran another number of sweeps: its time a sweep
            and its error would not be comparable.
        """
        again = key in self._first_call
        first = self._first_call.get(key)
        if again and first > self.slow_seconds:
            return 0
        if not again or first < 1.0:
            first, result = _seconds(run)
            ran = run.sweeps_run(result) if run.sweeps_run else sweeps
            if ran != sweeps:
                raise RuntimeError(f"it ran {ran} sweeps where {sweeps} were asked for")
            self._first_call[key] = first
        if first > self.slow_seconds:
            return 1 if self.quick else 2
        return max(1, min(self.max_rounds, int(self.lap_seconds / first)))


def _of_the_model(data, answer):
    return residual.relative_error(data.x, *answer)


def _seconds(run):
    run.setup()
    begin = time.perf_counter()
    result = run.call()
    return time.perf_counter() - begin, result


def measure(
    benchmark, session, adapters, problem_name, implementation, lap, error_of=_of_the_model
):
    """Time one implementation on one problem and put what is known of it into ``extra_info``.

    Parameters
    ----------
    benchmark : pytest_benchmark.fixture.BenchmarkFixture
    session : Session
    adapters : dict of str to callable
    problem_name, implementation : str
    lap : int
    error_of : callable
        From a problem's data and a run's answer to the error; default: that of a model.

    Raises
    ------
    Exception
        Whatever tensorfast raises. A rival's failure is recorded and skipped, with its reason.
    """
    problem = problems.by_name(problem_name)
    sweeps = session.sweeps(problem)
    benchmark.group = problem.name
    try:
        run = session.prepare(problem, implementation, adapters[implementation], sweeps)
        rounds = session.rounds((problem.name, implementation), run, sweeps)
    except Unsupported as refusal:
        session.refuse(problem, implementation, str(refusal))
        pytest.skip(str(refusal))
    except Exception as failure:
        reason = f"failed: {type(failure).__name__}: {failure}"
        session.refuse(problem, implementation, reason)
        if implementation.startswith(OURS):
            raise
        pytest.skip(reason)
    if rounds == 0:
        pytest.skip(f"a call takes over {session.slow_seconds} s: measured in the first lap only")
    gc.collect()
    with Watch() as watch:
        result = benchmark.pedantic(run.call, setup=run.setup, rounds=rounds, iterations=1)
    error = error_of(session.data(problem), run.answer(result))
    benchmark.extra_info.update(run.notes(result))
    del result
    times = benchmark.stats.stats.data
    benchmark.extra_info.update(others_s=watch.others, available_s=watch.available)
    benchmark.extra_info.update(_describe(problem, implementation, lap, run, sweeps, error, times))


def _describe(problem, implementation, lap, run, sweeps, error, times):
    per_sweep = statistics.median(times) / sweeps
    info = {
        "problem": problem.name,
        "kind": problem.kind,
        "implementation": implementation,
        "variant": run.variant,
        "lap": lap,
        "sweeps": sweeps,
        "sweeps_known": "reported" if run.sweeps_run else "requested",
        "ms_per_sweep": per_sweep * 1e3,
        "error": error,
    }
    if problem.kind == "cp":
        roofs = machine.roofs()
        gemm = roofs["dgemm_gflops" if problem.itemsize == 8 else "sgemm_gflops"]
        model = cost.cp_sweep(problem)
        roof = cost.roof_seconds(model, gemm, roofs["bandwidth_gbs"])
        info |= {
            "flops_per_sweep": model.flops,
            "bytes_per_sweep": model.bytes,
            "gflops": model.flops / per_sweep * 1e-9,
            "roof_ms_per_sweep": roof * 1e3,
            "roof_percent": 100 * roof / per_sweep,
        }
    return info
