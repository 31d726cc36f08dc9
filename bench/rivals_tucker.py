"""The Tucker adapters, with the signature of `bench.rivals`.

TensorLy has no ST-HOSVD. The closest it offers is `tucker` with ``n_iter_max=0``: the truncated
HOSVD by which it starts. Its `svd` argument is a choice between the full thin SVD (the default) and
a randomised one, and both are rows of their own. It decides how the start is computed and no more:
the loop of HOOI takes the full thin SVD of every projected unfolding whatever was asked for. The
third, ``"symeig_svd"``, cannot run: it forms the Gram matrix of the *longer* side of the unfolding,
40,000 x 40,000 at 200^3.
"""

import contextlib
import io

import numpy as np

from bench.rivals import Run, Unsupported, pair


def tensorfast(problem, data, sweeps):
    """`tensorfast.hooi` with ``tol=0``, or `tensorfast.sthosvd` by ranks."""
    import tensorfast as tf

    def hooi():
        return tf.hooi(data.x, problem.rank, n_iter_max=sweeps, tol=0)

    def sthosvd():
        return tf.sthosvd(data.x, problem.rank)

    if problem.kind == "hooi":
        return [Run(hooi, lambda r: pair(*r), sweeps_run=lambda r: int(r.info.n_iter))]
    return [Run(sthosvd, lambda r: pair(*r))]


def _tensorly(backend, svd):
    def adapter(problem, data, sweeps):
        import tensorly as tl
        from tensorly.decomposition import tucker

        x = data.x.numpy() if backend == "numpy" else data.x
        rank = list(problem.rank)
        hooi = problem.kind == "hooi"
        n_iter_max = sweeps if hooi else 0
        options = {"init": "svd", "svd": svd, "random_state": 0, "return_errors": True}

        # A negative tol is truthy and smaller than any change.
        def call():
            return tucker(x, rank, n_iter_max=n_iter_max, tol=-1.0, **options)

        return [
            Run(
                call,
                lambda r: pair(*r[0]),
                variant=f"HOOI started by {svd}" if hooi else f"HOSVD (not sequential) by {svd}",
                setup=lambda: tl.set_backend(backend),
                # An error a sweep; the HOSVD has none.
                sweeps_run=(lambda r: len(r[1])) if hooi else None,
            )
        ]

    adapter.__doc__ = f"`tensorly.decomposition.tucker` on {backend}, its start by {svd}."
    return adapter


def pyttb(problem, data, sweeps):
    """`pyttb.tucker_als` started by eigenvectors, or `pyttb.hosvd` with ``sequential=True``."""
    import pyttb as ttb

    rank = list(problem.rank)

    def run(dtype):
        x = ttb.tensor(np.asfortranarray(data.x.numpy(), dtype=dtype), copy=False)

        def hooi():
            # It prints while it computes its start, whatever printitn says.
            with contextlib.redirect_stdout(io.StringIO()):
                return ttb.tucker_als(
                    x, rank, stoptol=-1.0, maxiters=sweeps, init="nvecs", printitn=0
                )

        def sthosvd():
            return ttb.hosvd(x, tol=0.0, verbosity=0, ranks=rank, sequential=True)

        name = f"{np.dtype(dtype).name} tensor, float64 factors"
        if problem.kind == "hooi":
            return Run(
                hooi,
                lambda r: pair(r[0].core.data, r[0].factor_matrices),
                variant=name,
                sweeps_run=lambda r: r[2]["iters"] + 1,
            )
        return Run(sthosvd, lambda r: pair(r.core.data, r.factor_matrices), variant=name)

    return [run(np.float64), run(np.float32)]


def pygenten(problem, data, sweeps):
    """Refuse: GenTen's Python interface has CP solvers only."""
    raise Unsupported("pygenten offers CP and GCP solvers only: no Tucker, no HOSVD")


TUCKER = {
    "tensorfast": tensorfast,
    "tensorly-torch": _tensorly("pytorch", "truncated_svd"),
    "tensorly-torch-randomized": _tensorly("pytorch", "randomized_svd"),
    "tensorly-numpy": _tensorly("numpy", "truncated_svd"),
    "tensorly-numpy-randomized": _tensorly("numpy", "randomized_svd"),
    "pyttb": pyttb,
    "pygenten": pygenten,
}
