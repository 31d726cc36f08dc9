"""Tucker: whole calls of HOOI and ST-HOSVD beside TensorLy's ``tucker``."""

from functools import partial

from bench import gpu_problems, gpu_rivals, residual
from bench.gpu_parts.clock import Clock, products_in, summary
from bench.gpu_parts.sweep import peak_bytes

#: Laps at most, and the seconds for all of them together.
LAPS, SECONDS = 5, 3.0


def run(context):
    """Measure both problems; what can take minutes comes last."""
    problems = gpu_problems.TINY_TUCKER if context.rehearse else gpu_problems.TUCKER
    clock = Clock(context.device)
    for name in gpu_rivals.TUCKER:
        for problem in problems:
            step = partial(measure, name, problem, clock, context)
            ours = name.startswith("tensorfast")
            context.attempt(f"{name} on {problem.name}", 3, step, ours)
    for told in context.record["entries"]:
        row = f"{told['problem']} {told['implementation']}: {told['ms']:.4g} ms"
        print(f"{row}, error {told['error']:.7f}")


def measure(name, problem, clock, context):
    """Measure one library on one problem, and add its entry.

    Parameters
    ----------
    name : str
    problem : Problem
    clock : Clock
    context : Context
    """
    rival, data = gpu_rivals.TUCKER[name], problem.build(context.device)
    (run,) = rival.adapter(problem, data, problem.sweeps)
    run.setup()
    with products_in(rival.precision):
        first, result = clock.seconds(run.call)
        if run.sweeps_run and run.sweeps_run(result) != problem.sweeps:
            raise RuntimeError(f"it ran {run.sweeps_run(result)} sweeps, not {problem.sweeps}")
        error = residual.relative_error(data.x, *run.answer(result))
        del result
        room = min(SECONDS, context.left / 2)
        # The first call loads libraries; alone it counts only where there is no time for more.
        laps = [clock.seconds(run.call)[0] for _ in range(LAPS if LAPS * first < room else 1)]
        peak, _ = peak_bytes(context.device, run.call) if first < room else (None, None)
    context.entry(
        problem=problem.name,
        implementation=name,
        variant=run.variant,
        sweeps=problem.sweeps,
        first_ms=1e3 * first,
        error=error,
        peak_bytes=peak,
        tensor_bytes=problem.nbytes,
        **summary(laps),
    )
