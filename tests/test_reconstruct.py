"""Models multiplied out: against the literal formula, TensorLy, and gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorly as tl
import torch

import tensorfast as tf
from tensorfast import precision, reconstruct, reference
from tensorfast.reconstruct import cp_residual_norm, norm, tucker_residual_norm
from tensorfast.testing import PROBLEMS, assert_close, normal, random_cp

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def tucker_model(shape, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(0)
    rank = [min(n, 1 + k % 3) for k, n in enumerate(shape)]
    core = torch.randn(rank, generator=g, dtype=torch.promote_types(dtype, torch.float32))
    made = [
        torch.randn(n, r, generator=g, dtype=core.dtype) for n, r in zip(shape, rank, strict=True)
    ]
    return core.to(dtype), [f.to(dtype) for f in made]


def wide(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [t.to(torch.complex128 if t.is_complex() else torch.float64) for t in tensors]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cp_to_tensor(problem, dtype):
    weights, factors = random_cp(problem.shape, problem.rank, dtype=dtype)
    exact_weights, *exact = wide(weights, *factors)
    for given, w in ((weights, exact_weights), (None, None)):
        expected = reference.cp_to_tensor(w, exact)
        scale = reference.cp_to_tensor(w, [f.abs() for f in exact])
        actual = tf.cp_to_tensor((given, factors))
        assert actual.dtype == dtype
        assert_close(actual, expected, scale, problem.rank * len(factors))


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tucker_to_tensor(problem, dtype):
    core, factors = tucker_model(problem.shape, dtype)
    exact_core, *exact = wide(core, *factors)
    expected = reference.tucker_to_tensor(exact_core, exact)
    scale = reference.tucker_to_tensor(exact_core.abs(), [f.abs() for f in exact])
    actual = tf.tucker_to_tensor((core, factors))
    assert actual.dtype == dtype
    assert_close(actual, expected, scale, core.numel())


@half
def test_half_precision_is_computed_in_single(dtype):
    _, factors = random_cp((5, 6, 7), 3)
    stored = [f.to(dtype) for f in factors]
    full = tf.cp_to_tensor((None, stored))
    assert full.dtype == torch.float32
    exact = wide(*stored)
    scale = reference.cp_to_tensor(None, [f.abs() for f in exact])
    assert_close(full, reference.cp_to_tensor(None, exact), scale, 9)
    core, factors = tucker_model((5, 6, 7), dtype)
    assert tf.tucker_to_tensor((core, factors)).dtype == torch.float32


def test_one_mode():
    weights, factors = random_cp((5,), 3)
    torch.testing.assert_close(tf.cp_to_tensor((weights, factors)), factors[0] @ weights)
    core, factors = tucker_model((5,))
    torch.testing.assert_close(tf.tucker_to_tensor((core, factors)), factors[0] @ core)


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5), (2, 3, 4, 2), (2, 3, 2, 2, 3)], ids=str)
def test_against_tensorly(shape):
    tl.set_backend("numpy")
    weights, factors = random_cp(shape, 3)
    cp = weights.numpy(), [f.numpy() for f in factors]
    np.testing.assert_allclose(tf.cp_to_tensor(cp), tl.cp_to_tensor(cp), atol=1e-13)
    core, factors = tucker_model(shape)
    tucker = core.numpy(), [f.numpy() for f in factors]
    np.testing.assert_allclose(tf.tucker_to_tensor(tucker), tl.tucker_to_tensor(tucker), atol=1e-12)


def test_answers_in_kind():
    weights, factors = random_cp((4, 5, 6), 2)
    core, matrices = tucker_model((4, 5, 6))
    for kind, make in (
        (np.ndarray, torch.Tensor.numpy),
        (jax.Array, lambda t: jnp.asarray(t.numpy())),
    ):
        assert isinstance(tf.cp_to_tensor((make(weights), [make(f) for f in factors])), kind)
        assert isinstance(tf.tucker_to_tensor((make(core), [make(f) for f in matrices])), kind)


def test_mixed_types_are_computed_in_the_wider():
    weights, factors = random_cp((4, 5, 6), 2)
    mixed = [factors[0].float(), factors[1], factors[2].half()]
    assert tf.cp_to_tensor((weights, mixed)).dtype == torch.float64
    assert tf.cp_to_tensor((weights, [f + 0j for f in factors])).dtype == torch.complex128


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients(dtype):
    weights, factors = random_cp((3, 4, 2), 2, dtype=dtype)
    core, matrices = tucker_model((3, 4, 2), dtype)
    for f in (weights, *factors, core, *matrices):
        f.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, *f: tf.cp_to_tensor((w, f)), (weights, *factors))
    assert torch.autograd.gradcheck(lambda c, *f: tf.tucker_to_tensor((c, f)), (core, *matrices))


def both_models(dtype: torch.dtype = torch.float32):
    """Return a function of each kind of model, with its arguments."""
    weights, factors = random_cp((5, 6, 7), 3, dtype=dtype)
    core, matrices = tucker_model((5, 6, 7), dtype)
    return {
        "cp": (lambda w, *f: tf.cp_to_tensor((w, f)), (weights, *factors)),
        "tucker": (lambda c, *f: tf.tucker_to_tensor((c, f)), (core, *matrices)),
    }


@pytest.mark.parametrize("batch", [(3,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("shape", [(5,), (5, 6), (3, 1, 4), (3, 4, 2, 5)], ids=str)
def test_a_batch_of_tucker_models(batch, shape):
    count = math.prod(batch)
    models = [tucker_model(shape) for _ in range(max(count, 1))]
    for seed, (core, _) in enumerate(models):
        core *= seed + 1
    cores = torch.stack([core for core, _ in models])[:count]
    core = cores.reshape(*batch, *cores.shape[1:])
    factors = []
    for n in range(len(shape)):
        each = torch.stack([f[n] for _, f in models])[:count]
        factors.append(each.reshape(*batch, *each.shape[1:]))
    full = tf.tucker_to_tensor((core, factors))
    assert full.shape == (*batch, *shape)
    for mine, (own, matrices) in zip(full.reshape(-1, *shape), models, strict=False):
        torch.testing.assert_close(mine, reference.tucker_to_tensor(own, matrices))


def test_a_batch_of_tucker_models_has_gradients():
    g = torch.Generator().manual_seed(0)
    draw = {"dtype": torch.complex128, "generator": g, "requires_grad": True}
    core = torch.randn(2, 2, 3, 2, **draw)
    matrices = [torch.randn(2, n, r, **draw) for n, r in ((3, 2), (2, 3), (4, 2))]
    assert torch.autograd.gradcheck(lambda c, *f: tf.tucker_to_tensor((c, f)), (core, *matrices))


each_model = pytest.mark.parametrize("model", ["cp", "tucker"])


@each_model
def test_autocast_changes_nothing(model):
    call, arguments = both_models()[model]
    plain, compiled = call(*arguments), torch.compile(call, fullgraph=True, backend="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(call(*arguments), plain)
        torch.testing.assert_close(compiled(*arguments), plain)


@each_model
def test_compiled_and_mapped(model):
    call, arguments = both_models(torch.float64)[model]
    plain = call(*arguments)
    torch.testing.assert_close(
        torch.compile(call, fullgraph=True, backend="eager")(*arguments), plain
    )
    twice = torch.vmap(call)(*(torch.stack([a, 2 * a]) for a in arguments))
    torch.testing.assert_close(twice[0], plain)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6, 4), (3, 4, 2, 5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("double", [False, True])
def test_residual_norms(shape, dtype, double):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(shape, dtype=dtype, generator=g)
    _, factors = random_cp(shape, 3, dtype=dtype)
    core, matrices = tucker_model(shape, dtype)
    eps = 2.0**-53 if double else torch.finfo(dtype).eps
    exact_x, exact_core, *exact = wide(x, core, *factors, *matrices)
    cp, tucker = exact[: len(shape)], exact[len(shape) :]
    expected = torch.linalg.vector_norm(exact_x - reference.cp_to_tensor(None, cp))
    found = cp_residual_norm(x, factors, double=double)
    assert found == pytest.approx(float(expected), rel=100 * eps)
    expected = torch.linalg.vector_norm(exact_x - reference.tucker_to_tensor(exact_core, tucker))
    found = tucker_residual_norm(x, core, matrices, double=double)
    assert found == pytest.approx(float(expected), rel=100 * eps)


@pytest.mark.parametrize("scale", [2.0**530, 2.0**-570])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("elements", [reconstruct.SLAB, 7])
def test_norms_at_any_scale(scale, dtype, elements, monkeypatch):
    """Squares over- or underflow; with a power of two for a scale, nothing else changes."""
    monkeypatch.setattr(reconstruct, "SLAB", elements)
    x = torch.randn(5, 6, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    _, factors = random_cp(x.shape, 3, dtype=dtype)
    core, matrices = tucker_model(x.shape, dtype)
    assert norm(scale * x) / scale == pytest.approx(norm(x), rel=1e-14)
    one, two = (
        (
            norm(s * x.mT),
            cp_residual_norm(s * x, [s * factors[0], *factors[1:]], double=True),
            tucker_residual_norm(s * x, s * core, matrices),
        )
        for s in (1.0, scale)
    )
    assert [value / scale for value in two] == pytest.approx(one, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
def test_norms_of_nothing_and_of_what_is_not_finite(dtype):
    for value in (0.0, math.inf, math.nan):
        found = norm(torch.full((3, 4), value, dtype=dtype))
        assert found == pytest.approx(value, nan_ok=True)


ONES = [torch.ones(3, 2), torch.ones(4, 2)]


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (
            (None, [ONES[0], torch.ones(4, 3)]),
            ValueError,
            r"\[1\] has shape \(4, 3\); expected \(4, 2\)",
        ),
        ((torch.ones(3), ONES), ValueError, r"weights has shape \(3,\); expected \(2,\)"),
        ((None, [torch.ones(3)]), ValueError, r"factors\[0\] has shape \(3,\); expected a matrix"),
        ((None, []), ValueError, "expected at least one"),
        ((None, [torch.ones(3, 0)]), ValueError, "expected rank 1 or more"),
        ((None, ONES[0]), TypeError, "factors is Tensor; expected a sequence of arrays"),
        ((None, ["a"]), TypeError, r"factors\[0\] is str; expected an array"),
        (("a", ONES), TypeError, "weights is str; expected an array"),
        (7, TypeError, r"got int; expected a CPTensor or \(weights, factors\)"),
        (
            (None, [ONES[0], ONES[1].to("meta")]),
            ValueError,
            r"factors\[1\] is on meta but factors\[0\] is on cpu; expected the same device",
        ),
        ((torch.ones(2, device="meta"), ONES), ValueError, "weights is on meta but factors"),
    ],
    ids=[
        "ranks",
        "weights",
        "vector",
        "none",
        "no columns",
        "array",
        "string",
        "name",
        "no pair",
        "device",
        "weights' device",
    ],
)
def test_cp_models_that_do_not_fit(model, error, text):
    with pytest.raises(error, match=f"^cp_to_tensor: .*{text}"):
        tf.cp_to_tensor(model)


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        ((torch.ones(2, 2), ONES[:1]), ValueError, "got 1 factors? but the core has 2 modes"),
        (
            (torch.ones(3), ONES[:1]),
            ValueError,
            r"\[0\] has shape \(3, 2\) but core.shape\[0\] is 3",
        ),
        ((torch.ones(2), [torch.ones(2)]), ValueError, r"factors\[0\] has shape \(2,\)"),
        ((None, ONES), TypeError, "core is NoneType; expected an array"),
        (7, TypeError, r"got int; expected a TuckerTensor or \(core, factors\)"),
        ((torch.ones(2, 2, device="meta"), ONES), ValueError, "core is on meta but factors"),
    ],
    ids=["modes", "ranks", "vector", "no core", "no pair", "device"],
)
def test_tucker_models_that_do_not_fit(model, error, text):
    with pytest.raises(error, match=f"^tucker_to_tensor: .*{text}"):
        tf.tucker_to_tensor(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("layout", ["C", "permuted", "strided"])
def test_inner_products_and_residuals_of_several_models(dtype, layout, monkeypatch):
    """Held to the formulas in double precision, whole and cut into many boxes."""
    shape, ranks = (6, 5, 7), (3, 1, 2)
    x = normal((12, 5, 14), dtype)[::2, :, ::2] if layout == "strided" else normal(shape, dtype)
    if layout == "permuted":
        x = normal((7, 6, 5), dtype).permute(1, 2, 0)
    computing = precision.compute_dtype(dtype)
    models = [[normal((n, r), computing, seed=r) for n in shape] for r in ranks]
    wide = x.to(precision.solve_dtype(dtype))
    u = precision.unit_roundoff(torch.float64)
    for elements in (1 << 20, 20):
        monkeypatch.setattr(reconstruct, "SLAB", elements)
        norms = reconstruct.cp_residual_norms(x, models)
        for factors, found in zip(models, norms, strict=True):
            own = [f.to(wide.dtype) for f in factors]
            terms = wide[..., None] * torch.einsum("ir,jr,kr->ijkr", *own).conj()
            got = reconstruct.cp_inner_products(x, factors)
            # As many products of four numbers as x has entries.
            reach = 2 * (x.numel() + 4) * u * terms.abs().sum((0, 1, 2))
            assert ((got - terms.sum((0, 1, 2)).real).abs() <= reach).all()
            gap = wide - torch.einsum("ir,jr,kr->ijk", *own)
            size = wide.abs() + torch.einsum("ir,jr,kr->ijk", *(f.abs() for f in own))
            rounding = 8 * precision.unit_roundoff(dtype) * float(torch.linalg.vector_norm(size))
            assert abs(found - float(torch.linalg.vector_norm(gap))) <= rounding
