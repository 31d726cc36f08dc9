"""Run TensorLy's own functions as they come, and on tensorfast's backend, on a hyperspectral image.

The image is that of `indian_pines.py`, which cites it; it comes with TensorLy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorly
import torch
from indian_pines import CREDIT, load, race
from tensorly.decomposition import non_negative_parafac_hals, parafac

import tensorfast as tf
import tensorfast.backends.tensorly as backend

FUNCTIONS = (parafac, non_negative_parafac_hals)
NOTES = """\
The same function, arguments, start and number of sweeps; errors are exact, by
tensorfast.relative_error; times are the shorter of two. The match is the factor match score of the
two models; shared are the MTTKRPs that came from partial results.
No speed-up is given where the error on the backend is larger by more than rounding. Sweeps amplify
rounding: in float32 no two algebras match to all digits, in float64 (--double) they do."""
#: By how much two equal errors may differ: rounding of float32, in sums over a row and its bands.
ROUNDING = 2.0**-24 * (145 * 200) ** 0.5
LAYOUT = "{:<26} {:<8} {:>9} {:>8}   {:>9} {:>8}   {:>8} {:>7} {:>8}"


def compare(function: Callable[..., Any], library: str, x: Any, rank: int, sweeps: int) -> str:
    """Return a row of the table: one function on one of TensorLy's libraries."""

    def fit(algebra: Callable[[], AbstractContextManager[None]]) -> tuple[Any, int]:
        before = backend.reused()
        # All that it takes.
        with algebra():
            # A negative tolerance never stops a fit, but has the error computed.
            model = function(x, rank, n_iter_max=sweeps, init="random", random_state=0, tol=-1.0)
        return tuple(model), backend.reused() - before

    found = race(lambda: fit(nullcontext), lambda: fit(backend.active))
    ((own, _), own_seconds), ((ours, shared), seconds) = found
    own_error, error = tf.relative_error(x, own), tf.relative_error(x, ours)
    larger = error > own_error + ROUNDING
    match = tf.factor_match_score(own, ours)
    return LAYOUT.format(
        function.__name__,
        library,
        *(f"{own_error:.7f}", f"{own_seconds:.3f} s"),
        *(f"{error:.7f}", f"{seconds:.3f} s"),
        "-" if larger else f"{own_seconds / seconds:.1f} x",
        f"{match:.4f}",
        f"{shared}/{3 * sweeps}",
    )


def main() -> None:
    """Parse the command line, decompose, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=20, help="number of components")
    parser.add_argument("--sweeps", type=int, default=20, help="sweeps of each fit")
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--quick", action="store_true", help="thin the image out, for a trial")
    options = parser.parse_args()
    cube = load(options.quick)[0]
    cube = cube.double() if options.double else cube
    shape = " x ".join(map(str, cube.shape))
    print(
        f"Indian Pines, {shape}, {cube.dtype}, rank {options.rank}, {options.sweeps} sweeps, "
        f"TensorLy {tensorly.__version__}, {torch.get_num_threads()} threads"
    )
    titles = ("function", "library", *("error", "time") * 2, "speed-up", "match", "shared")
    print(f"{'TensorLy':>54}   {'on tensorfast':>18}\n{LAYOUT.format(*titles)}", flush=True)
    for library, x in {"numpy": cube.numpy(), "pytorch": cube}.items():
        tensorly.set_backend(library)
        for function in FUNCTIONS:
            print(compare(function, library, x, options.rank, options.sweeps), flush=True)
    print(NOTES, CREDIT, sep="\n")


if __name__ == "__main__":
    main()
