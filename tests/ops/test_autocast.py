"""Under torch.autocast the operations compute, and return, what they do without it."""

import pytest
import torch
from torch import Tensor

import tensorfast as tf
from tensorfast import reference
from tensorfast.testing import assert_close

from .common import normal

SHAPE, RANK = (12, 20, 15), 16
X = normal(*SHAPE)
U = [normal(n, RANK, seed=n) for n in SHAPE]
W = normal(RANK, seed=9)

#: Each operation as a function of the tensor, the matrices and the weights; the same as a formula;
#: and the number of terms in one entry.
CALLS = {
    "mttkrp": (
        lambda x, u, w, **how: tf.mttkrp(x, u, 1, w, **how),
        lambda x, u, w: reference.mttkrp(x, [u[0], u[2]], 1, w),
        12 * 15 + 3,
    ),
    "ttm": (
        lambda x, u, w, **how: tf.ttm(x, u[1], 1, transpose=True, **how),
        lambda x, u, w: reference.ttm(x, u[1], 1, True),
        20 + 1,
    ),
    "multi_ttm": (
        lambda x, u, w: tf.multi_ttm(x, u, transpose=True),
        lambda x, u, w: reference.tucker_to_tensor(x, [a.t() for a in u]),
        12 + 20 + 15 + 3,
    ),
    "multi_ttm nothing": (lambda x, u, w: tf.multi_ttm(x, []), lambda x, u, w: x, 1),
    "gram": (
        lambda x, u, w, **how: tf.gram(x, 1, **how),
        lambda x, u, w: reference.gram(x, 1),
        12 * 15 + 1,
    ),
    "khatri_rao": (
        lambda x, u, w: tf.khatri_rao(u, w),
        lambda x, u, w: reference.khatri_rao(u, w),
        4,
    ),
}
IMPLEMENTATIONS = [
    *((name, {}) for name in CALLS),
    *((name, {"impl": "reference"}) for name in ("mttkrp", "ttm", "gram")),
    *((name, {"precision": None}) for name in ("mttkrp", "ttm", "gram")),
]


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "how"), IMPLEMENTATIONS, ids=str)
def test_results_are_float32_and_of_its_accuracy(name, how, stored):
    call, formula, length = CALLS[name]
    x, w, *u = (t.to(stored) for t in (X, W, *U))
    with autocast():
        out = call(x, u, w, **how)
    assert out.dtype == torch.float32
    wide = x.double(), [a.double() for a in u], w.double()
    scale = formula(wide[0].abs(), [a.abs() for a in wide[1]], wide[2].abs())
    assert_close(out, formula(*wide), scale, length)


@pytest.mark.parametrize("name", CALLS)
def test_the_fake_kernel_tells_the_same_type(name):
    call, _, _ = CALLS[name]
    with autocast():
        real = call(X, U, W)
        meta = call(X.to("meta"), [u.to("meta") for u in U], W.to("meta"))
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(X, U, W)
    assert (meta.dtype, meta.shape) == (real.dtype, real.shape)
    assert torch.equal(compiled, real)


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_those_without_it(name):
    call, _, _ = CALLS[name]

    def gradients() -> list[Tensor | None]:
        x, w, *u = (t.clone().requires_grad_() for t in (X, W, *U))
        call(x, u, w).sum().backward()
        return [t.grad for t in (x, w, *u)]

    expected = gradients()
    with autocast():
        found = gradients()
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


def test_autocast_would_otherwise_reach_the_formulas():
    with autocast():
        assert reference.gram(X, 1).dtype == torch.bfloat16
        assert reference.mttkrp(X, U[:2], 2).dtype == torch.bfloat16
