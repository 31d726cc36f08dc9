"""What tensorfast is measured against on a GPU, with the signature of `bench.rivals`.

Each has a precision of its own for float32 products, by torch's setting where it goes by that.
TensorLy runs as it is, on CUDA tensors. The plain-torch rivals never wait for the GPU within a fit:
Gram matrices, Cholesky solves and errors stay on it, in float64.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import torch

from bench import rivals, rivals_tucker
from bench.rivals import Run, pair


class Rival(NamedTuple):
    """An adapter, and the precision of torch's products under which it runs."""

    adapter: Callable
    precision: str = "ieee"


def _tensorfast(precision):
    def adapter(problem, data, sweeps):
        import tensorfast as tf

        def call():
            start = (None, data.start)
            options = {"n_iter_max": sweeps, "tol": 0, "precision": precision}
            return tf.cp_als(data.x, problem.rank, init=start, **options)

        return [Run(call, lambda r: pair(*r), sweeps_run=lambda r: int(r.info.n_iter))]

    adapter.__doc__ = f"`tensorfast.cp_als` in ``precision={precision!r}``; ``tol=0``: all sweeps."
    return adapter


def torch_baseline(problem, data, sweeps):
    """Run the plain loop of tensorfast's engine over its plain-torch contractions, as on a CPU."""
    from tensorfast.cp.als import als
    from tensorfast.cp.operand import DenseOperand
    from tensorfast.cp.update import LeastSquares

    def call():
        with torch.inference_mode():
            about = {"n_iter_max": sweeps, "tol": 0.0, "free": range(data.x.ndim)}
            return als(DenseOperand(data.x), data.start, LeastSquares(0.0), **about)

    def answer(result):
        return torch.ones(problem.rank), result[0]

    return [Run(call, answer, sweeps_run=lambda r: r[1].n_iter)]


def tree(x, factors):
    """Yield MTTKRPs mode by mode from two matrix products with all of ``x``: a dimension tree.

    ``x`` is cut into its first and its last modes where the two partial results are the smallest
    together. These are contracted further by a product and a sum.
    """
    shape, order = x.shape, x.ndim
    cut = min(range(1, order), key=lambda n: prod(shape[:n]) + prod(shape[n:]))
    matrix = x.reshape(prod(shape[:cut]), -1)
    yield from _within(matrix @ _khatri_rao(factors[cut:]), shape, factors, range(cut))
    first = _khatri_rao(factors[:cut])
    yield from _within(matrix.t() @ first, shape, factors, range(cut, order))


def _within(partial_result, shape, factors, modes):
    p = partial_result.view(*(shape[n] for n in modes), -1)
    for mode in modes:
        q = p
        # From the last, so that the axes before it keep their places.
        for axis, other in reversed(list(enumerate(modes))):
            if other != mode:
                behind = [1] * (q.ndim - 2 - axis)
                q = (q * factors[other].view(-1, *behind, q.shape[-1])).sum(axis)
        yield q


def _khatri_rao(factors):
    out = factors[0]
    for factor in factors[1:]:
        out = (out[:, None] * factor).flatten(0, 1)
    return out


def einsum(x, factors):
    """Yield MTTKRPs mode by mode, each a `torch.einsum` of tensor and factors."""
    letters = "abcdefgh"[: x.ndim]
    for mode in range(x.ndim):
        others = [n for n in range(x.ndim) if n != mode]
        terms = ",".join([letters, *(f"{letters[n]}z" for n in others)])
        yield torch.einsum(f"{terms}->{letters[mode]}z", x, *(factors[n] for n in others))


def _plain(products):
    def adapter(problem, data, sweeps):
        call = partial(als, products, data.x, data.start, sweeps)
        return [
            Run(call, lambda r: (torch.ones(problem.rank), r[0]), sweeps_run=lambda r: len(r[1]))
        ]

    adapter.__doc__ = f"ALS without a word to the host, its MTTKRPs by `{products.__name__}`."
    return adapter


def als(products, x, start, sweeps):
    """Run plain ALS, with the error of every sweep.

    Parameters
    ----------
    products : callable
        Yields the MTTKRPs of a sweep while their factors are replaced.
    x : Tensor
    start : list of Tensor
    sweeps : int

    Returns
    -------
    factors, errors : list of Tensor
    """
    factors, errors = list(start), []
    grams = [f.double().t() @ f.double() for f in factors]
    squared = torch.linalg.vector_norm(x, dtype=torch.float64).square()
    for _ in range(sweeps):
        for mode, product in enumerate(products(x, factors)):
            others = torch.stack([g for n, g in enumerate(grams) if n != mode]).prod(0)
            root, _ = torch.linalg.cholesky_ex(others)
            wide = torch.cholesky_solve(product.double().t(), root).t()
            factors[mode] = wide.to(x.dtype).contiguous()
            grams[mode] = factors[mode].double().t() @ factors[mode].double()
        inner = (factors[mode].double() * product.double()).sum()
        residual = squared - 2 * inner + torch.stack(grams).prod(0).sum()
        errors.append((residual / squared).clamp_min(0).sqrt())
    return factors, errors


#: CP-ALS; tensorfast first.
CP = {
    "tensorfast": Rival(_tensorfast("ieee")),
    "tensorfast-tf32": Rival(_tensorfast("tf32")),
    "tensorly": Rival(rivals.CP["tensorly-torch"]),
    "tensorly-tf32": Rival(rivals.CP["tensorly-torch"], "tf32"),
    "torch-tree": Rival(_plain(tree)),
    "torch-einsum": Rival(_plain(einsum)),
    "torch-baseline": Rival(torch_baseline),
}

#: Tucker; TensorLy's full SVD of a long unfolding can take minutes, and comes last.
TUCKER = {
    "tensorfast": Rival(rivals_tucker.tensorfast),
    "tensorly-randomized": Rival(rivals_tucker.TUCKER["tensorly-torch-randomized"]),
    "tensorly": Rival(rivals_tucker.TUCKER["tensorly-torch"]),
}
