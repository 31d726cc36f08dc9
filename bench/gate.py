"""When a speed-up may be stated: never on a wrong answer.

Two correct implementations that run the same sweeps from the same start differ by rounding only.
Every sweep rests on sums of K products, K being the longest contraction of an MTTKRP (all sizes
but the smallest mode's); rounding errors of such a sum grow like sqrt(K) u, u the unit roundoff
(Higham & Mary, SIAM J. Sci. Comput. 41, 2019). The tolerance is four times that, absolute, on the
relative error ||X - M|| / ||X||.

It is no bound where ALS still moves fast, as every sweep then amplifies the rounding of those
before it: at 24^5, after ten sweeps, TensorLy on NumPy (float32) was seen to differ from pyttb
(float64) by 2.2e-4, with a tolerance of 1.4e-4. There the gate can refuse a correct float32 run its
speed-up: it errs on the cautious side, and is not widened for it. Where ALS has settled, one sweep
changes less than the tolerance: that all ran the same number of sweeps is checked apart, by asking
each.
"""

from math import isfinite, prod, sqrt
from typing import NamedTuple

UNIT_ROUNDOFF = {2: 2.0**-9, 4: 2.0**-24, 8: 2.0**-53}


class Timing(NamedTuple):
    """Seconds, exact relative error and relative spread of the seconds, of one row of a table."""

    seconds: float
    error: float
    spread: float = 0.0


class Comparison(NamedTuple):
    """A speed-up, or None and the reason why none is stated."""

    speedup: float | None
    text: str


def rounding_tolerance(shape, itemsize=4):
    """Return by how much two correct relative errors may differ: ``4 u sqrt(K)``.

    Parameters
    ----------
    shape : tuple of int
    itemsize : int
        Bytes of an element of the tensor.

    Returns
    -------
    float
    """
    return 4 * UNIT_ROUNDOFF[itemsize] * sqrt(prod(shape) / min(shape))


def compare(ours, rival, tolerance):
    """Return the speed-up of ours over a rival, unless our answer is worse.

    A tilde before it says that the spreads allow either to be the faster.

    Parameters
    ----------
    ours, rival : Timing or None
        None where there is no measurement.
    tolerance : float
        From `rounding_tolerance`.

    Returns
    -------
    Comparison
    """
    if ours is None or rival is None:
        return Comparison(None, "not run")
    if not isfinite(ours.error):
        return Comparison(None, "error not finite")
    if not isfinite(rival.error):
        return Comparison(None, "rival's error not finite")
    if ours.error > rival.error + tolerance:
        return Comparison(None, "error larger")
    ratio = rival.seconds / ours.seconds
    text = f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"
    reach = (ours.seconds * ours.spread + rival.seconds * rival.spread) / 2
    return Comparison(ratio, f"~{text}" if abs(rival.seconds - ours.seconds) < reach else text)


def geometric_mean(ratios):
    """Return the geometric mean.

    Parameters
    ----------
    ratios : iterable of float

    Returns
    -------
    float

    Raises
    ------
    ValueError
        When a ratio is missing or not positive: a mean over the rest would flatter.
    """
    ratios = list(ratios)
    if not ratios or any(r is None or not r > 0 for r in ratios):
        raise ValueError(f"geometric_mean: needs positive ratios, all of them; got {ratios}")
    return prod(r ** (1 / len(ratios)) for r in ratios)
