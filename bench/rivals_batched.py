"""The adapters for CP of a batch of tensors, with the signature of `bench.rivals`.

TensorLy has no batches: it fits one tensor after another, and only the first `FITTED`; its time is
extrapolated to all of them. Errors are compared on those.
"""

import torch

from bench import residual, rivals
from bench.problems import Data
from bench.rivals import Run

FITTED = 50


def tensorfast(problem, data, sweeps):
    """`tensorfast.cp_als` with ``batch_dims=1``."""
    import tensorfast as tf

    def call():
        return tf.cp_als(
            data.x,
            problem.rank,
            batch_dims=1,
            init=(None, data.start),
            n_iter_max=sweeps,
            tol=0,
        )

    def sweeps_run(result):
        return int(result.info.n_iter.min())

    return [Run(call, _models, sweeps_run=sweeps_run)]


def _models(result):
    weights, factors = result
    return [(weights[i], [f[i] for f in factors]) for i in range(min(FITTED, len(weights)))]


def _loop(adapter):
    """Call an adapter of `bench.rivals` for one tensor after another."""

    def looped(problem, data, sweeps):
        fitted = min(FITTED, problem.count)
        each = [Data(data.x[i], [f[i] for f in data.start]) for i in range(fitted)]
        runs = [adapter(problem, one, sweeps)[0] for one in each]
        return [
            Run(
                lambda: [run.call() for run in runs],
                lambda results: [r.answer(one) for r, one in zip(runs, results, strict=True)],
                variant=f"a loop, {fitted} of {problem.count} tensors, extrapolated",
                setup=runs[0].setup,
                sweeps_run=lambda results: min(map(runs[0].sweeps_run, results)),
                share=fitted / problem.count,
            )
        ]

    looped.__doc__ = adapter.__doc__
    return looped


def errors_of(data, models):
    """Return the exact relative error of each model."""
    return [residual.relative_error(data.x[i], *model) for i, model in enumerate(models)]


def error_of(data, models):
    """Return the mean of the exact relative errors."""
    return float(torch.tensor(errors_of(data, models), dtype=torch.float64).mean())


BATCHED = {
    "tensorfast": tensorfast,
    "tensorly-torch": _loop(rivals.CP["tensorly-torch"]),
    "tensorly-numpy": _loop(rivals.CP["tensorly-numpy"]),
}
