"""The adapters for CP or HOOI of a batch of tensors, with the signature of `bench.rivals`.

TensorLy has no batches: it fits one tensor after another, and only the first `FITTED`; its time is
extrapolated to all of them. Errors are compared on those.
"""

import torch

from bench import residual, rivals
from bench.problems import Data
from bench.rivals import Run, pair

FITTED = 50


def tensorfast(problem, data, sweeps):
    """`tensorfast.cp_als` or `tensorfast.hooi` with ``batch_dims=1``."""
    import tensorfast as tf

    cp = isinstance(problem.rank, int)
    fit = tf.cp_als if cp else tf.hooi
    # Of a Tucker start the factors count, and the core's shape.
    first = None if cp else data.x.new_zeros(problem.count, *problem.rank)

    def call():
        start = first, data.start
        return fit(data.x, problem.rank, batch_dims=1, init=start, n_iter_max=sweeps, tol=0)

    def sweeps_run(result):
        return int(result.info.n_iter.min())

    return [Run(call, _models, sweeps_run=sweeps_run)]


def _models(result):
    first, factors = result
    return [(first[i], [f[i] for f in factors]) for i in range(min(FITTED, len(first)))]


def _tucker(backend):
    """Return an adapter of TensorLy's `tucker`, from the start that all share."""

    def adapter(problem, data, sweeps):
        import tensorly as tl
        from tensorly.decomposition import tucker

        numpy = backend == "numpy"
        x, *start = [a.numpy() if numpy else a for a in (data.x, *data.start)]
        # A negative tol is truthy and smaller than any change.
        options = {"n_iter_max": sweeps, "tol": -1.0, "return_errors": True}

        # It writes into the list that it is given.
        def call():
            return tucker(x, list(problem.rank), init=(None, list(start)), **options)

        return [
            Run(
                call,
                lambda r: pair(*r[0]),
                setup=lambda: tl.set_backend(backend),
                sweeps_run=lambda r: len(r[1]),
            )
        ]

    return adapter


def _loop(cp, tucker):
    """Call an adapter for one tensor after another."""

    def looped(problem, data, sweeps):
        fitted = min(FITTED, problem.count)
        each = [Data(data.x[i], [f[i] for f in data.start]) for i in range(fitted)]
        adapter = cp if isinstance(problem.rank, int) else tucker
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

    looped.__doc__ = cp.__doc__
    return looped


def errors_of(data, models):
    """Return the exact relative error of each model."""
    return [residual.relative_error(data.x[i], *model) for i, model in enumerate(models)]


def error_of(data, models):
    """Return the mean of the exact relative errors."""
    return float(torch.tensor(errors_of(data, models), dtype=torch.float64).mean())


BATCHED = {
    "tensorfast": tensorfast,
    "tensorly-torch": _loop(rivals.CP["tensorly-torch"], _tucker("pytorch")),
    "tensorly-numpy": _loop(rivals.CP["tensorly-numpy"], _tucker("numpy")),
}
