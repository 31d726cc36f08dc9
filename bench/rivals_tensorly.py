"""TensorLy's own functions, as they come and on our backend, with the signature of `bench.rivals`.

Each on TensorLy's NumPy and its PyTorch backend, from one start, which is not part of the time.
Beside a time is recorded how many MTTKRPs came from partial results and, as ALS from a random start
amplifies rounding, how far the factors are from those that TensorLy finds in float64.
"""

from contextlib import nullcontext
from functools import lru_cache

import torch

from bench.problems import Data
from bench.rivals import Run, pair

# A negative tolerance is truthy, so that errors are computed, and smaller than any change.
OPTIONS = {
    "parafac": {"tol": -1.0},
    "non_negative_parafac_hals": {"tol": -1.0},
    "constrained_parafac": {"tol_outer": -1.0, "non_negative": True},
    "tucker": {"tol": -1.0},
}
# Whose factors, in float64, stand for the exact ones.
EXACT = "tensorly-numpy"


def _adapter(name):
    family, library = name.split("-")
    library = "pytorch" if library == "torch" else library

    def adapter(problem, data, sweeps):
        import tensorly as tl
        from tensorly import decomposition

        from tensorfast.backends import tensorly as backend

        function, options = getattr(decomposition, problem.kind), OPTIONS[problem.kind]
        x, *start = [a.numpy() if library == "numpy" else a for a in (data.x, *data.start)]
        fresh = []

        # Some of the functions write into the list that they are given.
        def setup():
            tl.set_backend(library)
            fresh[:] = [tl.copy(factor) for factor in start]

        def call():
            before = backend.reused()
            with backend.active() if family == "tensorfast" else nullcontext():
                model, errors = function(
                    x,
                    problem.rank,
                    n_iter_max=sweeps,
                    init=(None, fresh),
                    return_errors=True,
                    **options,
                )
            return model, errors, backend.reused() - before

        def notes(result):
            exact = in_float64(EXACT, problem, sweeps)
            return {
                "reused_percent": 100 * result[2] / (sweeps * len(problem.shape)),
                "distance": distance(pair(*result[0])[1], exact),
                "distance_float64": distance(in_float64(name, problem, sweeps), exact),
            }

        return [
            Run(
                call,
                lambda r: pair(*r[0]),
                setup=setup,
                # An error a sweep.
                sweeps_run=lambda r: len(r[1]),
                notes=notes,
            )
        ]

    algebra = "our backend" if family == "tensorfast" else "its own algebra"
    adapter.__doc__ = f"TensorLy's function of the problem's kind, on {algebra} and {library}."
    return adapter


@lru_cache(maxsize=4)
def in_float64(name, problem, sweeps):
    """Return the factors that an implementation finds for a problem's data widened to float64."""
    data = problem.build()
    wide = Data(data.x.double(), [factor.double() for factor in data.start])
    (run,) = TENSORLY[name](problem, wide, sweeps)
    run.setup()
    return run.answer(run.call())[1]


def distance(factors, exact):
    """Return the largest relative distance, in the norm, of a factor from the exact one."""
    pairs = [
        (torch.as_tensor(a).double(), torch.as_tensor(b))
        for a, b in zip(factors, exact, strict=True)
    ]
    # A NaN stays one.
    return float(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max())


TENSORLY = {
    name: _adapter(name)
    for name in ("tensorfast-numpy", "tensorfast-torch", "tensorly-numpy", "tensorly-torch")
}
