"""CP-ALS: what a sweep takes, by the difference of many sweeps and few; the same start for all."""

import gc
import statistics
from functools import partial

import torch

from bench import gpu_problems, gpu_rivals, residual
from bench.cost import cp_sweep, roof_seconds
from bench.gpu_parts import machine
from bench.gpu_parts.clock import Clock, products_in, summary

#: How many times fewer the few sweeps are; laps, in turn; the seconds of one that is not repeated.
FEW, LAPS, SLOW = 6, 5, 2.0

#: Sweeps after which ours has recorded all its graphs: twice the longest cycle of these problems.
#: The few are no fewer, or the recording would count as time of the sweeps that are more.
RECORDED = 6


def run(context):
    """Measure problem by problem, each library in turn, lap by lap."""
    roofs, clock = machine.known_roofs(context), Clock(context.device)
    context.tell(roofs=roofs)
    for problem in gpu_problems.TINY_CP if context.rehearse else gpu_problems.CP:
        # Drawing a gigabyte and measuring seven libraries on it took no time on record yet.
        step = partial(measure, problem, clock, roofs, context)
        context.attempt(problem.name, 2 + problem.nbytes / 1e9, step)
    for told in context.record["entries"]:
        row = f"{told['problem']} {told['implementation']}: {told['ms']:.3g} ms"
        print(f"{row}, {told['ideal_percent']:.0f} % of the ideal, error {told['error']:.6f}")


def measure(problem, clock, roofs, context):
    """Measure all libraries on one problem, and add their entries.

    Parameters
    ----------
    problem : Problem
    clock : Clock
    roofs : dict
    context : Context
    """
    data = problem.build(context.device)
    many, few = problem.sweeps, few_of(problem.sweeps)
    laps, firsts = {}, {}
    for name, rival in gpu_rivals.CP.items():
        with context.guard(f"{name} on {problem.name}", ours=name.startswith("tensorfast")):
            firsts[name] = _first(rival, problem, data, few, clock)
            laps[name] = []
    for lap in range(1 if context.rehearse else LAPS):
        for name in list(laps):
            expected = firsts[name] * many / few
            if lap and (expected > SLOW or context.left < 3 * expected):
                continue
            if not context.enough(f"{name} on {problem.name}", 3 * expected):
                continue
            with context.guard(f"{name} on {problem.name}", ours=name.startswith("tensorfast")):
                times = [_seconds(name, problem, data, n, clock)[0] for n in (few, many)]
                laps[name].append(times)
    for name in laps:
        with context.guard(f"{name} on {problem.name}", ours=name.startswith("tensorfast")):
            if laps[name]:
                _entry(name, problem, data, laps[name], (few, many), clock, roofs, context)


def few_of(many):
    """Return the number of sweeps whose time is taken from that of so many.

    Parameters
    ----------
    many : int

    Returns
    -------
    int
    """
    return max(1, min(RECORDED, many // 2), many // FEW)


def _prepared(name, problem, data, sweeps):
    (run,) = gpu_rivals.CP[name].adapter(problem, data, sweeps)
    run.setup()
    return run


def _seconds(name, problem, data, sweeps, clock):
    run = _prepared(name, problem, data, sweeps)
    with products_in(gpu_rivals.CP[name].precision):
        seconds, result = clock.seconds(run.call)
    return seconds, run, result


def _first(rival, problem, data, sweeps, clock):
    """Warm up, and return the seconds of a second call.

    Raises
    ------
    RuntimeError
        Where another number of sweeps was run than asked for.
    """
    (run,) = rival.adapter(problem, data, sweeps)
    run.setup()
    with products_in(rival.precision):
        result = run.call()
        ran = run.sweeps_run(result)
        if ran != sweeps:
            raise RuntimeError(f"it ran {ran} sweeps where {sweeps} were asked for")
        return clock.seconds(run.call)[0]


def _entry(name, problem, data, laps, sweeps, clock, roofs, context):
    few, many = sweeps
    slopes = [(b - a) / (many - few) for a, b in laps]
    # What a call takes besides its sweeps: checks, the norm, the way out.
    besides = statistics.median(a - few * slope for (a, _), slope in zip(laps, slopes, strict=True))
    peak, (_, run, result) = peak_bytes(
        context.device, partial(_seconds, name, problem, data, many, clock)
    )
    error = residual.relative_error(data.x, *run.answer(result))
    del run, result
    gc.collect()
    cost, precision = cp_sweep(problem), "tf32" if name.endswith("tf32") else "ieee"
    rate = machine.best_rate(roofs, precision) * 1e-9
    ideal = roof_seconds(cost, rate, roofs["copy_gbs"])
    found = summary(slopes)
    seconds = found["ms"] * 1e-3
    context.entry(
        problem=problem.name,
        implementation=name,
        precision=precision,
        sweeps=many,
        few=few,
        error=error,
        besides_ms=1e3 * besides,
        peak_bytes=peak,
        tensor_bytes=problem.nbytes,
        ideal_ms=1e3 * ideal,
        ideal_percent=100 * ideal / seconds if seconds > 0 else float("nan"),
        **found,
    )


def peak_bytes(device, call):
    """Return the memory a call takes besides what is there already, and its result.

    Parameters
    ----------
    device : torch.device
    call : callable

    Returns
    -------
    peak : int or None
        None where it is not counted: on a CPU.
    result : object
    """
    if device.type != "cuda":
        return None, call()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, result
