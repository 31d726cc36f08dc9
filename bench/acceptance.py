"""The bar: what ``report.py --check`` asserts of a machine's results."""

import math
from typing import NamedTuple

from bench import problems
from bench.gate import compare, geometric_mean, rounding_tolerance
from bench.records import OURS
from bench.rivals import MEMORY
from bench.rivals_embeddings import PCA

# The first five are speed-ups over TensorLy, at an error that is not larger by more than rounding.
# What has no bar (TensorLy's randomised SVD, the other rivals) is in the tables for comparison.

# Every large CP problem: over the faster of TensorLy's backends.
LARGE = 1.2
# Geometric mean of the same over all large CP problems.
LARGE_MEAN = 3.0
# Every tiny CP problem, where a sweep is overhead: not slower.
TINY = 1.0
# Every Tucker problem: over `tucker` as it comes, that is with its full SVD, on the faster backend.
TUCKER = 5.0
# Batches of small tensors, CP and HOOI: over a loop over the faster of TensorLy's backends.
BATCHED = {"1000x16^3-R8": 20.0, "1000x16^3-4^3": 4.0}
# The loss of embeddings, by size: over the loss by a low-rank PCA that is differentiated through.
EMBEDDINGS = {"spectrum-128x10": 2.0, "spectrum-1024x64": 5.0, "spectrum-4096x256": 10.0}
# TensorLy's functions on our backend, over the same as they come: by function, where a sweep is
# large; where it is tiny, and left to TensorLy, what asking costs; the geometric mean of parafac.
BACKEND = {
    "parafac": 1.2,
    "non_negative_parafac_hals": 1.2,
    "constrained_parafac": 1.2,
    "tucker": 1.0,
}
BACKEND_TINY = 0.9
# In float64, where NumPy's matrix products are faster than torch's: not slower.
BACKEND_DOUBLE = 1.0
BACKEND_MEAN = 2.5
# Factors on our backend, from those of a float64 run: at most so many times as far as TensorLy's.
# Its own two, which differ by rounding alone, were seen to be 9 times as far as one another.
DISTANCE = 4.0
# Peak extra memory of CP-ALS, as a share of the tensor: below this, from either start.
MEMORY_PERCENT = 40.0


class Check(NamedTuple):
    """One requirement, what was found, and whether it holds."""

    what: str
    found: str
    passed: bool


def compared(machine, problem, rival, ours=None):
    """Return the gated comparison of tensorfast with another row of a problem.

    Parameters
    ----------
    machine : Machine
    problem : Problem
    rival : str or None
        The implementation; None compares with nothing.
    ours : str, optional
        Which row of tensorfast's, if it has two; default: the faster.

    Returns
    -------
    Comparison
    """
    tolerance = rounding_tolerance(problem.shape, problem.itemsize)
    names = ours or machine.fastest_ours(problem.name), rival
    ours, theirs = (machine.timing(problem.name, name) for name in names)
    return compare(ours, theirs, tolerance)


def against_tensorly(machine, problem, default=False):
    """Return the gated comparison with the fastest TensorLy row of a problem.

    Parameters
    ----------
    machine : Machine
    problem : Problem
    default : bool
        Only rows of TensorLy as it comes: not those of its randomised SVD.

    Returns
    -------
    Comparison
    """
    return compared(machine, problem, machine.fastest_tensorly(problem.name, default))


def on_library(machine, problem, library):
    """Return the gated comparison of both algebras on one of TensorLy's libraries.

    Parameters
    ----------
    machine : Machine
    problem : Problem
    library : str

    Returns
    -------
    Comparison
    """
    return compared(machine, problem, f"tensorly-{library}", f"tensorfast-{library}")


