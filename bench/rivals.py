"""One signature for tensorfast and its rivals: ``adapter(problem, data, sweeps) -> [Run, ...]``.

Conversions (dtype, memory order, classes) are made while a `Run` is prepared and are not timed.
A rival with several ways to the same answer gives one `Run` each; the fastest is measured.
No stop rule ever triggers, but each implementation computes its error every sweep, as by default.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


class Unsupported(Exception):
    """A rival cannot do what is asked; the message goes into the record."""


@dataclass
class Run:
    """One prepared computation.

    Parameters
    ----------
    call : callable
        Timed; its result goes to `answer`.
    answer : callable
        Turns the result into ``(head, factors)``, where the head is the weights of a CP model or
        the core of a Tucker model.
    variant : str
        Which of the rival's ways this is.
    setup : callable
        Not timed, called before each `call`.
    sweeps_run : callable or None
        Reads the sweeps really run off the result, where the rival tells.
    notes : callable
        From the result to what else is recorded: a dict.
    """

    call: Callable
    answer: Callable
    variant: str = ""
    setup: Callable = lambda: None
    sweeps_run: Callable | None = None
    notes: Callable = lambda result: {}


def pair(head, factors):
    """Return ``(head, factors)``: torch's tensors where they are, NumPy arrays of all others.

    Parameters
    ----------
    head : array
    factors : iterable of array

    Returns
    -------
    tuple
    """
    head, *factors = (a if isinstance(a, torch.Tensor) else np.asarray(a) for a in (head, *factors))
    return head, factors


def tensorfast(problem, data, sweeps):
    """`tensorfast.cp_als` from the given start; ``tol=0`` runs all sweeps."""
    return [_cp_als(problem, data.x, sweeps, (None, data.start), "")]


def tensorfast_svd(problem, data, sweeps):
    """`tensorfast.cp_als` from its default start, which is part of the call."""
    return [_cp_als(problem, data.x, sweeps, "svd", 'init="svd", the default')]


def _cp_als(problem, x, sweeps, init, variant):
    import tensorfast as tf

    def call():
        return tf.cp_als(x, problem.rank, init=init, n_iter_max=sweeps, tol=0, seed=0)

    return Run(call, lambda r: pair(*r), variant, sweeps_run=lambda r: int(r.info.n_iter))


def _tensorly(backend):
    def adapter(problem, data, sweeps):
        import tensorly as tl
        from tensorly.cp_tensor import CPTensor
        from tensorly.decomposition import parafac

        tl.set_backend(backend)
        numpy = backend == "numpy"
        x = data.x.numpy() if numpy else data.x
        start = CPTensor((None, [f.numpy() if numpy else f for f in data.start]))

        # A negative tol is truthy, so that the error is computed, and smaller than any change.
        def call():
            return parafac(
                x, problem.rank, n_iter_max=sweeps, init=start, tol=-1.0, return_errors=True
            )

        return [
            Run(
                call,
                lambda r: pair(*r[0]),
                setup=lambda: tl.set_backend(backend),
                # An error a sweep.
                sweeps_run=lambda r: len(r[1]),
            )
        ]

    adapter.__doc__ = f"`tensorly.decomposition.parafac` on the {backend} backend."
    return adapter


def pyttb(problem, data, sweeps):
    """`pyttb.cp_als`; its ktensor is float64 only, its tensor either, so both are tried."""
    import pyttb as ttb

    start = ttb.ktensor([np.asfortranarray(f.numpy(), dtype=np.float64) for f in data.start])

    def run(dtype):
        x = ttb.tensor(np.asfortranarray(data.x.numpy(), dtype=dtype), copy=False)

        def call():
            return ttb.cp_als(
                x, problem.rank, stoptol=-1.0, maxiters=sweeps, init=start, printitn=0
            )

        return Run(
            call,
            lambda r: pair(r[0].weights, r[0].factor_matrices),
            variant=f"{np.dtype(dtype).name} tensor, float64 factors",
            sweeps_run=lambda r: r[2]["iters"] + 1,
        )

    return [run(np.float64), run(np.float32)]


def pygenten(problem, data, sweeps):
    """`pygenten.cp_als`, float64 only, in the MTTKRP methods and orders that can be fastest."""
    import pygenten as gt

    start = [f.numpy().astype(np.float64) for f in data.start]
    weights = np.ones(problem.rank)

    def run(order, method):
        x = gt.Tensor(np.array(data.x.numpy(), dtype=np.float64, order=order), copy=True)
        fresh = []

        def setup():
            fresh[:] = [gt.Ktensor(weights, start, copy=True)]

        def call():
            return gt.cp_als(
                x,
                rank=problem.rank,
                init=fresh.pop(),
                maxiters=sweeps,
                tol=0.0,
                printitn=0,
                mttkrp_method=getattr(gt, method),
            )

        return Run(
            call,
            lambda r: pair(r[0].weights, r[0].factor_matrices),
            variant=f"float64, {method}, {order} order",
            setup=setup,
            # The history has an entry for the start, one a sweep, and one for the final form.
            sweeps_run=lambda r: r[2].size() - 2,
        )

    return [run("C", "MttkrpDefault"), run("C", "MttkrpPhan"), run("F", "MttkrpPhan")]


CP = {
    "tensorfast": tensorfast,
    "tensorly-torch": _tensorly("pytorch"),
    "tensorly-numpy": _tensorly("numpy"),
    "pyttb": pyttb,
    "pygenten": pygenten,
}
# The default start needs memory of its own.
MEMORY = {"tensorfast": tensorfast, "tensorfast-svd": tensorfast_svd} | CP
