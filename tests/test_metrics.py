"""Match scores, congruences and core consistency, against formulas written out."""

import itertools
import math

import numpy as np
import pytest
import pyttb
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import tensorfast as tf
from tensorfast import reference
from tensorfast.metrics import core_consistencies
from tensorfast.testing import planted, random_cp


def shuffled(model, seed: int):
    """Describe the same tensor by other components' order, lengths and signs."""
    weights, factors = model
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(weights), generator=rng)
    scales = [torch.rand(len(weights), generator=rng, dtype=torch.float64) + 0.5 for _ in factors]
    scales[0] = -scales[0]
    scales[1] = -scales[1]
    moved = [(f * s)[:, order] for f, s in zip(factors, scales, strict=True)]
    return (weights / torch.stack(scales).prod(0))[order], moved


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(0, 10**6), st.integers(2, 4))
def test_a_match_ignores_order_scale_and_signs_in_pairs(rank, seed, ndim):
    model = random_cp((6, 7, 5, 8)[:ndim], rank, seed=seed)
    assert 1 - 1e-12 < tf.factor_match_score(model, shuffled(model, seed)) <= 1
    assert tf.factor_match_score(shuffled(model, seed), model) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("weight_penalty", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_match_score_against_every_matching(seed, weight_penalty):
    a, b = random_cp((6, 7, 5), 4, seed=seed), random_cp((6, 7, 5), 4, seed=seed + 100)
    b = (b[0] * 1.3, [0.7 * f + 0.3 * g for f, g in zip(a[1], b[1], strict=True)])
    b[1][0][:, 1] *= -1
    lengths = [
        w * torch.stack([torch.linalg.vector_norm(f, dim=0) for f in factors]).prod(0)
        for w, factors in (a, b)
    ]
    best = 0.0
    for order in itertools.permutations(range(4)):
        total = 0.0
        for r, s in enumerate(order):
            score = 1.0
            for f, g in zip(a[1], b[1], strict=True):
                score *= float(f[:, r] @ g[:, s] / f[:, r].norm() / g[:, s].norm())
            one, two = float(lengths[0][r]), float(lengths[1][s])
            penalty = 1 - abs(one - two) / max(one, two) if weight_penalty else 1.0
            total += penalty * abs(score)
        best = max(best, total / 4)
    found = tf.factor_match_score(a, b, weight_penalty=weight_penalty)
    assert found == pytest.approx(best, rel=1e-10)
    assert 0 < found < 1


@pytest.mark.parametrize("weight_penalty", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_match_score_against_pyttb(seed, weight_penalty):
    a = random_cp((6, 7, 5), 3, seed=seed)
    noise = random_cp((6, 7, 5), 3, seed=99)[1]
    b = shuffled((a[0], [f + 0.05 * e for f, e in zip(a[1], noise, strict=True)]), seed)
    kernels = [
        pyttb.ktensor([np.asfortranarray(f.numpy()) for f in factors], w.numpy().copy())
        for w, factors in (a, b)
    ]
    theirs = kernels[0].score(kernels[1], weight_penalty=weight_penalty)[0]
    ours = tf.factor_match_score(a, b, weight_penalty=weight_penalty)
    assert ours == pytest.approx(theirs, rel=1e-10)


def test_match_score_of_different_ranks():
    """What stays unmatched counts as nothing."""
    weights, factors = random_cp((6, 7, 5), 4)
    part = weights[:3], [f[:, :3] for f in factors]
    assert tf.factor_match_score((weights, factors), part) == pytest.approx(0.75)
    assert tf.factor_match_score(part, (weights, factors)) == pytest.approx(0.75)


def test_match_score_of_nothing_and_of_complex():
    zero = (None, [torch.zeros(3, 2), torch.zeros(4, 2)])
    ones = (None, [torch.ones(3, 2), torch.ones(4, 2)])
    assert tf.factor_match_score(zero, ones) == 0
    model = random_cp((6, 7, 5), 3, dtype=torch.complex128)
    turned = model[0], [model[1][0] * 1j, model[1][1] * -1j, model[1][2]]
    assert tf.factor_match_score(model, turned) == pytest.approx(1)
    real = (model[0], [f.real.contiguous() for f in model[1]])
    both = tf.factor_match_score(real, (model[0], [f + 0j for f in real[1]]))
    assert both == pytest.approx(1)


def test_congruence():
    a, b = random_cp((6, 7, 5), 4, seed=1), random_cp((6, 7, 5), 3, seed=2)
    signs = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    table = tf.congruence(a, (signs, b[1]))
    assert table.shape == (4, 3)
    for r, s in itertools.product(range(4), range(3)):
        one = reference.cp_to_tensor(None, [f[:, r : r + 1] for f in a[1]])
        two = reference.cp_to_tensor(signs[s : s + 1], [f[:, s : s + 1] for f in b[1]])
        cosine = (one * two).sum() / one.norm() / two.norm()
        assert float(table[r, s]) == pytest.approx(float(cosine))
    # All cosines within a mode are 0.3 by construction, so theirs over three modes 0.027.
    expected = torch.full((4, 4), 0.3**3, dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(tf.congruence(a, a), expected)


@pytest.mark.parametrize("scale", [1e160, 1e-170])
def test_a_match_at_any_scale(scale):
    """The lengths themselves may be beyond what a number can hold."""
    weights, factors = random_cp((6, 7, 5), 4)
    twice = 2 * scale * weights, factors
    for model in (
        (scale * weights, factors),
        (weights, [factors[0] * scale, *factors[1:]]),
        (weights, [factors[0] * scale**-1, factors[1] * scale, factors[2] * scale]),
    ):
        assert tf.factor_match_score(model, model) == pytest.approx(1, abs=1e-12)
        assert tf.factor_match_score(model, twice) == pytest.approx(0.5, abs=1e-10)
        torch.testing.assert_close(tf.congruence(model, twice), tf.congruence(twice, twice))
    beyond = weights, [scale * f for f in factors]
    assert tf.factor_match_score(beyond, beyond) == pytest.approx(1, abs=1e-12)
    assert tf.factor_match_score(beyond, (2 * weights, beyond[1])) == pytest.approx(0.5)


def test_a_match_of_components_of_very_different_lengths():
    weights = torch.tensor([1.0, 1e-200, 0.0], dtype=torch.float64)
    model = weights, random_cp((6, 7, 5), 3)[1]
    assert tf.factor_match_score(model, model) == pytest.approx(2 / 3)
    assert tf.factor_match_score(model, model, weight_penalty=False) == pytest.approx(2 / 3)


def test_congruence_is_differentiable():
    (weights, factors), other = random_cp((4, 5), 2), random_cp((4, 5), 3, seed=1)
    for f in (weights, *factors):
        f.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, *f: tf.congruence((w, f), other), (weights, *factors))


def test_congruence_answers_in_kind():
    model = (np.ones(2), [np.ones((3, 2)), np.ones((4, 2))])
    assert type(tf.congruence(model, model)) is np.ndarray
    vanished = (None, [np.zeros((3, 1)), np.ones((4, 1))])
    assert np.array_equal(tf.congruence(vanished, model), np.zeros((1, 2)))


def literal_core_consistency(x: np.ndarray, weights, factors) -> float:
    """One large least-squares problem, the Kronecker product of all factors written out."""
    factors = [factors[0] * weights, *factors[1:]]
    kronecker = np.ones((1, 1))
    for f in factors:
        kronecker = np.kron(kronecker, f)
    core = np.linalg.lstsq(kronecker, x.reshape(-1), rcond=None)[0]
    rank = factors[0].shape[1]
    ideal = np.zeros((rank,) * x.ndim)
    ideal[(np.arange(rank),) * x.ndim] = 1
    return 100 * (1 - ((core - ideal.reshape(-1)) ** 2).sum() / rank)


@pytest.mark.parametrize("shape", [(7, 6, 5), (5, 4, 3, 4), (8, 7)], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_core_consistency_against_the_formula(shape, rank, dtype):
    x, (weights, factors) = planted(shape, rank, noise=0.3)
    expected = literal_core_consistency(x.numpy(), weights.numpy(), [f.numpy() for f in factors])
    found = tf.core_consistency(x.to(dtype), (weights.to(dtype), [f.to(dtype) for f in factors]))
    assert found == pytest.approx(expected, abs=1e-3 if dtype == torch.float32 else 1e-8)
    array = x.to(dtype).numpy()
    assert tf.core_consistency(array, (weights, factors)) == pytest.approx(expected, abs=1e-3)


def test_core_consistencies_from_one_read():
    """Of several ranks, each as by the formula, whichever mode is the longest."""
    for shape in ((6, 5, 7), (3, 9, 4, 2)):
        x, _ = planted(shape, 2, noise=0.3)
        models = [random_cp(shape, rank, seed=rank, dtype=torch.float64) for rank in (3, 1, 2)]
        given = [[f[0] * w, *f[1:]] for w, f in models]
        found = core_consistencies(x.permute(*range(x.ndim)), given)
        for (weights, factors), value in zip(models, found, strict=True):
            arrays = weights.numpy(), [f.numpy() for f in factors]
            assert value == pytest.approx(literal_core_consistency(x.numpy(), *arrays), rel=1e-9)


def test_core_consistency_of_complex_factors_of_real_data():
    """The data's type does not decide what the factors are."""
    x, (weights, factors) = planted((7, 6, 5), 2, noise=0.3)
    turned = [factors[0] * 1j, factors[1] * -1j, factors[2].to(torch.complex64)]
    expected = tf.core_consistency(x, (weights, factors))
    assert tf.core_consistency(x, (weights, turned)) == pytest.approx(expected, abs=1e-4)
    assert tf.core_consistency(x + 0j, (weights, factors)) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e160, 1e-170])
def test_core_consistency_at_any_scale(scale):
    x, (weights, factors) = planted((7, 6, 5), 2, noise=0.3)
    expected = tf.core_consistency(x, (weights, factors))
    found = tf.core_consistency(scale * x, (scale * weights, factors))
    assert found == pytest.approx(expected)


def test_core_consistency_tells_the_rank():
    x, _ = planted((12, 11, 10), 3, noise=0.05)
    values = [
        tf.core_consistency(x, tf.cp_als(x, rank, seed=1, n_iter_max=100)) for rank in (2, 3, 5)
    ]
    assert values[0] > 90
    assert values[1] > 99
    assert values[2] < 50


NAMES = {"relative_error": tf.relative_error, "core_consistency": tf.core_consistency}
ONES = [torch.ones(n, 2) for n in (3, 4, 5)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        ((None, ONES[:2]), ValueError, "got 2 factors but x has 3 modes"),
        (
            (None, [ONES[0]] * 3),
            ValueError,
            r"factors\[1\] has shape \(3, 2\) but x.shape\[1\] is 4",
        ),
        ((torch.ones(3), ONES), ValueError, r"weights has shape \(3,\); expected \(2,\)"),
        ((None, [f[:, 0] for f in ONES]), ValueError, r"factors\[0\].* \(3,\); expected a matrix"),
        (3, TypeError, "got int; expected a CPTensor"),
        ((None, "abc"), TypeError, "factors is str; expected a sequence of arrays"),
    ],
    ids=["too few", "shape", "weights", "vectors", "no pair", "string"],
)
def test_models_that_do_not_fit(name, model, error, text):
    with pytest.raises(error, match=f"^{name}: {text}"):
        NAMES[name](torch.ones(3, 4, 5), model)