def large_mean(machine, kind="cp", library=None):
    """Return the geometric mean of the speed-ups over the large CP problems in float32.

    Parameters
    ----------
    machine : Machine
    kind : str
        ``"cp"`` for `tensorfast.cp_als`, ``"parafac"`` for TensorLy's on our backend.
    library : str, optional
        For this one of TensorLy's libraries; default: the faster of ours over the faster of its.

    Returns
    -------
    float or None
        None when one of them has no speed-up to state.
    """
    chosen = (*problems.CP, *problems.TENSORLY)
    large = [p for p in chosen if (p.kind, p.tier, p.itemsize) == (kind, "large", 4)]
    try:
        if library:
            return geometric_mean(on_library(machine, p, library).speedup for p in large)
        return geometric_mean(against_tensorly(machine, p).speedup for p in large)
    except ValueError:
        return None


def _speed(machine, problem, bar, rival=None):
    """Hold a problem to its bar, over TensorLy by default; what was disturbed is no measurement."""
    over = rival or "TensorLy"
    rival = rival or machine.fastest_tensorly(problem.name, default=True)
    found = compared(machine, problem, rival)
    names = machine.fastest_ours(problem.name), rival
    rows = {name: machine.row(problem.name, name) for name in names}
    disturbed = [name for name, row in rows.items() if row and row.disturbed]
    text = found.text + (f" (over {rival})" if found.speedup is not None else "")
    text += "".join(f"; {name} was disturbed: measure again" for name in disturbed)
    passed = found.speedup is not None and found.speedup >= bar and not disturbed
    return Check(f"{problem.name}: at least {bar}x {over}", text, passed)


def _backend_bar(problem):
    if problem.tier == "tiny":
        return BACKEND_TINY
    return BACKEND_DOUBLE if problem.itemsize == 8 else BACKEND[problem.kind]


def _mean(machine, kind, bar):
    mean = large_mean(machine, kind)
    text = "a problem has no speed-up" if mean is None else f"{mean:.2f}x"
    what = f"geometric mean of the large, {kind}: at least {bar}x"
    return Check(what, text, mean is not None and mean >= bar)


def _distance(machine, problem):
    """Hold factors on our backend to TensorLy's, the farther of each from the float64 ones."""
    what = f"{problem.name}: at most {DISTANCE} times as far as TensorLy's from float64 factors"
    rows = machine.rows.get(problem.name, {})
    if not rows:
        return Check(what, "not run", False)
    ours, theirs = (
        max(
            (row.info["distance"] for name, row in rows.items() if name.startswith(family)),
            key=lambda far: (far != far, far),
            default=math.nan,
        )
        for family in (OURS, "tensorly")
    )
    return Check(what, f"{ours:.1e} against {theirs:.1e}", ours <= DISTANCE * theirs)


def _memory(machine, problem, name):
    share = machine.memory.get(problem.name, {}).get(name, {}).get("share_percent")
    text = "not run" if share is None else f"{share:.1f} %"
    what = f"{problem.name}: peak extra memory of {name} under {MEMORY_PERCENT:.0f} % of the tensor"
    return Check(what, text, share is not None and share < MEMORY_PERCENT)


def checks(machine):
    """Hold a machine's results to the bar.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    list of Check
    """
    found = [_speed(machine, p, LARGE if p.tier == "large" else TINY) for p in problems.CP]
    found += [_speed(machine, p, TUCKER) for p in problems.TUCKER]
    found += [_speed(machine, p, BATCHED[p.name]) for p in problems.BATCHED]
    found += [_speed(machine, p, EMBEDDINGS[p.name], PCA) for p in problems.EMBEDDINGS]
    found += [_speed(machine, p, _backend_bar(p)) for p in problems.TENSORLY]
    found += [_distance(machine, p) for p in problems.TENSORLY]
    found += [_mean(machine, "cp", LARGE_MEAN), _mean(machine, "parafac", BACKEND_MEAN)]
    ours = [name for name in MEMORY if name.startswith(OURS)]
    found += [_memory(machine, p, name) for p in problems.MEMORY for name in ours]
    for part, made in machine.parts.items():
        what = f"{part}: a full measurement of a commit"
        found.append(Check(what, made.flaw or made.source, not made.flaw))
    return found
