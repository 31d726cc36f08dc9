"""What `cp_als` finds, and what each of its options does."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorfast as tf
from tensorfast import reference
from tensorfast.testing import PROBLEMS, planted, random_cp

SMALL = (7, 6, 5)


def exact_error(x, model) -> float:
    weights, factors = model
    residual = x - reference.cp_to_tensor(weights, factors)
    return float(torch.linalg.vector_norm(residual) / torch.linalg.vector_norm(x))


def same(a, b) -> bool:
    return all(torch.equal(f, g) for f, g in zip((a[0], *a[1]), (b[0], *b[1]), strict=True))


@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize(
    ("shape", "rank"),
    [((12, 11, 13), 4), ((9, 10, 11), 1), ((6, 7, 5, 8), 3), ((4, 5, 3, 4, 6), 2)],
)
def test_planted_factors_are_recovered(shape, rank, init):
    x, truth = planted(shape, rank)
    model = tf.cp_als(x, rank, init=init, seed=3, n_iter_max=2000, tol=1e-12)
    assert tf.factor_match_score(model, truth) > 1 - 1e-6
    assert model.info.converged


@pytest.mark.parametrize("noise", [1e-4, 1e-2])
def test_planted_factors_are_recovered_from_noise(noise):
    x, truth = planted((20, 18, 16), 3, noise=noise)
    model = tf.cp_als(x, 3, seed=0, n_iter_max=500, tol=1e-10)
    # The truth is one model among those that least squares chooses from.
    assert model.info.rel_errors[-1] <= tf.relative_error(x, truth)
    assert tf.factor_match_score(model, truth) > 1 - 3 * noise


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_every_named_problem(problem, dtype):
    x, _ = planted(problem.shape, problem.rank, noise=0.01, dtype=dtype)
    model = tf.cp_als(x, problem.rank, seed=0, n_iter_max=20)
    assert model.shape == problem.shape
    assert model.rank == problem.rank
    assert model.factors[0].dtype == dtype
    assert model.weights.dtype == torch.empty(0, dtype=dtype).real.dtype
    assert model.info.rel_errors[-1] == pytest.approx(exact_error(x, model), rel=0.02, abs=1e-5)
    assert model.info.rel_errors[-1] < 0.9


def test_a_matrix_at_rank_r_is_its_truncated_svd():
    """With two modes ALS is orthogonal iteration, and the answer is known."""
    x, _ = planted((12, 9), 5, noise=0.1)
    singular = torch.linalg.svdvals(x)
    best = float(singular[3:].norm() / singular.norm())
    model = tf.cp_als(x, 3, seed=0, n_iter_max=1000, tol=1e-14)
    assert model.info.rel_errors[-1] == pytest.approx(best, rel=1e-6)


def test_normalize_moves_lengths_into_weights():
    x, _ = planted(SMALL, 3, noise=0.1)
    options = {"seed": 0, "n_iter_max": 8, "tol": 0}
    unit = tf.cp_als(x, 3, **options)
    plain = tf.cp_als(x, 3, normalize=False, **options)
    ones = torch.ones(3, dtype=x.dtype)
    for f in unit.factors:
        torch.testing.assert_close(torch.linalg.vector_norm(f, dim=0), ones)
    assert torch.equal(plain.weights, ones)
    assert unit.info == plain.info
    lengths = functools.reduce(
        torch.mul, [torch.linalg.vector_norm(f, dim=0) for f in plain.factors]
    )
    torch.testing.assert_close(unit.weights, lengths)
    torch.testing.assert_close(tf.cp_to_tensor(unit), tf.cp_to_tensor(plain))


def test_normalize_leaves_fixed_modes_as_given():
    x, (weights, factors) = planted(SMALL, 3, noise=0.1)
    kept = 2.5 * factors[1]
    model = tf.cp_als(x, 3, init=(weights, [factors[0], kept, factors[2]]), fixed_modes=[1])
    assert torch.equal(model.factors[1], kept)
    for n in (0, 2):
        lengths = torch.linalg.vector_norm(model.factors[n], dim=0)
        torch.testing.assert_close(lengths, torch.ones(3, dtype=x.dtype))
    assert exact_error(x, model) == pytest.approx(model.info.rel_errors[-1], rel=1e-6)


@pytest.mark.parametrize("fixed", [(0,), (1,), (-1,), (0, 1), (0, 2), [2, 1], {1}], ids=str)
def test_fixed_modes_are_kept_and_the_others_solved_for(fixed):
    x, (weights, factors) = planted(SMALL, 2)
    start = random_cp(SMALL, 2, seed=9)[1]
    for n in fixed:
        start[n] = factors[n]
    model = tf.cp_als(x, 2, init=(None, start), fixed_modes=fixed, n_iter_max=500, tol=1e-13)
    for n in fixed:
        assert torch.equal(model.factors[n], factors[n])
    assert tf.factor_match_score(model, (weights, factors)) > 1 - 1e-5


def test_the_weights_of_a_start_count_once_in_a_free_mode():
    """Not in a fixed one; and the one mode that is free is solved for, whatever it was."""
    x, (weights, factors) = planted(SMALL, 2)
    model = tf.cp_als(x, 2, init=(weights, factors), fixed_modes=(0, 1), n_iter_max=1)
    assert torch.equal(model.factors[0], factors[0])
    assert exact_error(x, model) < 1e-14


@pytest.mark.parametrize("l2_reg", [1e-3, 0.1, 10.0])
def test_l2_reg_is_ridge_regression_mode_after_mode(l2_reg):
    """Against dense ridge regression on the unfolded tensor, a stacked least-squares problem."""
    x, _ = planted(SMALL, 3, noise=0.1)
    start = random_cp(SMALL, 3, seed=4)[1]
    model = tf.cp_als(x, 3, init=(None, start), l2_reg=l2_reg, n_iter_max=6, tol=0, normalize=False)
    factors = [f.numpy() for f in start]
    for _ in range(6):
        for n in range(3):
            others = [torch.from_numpy(f) for m, f in enumerate(factors) if m != n]
            design = np.vstack([reference.khatri_rao(others), l2_reg**0.5 * np.eye(3)])
            target = np.vstack([tf.unfold(x, n).T, np.zeros((3, SMALL[n]))])
            factors[n] = np.linalg.lstsq(design, target, rcond=None)[0].T
    for got, want in zip(model.factors, factors, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def test_l2_reg_counts_against_the_lengths_of_factors():
    x, _ = planted(SMALL, 3, noise=0.1)
    sizes, errors = [], []
    for l2_reg in (0.0, 1e-2, 1e-1):
        model = tf.cp_als(x, 3, seed=0, l2_reg=l2_reg, n_iter_max=300, normalize=False)
        sizes.append(sum(float(f.square().sum()) for f in model.factors))
        errors.append(model.info.rel_errors[-1])
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25, 1e30])
@pytest.mark.parametrize("fixed", [(), (1,)], ids=str)
def test_l2_reg_at_any_scale_of_the_data(scale, fixed):
    """With factors that scale by ``scale^(1/3)`` and ``l2_reg`` to match, the model just scales."""
    x, _ = planted(SMALL, 2, noise=0.1)
    start = random_cp(SMALL, 2, seed=4)[1]
    each, arguments = scale ** (1 / 3), {"n_iter_max": 8, "tol": 0, "fixed_modes": fixed}
    plain = tf.cp_als(x, 2, init=(None, start), l2_reg=0.2, normalize=False, **arguments)
    start32 = [(f * each).float() for f in start]
    big = tf.cp_als(
        (x * scale).float(),
        2,
        init=(None, start32),
        l2_reg=0.2 * scale ** (4 / 3),
        normalize=False,
        **arguments,
    )
    for n, (a, b) in enumerate(zip(plain.factors, big.factors, strict=True)):
        torch.testing.assert_close((a * each).float(), b, rtol=1e-4, atol=1e-5 * each)
        assert n not in fixed or torch.equal(b, start32[n])
    assert big.info.rel_errors == pytest.approx(plain.info.rel_errors, rel=1e-4)


def test_l2_reg_far_beyond_the_data_leaves_zero():
    x = torch.full((3, 3, 3), 1e-300, dtype=torch.float64)
    model = tf.cp_als(x, 1, l2_reg=1e3, seed=0)
    assert float(model.weights) == 0
    assert model.info.rel_errors[-1] == 1.0


def test_an_error_that_rises_under_l2_reg_is_not_rounding():
    """The regular objective falls, at the cost of the fit."""
    x, truth = planted(SMALL, 3, noise=0.1)
    info = tf.cp_als(x, 3, init=truth, l2_reg=0.5, n_iter_max=500).info
    assert info.rel_errors[1] > info.rel_errors[0] + 1e-2
    assert info.status == "converged"
    assert info.n_iter > 3


@pytest.mark.parametrize("kind", ["CPTensor", "tuple", "list", "no weights", "numpy"])
def test_a_given_start_is_used_and_not_touched(kind):
    x, _ = planted(SMALL, 3, noise=0.1)
    weights, factors = random_cp(SMALL, 3, seed=2)
    start = {
        "CPTensor": tf.CPTensor(weights, factors),
        "tuple": (weights, tuple(factors)),
        "list": [weights, factors],
        "no weights": (None, [factors[0] * weights, *factors[1:]]),
        "numpy": (weights.numpy(), [f.numpy() for f in factors]),
    }[kind]
    before = [f.clone() for f in factors], weights.clone()
    model = tf.cp_als(x, 3, init=start, n_iter_max=3, tol=0)
    assert same((before[1], before[0]), (weights, factors))
    expected = tf.cp_als(x, 3, init=(weights, factors), n_iter_max=3, tol=0)
    assert same(model, expected)
    # One's own result is a start, too, and going on is the same as not having stopped.
    again = tf.cp_als(x, 3, init=expected, n_iter_max=2, tol=0).info.rel_errors
    whole = tf.cp_als(x, 3, init=start, n_iter_max=5, tol=0).info.rel_errors
    np.testing.assert_allclose(again, whole[3:], rtol=1e-10)


@pytest.mark.parametrize("init", ["svd", "random"])
def test_a_seed_gives_the_same_bits(init):
    x, _ = planted((15, 12, 10), 3, noise=0.2, dtype=torch.float32)
    options = {"init": init, "n_iter_max": 5, "tol": 0}
    one, two, other = (tf.cp_als(x, 3, seed=seed, **options) for seed in (7, 7, 8))
    assert same(one, two)
    assert one.info == two.info
    assert not same(one, other)
    state = torch.Generator().manual_seed(7)
    assert same(one, tf.cp_als(x, 3, seed=state, **options))
    # A generator goes on from where it is, and the global one is left alone.
    assert not same(one, tf.cp_als(x, 3, seed=state, **options))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    tf.cp_als(x, 3, seed=7, **options)
    tf.cp_als(x, 3, **options)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_svd_start_is_better_than_chance():
    """The first sweep from the leading singular vectors is nearer than the average random one."""
    x, _ = planted((20, 18, 16), 4, noise=0.05)
    svd = tf.cp_als(x, 4, seed=0, n_iter_max=1).info.rel_errors[0]
    random = [tf.cp_als(x, 4, init="random", seed=s, n_iter_max=1) for s in range(10)]
    assert svd < np.median([model.info.rel_errors[0] for model in random])


@settings(max_examples=20)
@given(st.permutations(range(4)), st.integers(0, 10**6))
def test_permuting_modes_permutes_factors(order, seed):
    """Up to the order of updates: so at the solution, from the same start."""
    shape = (6, 5, 4, 7)
    x, truth = planted(shape, 2, seed=seed % 7)
    noise = random_cp(shape, 2, seed=seed)[1]
    start = [f + 0.1 * e for f, e in zip(truth[1], noise, strict=True)]
    options = {"n_iter_max": 300, "tol": 1e-13}
    plain = tf.cp_als(x, 2, init=(None, start), **options)
    moved = tf.cp_als(x.permute(order), 2, init=(None, [start[n] for n in order]), **options)
    back = moved.weights, [moved.factors[order.index(n)] for n in range(4)]
    assert tf.factor_match_score(plain, back) > 1 - 1e-8


@settings(max_examples=20)
@given(st.floats(-12, 12), st.sampled_from([1, -1]), st.integers(0, 100))
def test_scaling_x_scales_weights(exponent, sign, seed):
    x, _ = planted(SMALL, 2, noise=0.1, seed=seed)
    factor = sign * 10.0**exponent
    plain, scaled = (
        tf.cp_als(y, 2, init="random", seed=seed, n_iter_max=5, tol=0) for y in (x, factor * x)
    )
    torch.testing.assert_close(scaled.weights, abs(factor) * plain.weights, rtol=1e-7, atol=0)
    np.testing.assert_allclose(scaled.info.rel_errors, plain.info.rel_errors, rtol=1e-7)
    model = factor * tf.cp_to_tensor(plain)
    torch.testing.assert_close(
        tf.cp_to_tensor(scaled), model, rtol=0, atol=1e-7 * float(model.abs().max())
    )


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16", None])
def test_precision_changes_nothing_on_a_cpu_nor_torch_settings(precision):
    x, _ = planted(SMALL, 2, noise=0.1, dtype=torch.float32)
    settings_before = torch.get_float32_matmul_precision()
    model = tf.cp_als(x, 2, seed=0, precision=precision, n_iter_max=4)
    assert same(model, tf.cp_als(x, 2, seed=0, n_iter_max=4))
    assert torch.get_float32_matmul_precision() == settings_before


@pytest.mark.parametrize("scale", [1e-30, 1e25])
@pytest.mark.parametrize("fixed", [(), (1,)], ids=str)
def test_a_factor_that_has_all_of_an_extreme_scale(scale, fixed):
    """From a given start it has; its squares are out of the range of the type."""
    x, _ = planted((6, 5, 7), 3, noise=0.2, dtype=torch.float32)
    start = random_cp((6, 5, 7), 2, seed=1, dtype=torch.float32)
    options = {"init": start, "n_iter_max": 8, "tol": 0, "fixed_modes": fixed}
    plain, scaled = (tf.cp_als(y, 2, **options) for y in (x, scale * x))
    torch.testing.assert_close(scaled.weights / scale, plain.weights, rtol=1e-4, atol=0)
    assert tf.relative_error(scale * x, scaled) == pytest.approx(
        scaled.info.rel_errors[-1], rel=1e-4
    )
