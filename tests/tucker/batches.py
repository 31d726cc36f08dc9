"""What the tests of batches share: tensors, and how alike two models of one have to be."""

import itertools
import math

import numpy as np
import torch

import tensorfast as tf
from tensorfast.testing import planted

CASES = [
    ((9, 8), (3, 3)),
    ((8, 7, 6), (3, 2, 4)),
    ((12, 3, 4), (2, 3, 3)),
    ((5, 6, 4, 7), (2, 3, 2, 2)),
    ((4, 5, 3, 4, 6), (2, 2, 3, 2, 2)),
]


def tensors(count, shape, noise=0.5, dtype=torch.float64):
    """Return different tensors; some have a gap in their spectra and some hardly one."""
    made = [
        planted(shape, 4, noise=noise * (1 + s % 3) / 2, seed=s, dtype=dtype)[0]
        for s in range(count)
    ]
    return torch.stack(made)


def wide(t):
    return torch.as_tensor(np.asarray(t)).to(torch.complex128 if t.is_complex() else torch.float64)


def sensitivity(x, model):
    """Return how far a mode's subspace is moved by an error in its projected tensor, relatively.

    Davis and Kahan: ``s_1^2 / (s_R^2 - s_{R+1}^2)`` of the unfolding that the subspace is of: that
    of ``x``, or of what is left of it between all other factors.
    """
    factors = [wide(f) for f in model.factors]
    worst = 1.0
    for n, projected in itertools.product(range(len(factors)), (True, False)):
        seen = tf.multi_ttm(wide(x), factors, skip=n, transpose=True) if projected else wide(x)
        values = torch.linalg.svdvals(tf.unfold(seen, n)) ** 2
        size, rank = factors[n].shape
        if rank < size:
            values = torch.cat([values, values.new_zeros(rank + 1)])
            gap = float(values[rank - 1] - values[rank])
            worst = max(worst, float(values[0]) / gap if gap > 0 else math.inf)
    return worst


def assert_same_model(x, model, other, eps=None, sweeps=1):
    """Hold a model of ``x`` to another: types, errors, the core's norm, and subspaces.

    Each sweep rounds sums of as many terms as ``x`` has columns; rounding moves a subspace by the
    sensitivity times as much. Bases may be turned, so that projectors are compared.
    """
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    rounding = 8 * sweeps * math.sqrt(x.numel()) * eps
    tolerance = rounding * sensitivity(x, other)
    assert tolerance < 0.05, "the case tells nothing"
    for mine, theirs in zip(model.factors, other.factors, strict=True):
        assert mine.shape == theirs.shape
        mine, theirs = wide(mine), wide(theirs)
        gram = mine.mH @ mine
        assert float((gram - torch.eye(len(gram))).abs().max()) <= 8 * mine.shape[0] * eps
        gap = float(torch.linalg.matrix_norm(mine @ mine.mH - theirs @ theirs.mH))
        assert gap <= tolerance, (gap, tolerance)
    scale = float(torch.linalg.vector_norm(wide(x)))
    full, expected = (
        tf.tucker_to_tensor((wide(m.core), [wide(f) for f in m.factors])) for m in (model, other)
    )
    assert float(torch.linalg.vector_norm(full - expected)) <= tolerance * scale
    # Three scalars give an error to eps over the error, and residuals give those below sqrt(eps).
    errors, theirs = (np.array(m.info.rel_errors) for m in (model, other))
    allowed = rounding + 4 * eps / np.maximum(theirs, math.sqrt(eps))
    assert (np.abs(errors - theirs) <= allowed).all(), (errors, theirs)


def assert_each_as_alone(x, model, alone, eps=None):
    """Hold every tensor's model, errors and status to those of the call for it alone."""
    for i in range(len(x)):
        one, other = model.at(i), alone(x[i])
        assert (one.info.status, one.info.n_iter) == (other.info.status, other.info.n_iter), i
        assert one.info.converged == other.info.converged
        assert one.info.message.split()[:3] == other.info.message.split()[:3]
        assert_same_model(x[i], one, other, eps, other.info.n_iter)
