"""The bar: what ``report.py --check`` asserts of a machine's results."""

from typing import NamedTuple

from bench import problems
from bench.gate import compare, geometric_mean, rounding_tolerance
from bench.records import OURS

LARGE = 1.2
LARGE_MEAN = 3.0
TINY = 1.0
TUCKER = 5.0
TUCKER_RANDOMIZED = 3.0
MEMORY_PERCENT = 40.0


class Check(NamedTuple):
    """One requirement, what was found, and whether it holds."""

    what: str
    found: str
    passed: bool


def against_tensorly(machine, problem):
    """Return the gated comparison with the fastest TensorLy row of a problem.

    Parameters
    ----------
    machine : Machine
    problem : Problem

    Returns
    -------
    Comparison
    """
    rival = machine.fastest_tensorly(problem.name)
    tolerance = rounding_tolerance(problem.shape, problem.itemsize)
    return compare(
        machine.timing(problem.name, OURS), machine.timing(problem.name, rival), tolerance
    )


def _tucker_checks(machine, problem):
    """Hold a Tucker problem to two bars: TensorLy as it comes, and with its randomised SVD."""
    tolerance = rounding_tolerance(problem.shape, problem.itemsize)
    ours = machine.timing(problem.name, OURS)
    for suffix, bar, what in (
        ("", TUCKER, "TensorLy's default"),
        ("-randomized", TUCKER_RANDOMIZED, "TensorLy with its randomised SVD"),
    ):
        rivals = [
            (machine.timing(problem.name, f"tensorly-{backend}{suffix}"), backend)
            for backend in ("torch", "numpy")
        ]
        timed = [pair for pair in rivals if pair[0] is not None]
        rival, backend = min(timed, key=lambda pair: pair[0].seconds, default=(None, ""))
        speedup, text = compare(ours, rival, tolerance)
        text += f" (on its {backend} backend)" if speedup else ""
        passed = speedup is not None and speedup >= bar
        yield Check(f"{problem.name}: at least {bar}x {what}", text, passed)


def large_mean(machine):
    """Return the geometric mean of the speed-ups over the large CP problems.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    float or None
        None when one of them has no speed-up to state.
    """
    large = [p for p in problems.CP if p.tier == "large"]
    try:
        return geometric_mean(against_tensorly(machine, p).speedup for p in large)
    except ValueError:
        return None


def checks(machine):
    """Hold a machine's results to the bar.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    list of Check
    """
    found = []
    for problem in problems.CP:
        bar = LARGE if problem.tier == "large" else TINY
        speedup, text = against_tensorly(machine, problem)
        text += f" (over {machine.fastest_tensorly(problem.name)})" if speedup else ""
        passed = speedup is not None and speedup >= bar
        found.append(Check(f"{problem.name}: at least {bar}x TensorLy", text, passed))
    for problem in problems.TUCKER:
        found.extend(_tucker_checks(machine, problem))
    mean = large_mean(machine)
    text = "a problem has no speed-up" if mean is None else f"{mean:.2f}x"
    passed = mean is not None and mean >= LARGE_MEAN
    found.append(Check(f"geometric mean of the large: at least {LARGE_MEAN}x", text, passed))
    for problem in problems.MEMORY:
        share = machine.memory.get(problem.name, {}).get(OURS, {}).get("share_percent")
        text = "not run" if share is None else f"{share:.1f} %"
        passed = share is not None and share < MEMORY_PERCENT
        what = f"{problem.name}: peak extra memory under {MEMORY_PERCENT:.0f} % of the tensor"
        found.append(Check(what, text, passed))
    return found