def test_tucker_models_that_do_not_fit():
    factors = [torch.ones(n, 2) for n in (3, 4, 6)]
    with pytest.raises(
        ValueError, match=r"the model has shape \(3, 4, 6\) but x has shape \(3, 4, 5\)"
    ):
        tf.relative_error(torch.ones(3, 4, 5), (torch.ones(2, 2, 2), factors))
    with pytest.raises(
        ValueError, match=r"factors\[2\] has shape \(6, 2\) but core.shape\[2\] is 3"
    ):
        tf.relative_error(torch.ones(3, 4, 6), (torch.ones(2, 2, 3), factors))


def with_one(value: float, x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[(1,) * x.ndim] = value
    return x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(name, value):
    x = torch.ones(3, 4, 5)
    weights = torch.ones(2)
    for data, model, where in (
        (with_one(value, x), (weights, ONES), r"x has 1 non-finite values of 60.* \(1, 1, 1\)"),
        (x, (with_one(value, weights), ONES), r"weights has 1 .* of 2, the first at \(1,\)"),
        (x, (None, [with_one(value, ONES[0]), *ONES[1:]]), r"factors\[0\] has 1 .* \(1, 1\)"),
        (x, (None, [*ONES[:2], with_one(value, ONES[2])]), r"factors\[2\] has 1 .* \(1, 1\)"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: {where}"):
            NAMES[name](data, model)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_in_other_models_is_named(value):
    x, core = torch.ones(3, 4, 5), torch.ones(2, 2, 2)
    with pytest.raises(ValueError, match=r"^relative_error: core has 1 .* at \(1, 1, 1\)"):
        tf.relative_error(x, (with_one(value, core), ONES))
    bad = None, [ONES[0], with_one(value, ONES[1]), ONES[2]]
    for pair in ((bad, (None, ONES)), ((None, ONES), bad)):
        for penalty in (True, False):
            with pytest.raises(ValueError, match=r"^factor_match_score: factors\[1\] has 1 non-f"):
                tf.factor_match_score(*pair, weight_penalty=penalty)


def test_models_on_different_devices():
    here, there = (None, ONES), (None, [f.to("meta") for f in ONES])
    x, core = torch.ones(3, 4, 5), torch.ones(2, 2, 2, device="meta")
    for call in NAMES.values():
        with pytest.raises(ValueError, match=r"factors\[0\] is on meta but x is on cpu"):
            call(x, there)
    with pytest.raises(ValueError, match=r"factors\[0\] is on meta but x is on cpu"):
        tf.relative_error(x, (core, there[1]))
    for call in (tf.factor_match_score, tf.congruence):
        with pytest.raises(ValueError, match="the second is on meta but the first model is on cpu"):
            call(here, there)


@pytest.mark.parametrize("call", [tf.factor_match_score, tf.congruence])
def test_empty_models(call):
    model = None, [torch.ones(3, 2), torch.ones(0, 2)]
    with pytest.raises(ValueError, match=rf"^{call.__name__}: factors\[1\].shape\[0\] is 0"):
        call(model, model)


X, MODEL = planted((7, 6, 5), 2, noise=0.3, dtype=torch.float32)
OTHER = random_cp(X.shape, 3, dtype=torch.float32)
TUCKER = torch.diag_embed(torch.ones(2, 2)), MODEL[1]
CALLS = {
    "cp_to_tensor": lambda: tf.cp_to_tensor(MODEL).tolist(),
    "tucker_to_tensor": lambda: tf.tucker_to_tensor(TUCKER).tolist(),
    "relative_error CP": lambda: tf.relative_error(X, MODEL),
    "relative_error Tucker": lambda: tf.relative_error(X, TUCKER),
    "core_consistency": lambda: tf.core_consistency(X, MODEL),
    "congruence": lambda: tf.congruence(MODEL, OTHER).tolist(),
    "factor_match_score": lambda: tf.factor_match_score(MODEL, OTHER),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@each_call
def test_autocast_changes_nothing(call):
    plain = call()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert call() == plain


class Products(TorchDispatchMode):
    """Note the precision that torch is set to at every matrix product."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "mm" in func.name():
            self.seen.add(torch.backends.mkldnn.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def medium():
    """Let torch compute float32 products in bfloat16 where the CPU can."""
    setting = torch.backends.mkldnn.matmul
    setting.fp32_precision = "bf16"
    yield
    setting.fp32_precision = "none"


@each_call
@pytest.mark.usefixtures("medium")
def test_products_are_held_to_full_precision(call):
    with Products() as products:
        call()
    assert products.seen == {"ieee"}


@pytest.mark.parametrize("call", [tf.factor_match_score, tf.congruence])
def test_models_of_different_shapes(call):
    a, b = random_cp((3, 4, 5), 2), random_cp((3, 4, 6), 2)
    text = r"the models have shapes \(3, 4, 5\) and \(3, 4, 6\); expected one shape"
    with pytest.raises(ValueError, match=f"{call.__name__}: {text}"):
        call(a, b)
