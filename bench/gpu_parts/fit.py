"""Time to a given fit: a whole call, with as many sweeps as each library needs for it."""

from bench import gpu_problems, gpu_rivals, residual
from bench.gpu_parts.clock import Clock, products_in, summary
from bench.problems import Data

#: Where each library's result has the relative errors of its sweeps.
ERRORS = {
    "tensorfast": lambda r: r.info.rel_errors,
    "tensorfast-tf32": lambda r: r.info.rel_errors,
    "tensorly": lambda r: r[1],
    "tensorly-tf32": lambda r: r[1],
    "torch-tree": lambda r: r[1],
}

LAPS = 5


def run(context):
    """Find how many sweeps each library needs, then time a call with just these."""
    problem = gpu_problems.TINY_FIT if context.rehearse else gpu_problems.FIT
    x, start = problem.build()
    data = Data(x.to(context.device), [f.to(context.device) for f in start])
    clock = Clock(context.device)
    context.tell(problem=problem.name, target=gpu_problems.TARGET)
    for name, errors in ERRORS.items():
        what = f"{name} on {problem.name}"
        with context.guard(what, ours=name.startswith("tensorfast")):
            measure(name, errors, problem, data, clock, context)
    for told in context.record["entries"]:
        print(f"{told['implementation']}: {told['ms']:.4g} ms, {told['sweeps']} sweeps", end="")
        print(f", error {told['error']:.6f}")


def measure(name, errors, problem, data, clock, context):
    """Measure one library, and add its entry.

    Parameters
    ----------
    name : str
    errors : callable
        Of a result: the relative errors of its sweeps.
    problem : Problem
    data : Data
    clock : Clock
    context : Context
    """
    rival = gpu_rivals.CP[name]
    with products_in(rival.precision):
        (whole,) = rival.adapter(problem, data, problem.sweeps)
        whole.setup()
        seconds, result = clock.seconds(whole.call)
        reached = [float(error) <= gpu_problems.TARGET for error in errors(result)]
        if True not in reached:
            context.missing(f"{name} on {problem.name}", f"not reached in {len(reached)} sweeps")
            return
        sweeps = reached.index(True) + 1
        if not context.enough(f"{name} on {problem.name}", LAPS * seconds):
            return
        (run,) = rival.adapter(problem, data, sweeps)
        run.setup()
        laps = [clock.seconds(run.call) for _ in range(LAPS)]
    error = residual.relative_error(data.x, *run.answer(laps[-1][1]))
    found = summary([seconds for seconds, _ in laps])
    context.entry(problem=problem.name, implementation=name, sweeps=sweeps, error=error, **found)
