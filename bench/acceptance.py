"""The bar: what ``report.py --check`` asserts of a machine's results."""

from typing import NamedTuple

from bench import problems
from bench.gate import compare, geometric_mean, rounding_tolerance
from bench.records import OURS

LARGE = 1.2
LARGE_MEAN = 3.0
TINY = 1.0
TUCKER = 5.0
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


def _against_default(machine, problem):
    """Compare with TensorLy's default call, for information: the bar is its fastest way."""
    tolerance = rounding_tolerance(problem.shape, problem.itemsize)
    ours, rival = (machine.timing(problem.name, name) for name in (OURS, "tensorly-torch"))
    return compare(ours, rival, tolerance)


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
    for problem in (*problems.CP, *problems.TUCKER):
        bar = TUCKER if problem.kind != "cp" else LARGE if problem.tier == "large" else TINY
        speedup, text = against_tensorly(machine, problem)
        text += f" (over {machine.fastest_tensorly(problem.name)})" if speedup else ""
        if problem.kind != "cp":
            text += f"; its default SVD on torch: {_against_default(machine, problem).text}"
        passed = speedup is not None and speedup >= bar
        found.append(Check(f"{problem.name}: at least {bar}x TensorLy", text, passed))
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
