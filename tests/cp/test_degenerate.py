"""A tensor without a best approximation is told from one that is only hard."""

import re

import numpy as np
import pytest
import torch
from tensorly.datasets import load_indian_pines

import tensorfast as tf
from tensorfast.cp.stopping import DivergenceWatch
from tensorfast.testing import planted, random_cp


def border(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Sum over the modes of ``a o a o ... b ... o a``: border rank 2, rank as many as modes."""
    g = torch.Generator().manual_seed(seed)
    pairs = [torch.linalg.qr(torch.randn(n, 2, dtype=torch.float64, generator=g)).Q for n in shape]
    x = torch.zeros(shape, dtype=torch.float64)
    for place in range(len(shape)):
        term = torch.ones((), dtype=torch.float64)
        for mode, pair in enumerate(pairs):
            term = term[..., None] * pair[:, int(mode == place)]
        x += term
    return x


DIVERGE = r"omponents {} and {} diverge against each other \(cosine -0\.\d+\)"


@pytest.mark.parametrize("shape", [(2, 2, 2), (10, 12, 9), (4, 5, 6, 3)], ids=str)
@pytest.mark.parametrize("sweeps", [100, 127, 128, 150, 256, 700])
@pytest.mark.parametrize("init", ["random", "svd"])
def test_border_rank_at_several_lengths_of_run(shape, sweeps, init):
    for seed in range(2):
        model = tf.cp_als(border(shape, seed), 2, init=init, seed=seed, n_iter_max=sweeps, tol=0)
        info = model.info
        assert info.status == "degenerate", (seed, info)
        assert not info.converged
        assert info.n_iter == sweeps
        assert re.search(DIVERGE.format(0, 1), info.message)
        assert "no best approximation of this rank" in info.message
        assert "lower the rank" in info.message
        assert all(torch.isfinite(f).all() for f in model.factors)


@pytest.mark.parametrize("init", ["random", "svd"])
def test_the_symmetric_border_rank_tensor(init):
    """Its singular vectors are a saddle point of ALS, where a start must not rest."""
    x = torch.zeros(2, 2, 2, dtype=torch.float64)
    x[0, 0, 1] = x[0, 1, 0] = x[1, 0, 0] = 1
    for seed in range(3):
        info = tf.cp_als(x, 2, init=init, seed=seed, n_iter_max=200, tol=0).info
        assert info.status == "degenerate", (seed, info)
        assert info.rel_errors[-1] < 0.05


def test_border_rank_with_every_default():
    assert tf.cp_als(border((40, 30, 20), 0), 2, seed=0).info.status == "degenerate"


@pytest.mark.parametrize("tol", [1e-6, 1e-8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_border_rank_with_a_stopping_rule(dtype, tol):
    for seed in range(4):
        x = border((6, 5, 7), seed).to(dtype)
        info = tf.cp_als(x, 2, init="random", seed=seed, n_iter_max=1000, tol=tol).info
        assert info.status == "degenerate", (seed, info)


def test_border_rank_beside_a_well_posed_component():
    """The two that diverge are named, the third is not."""
    found = 0
    for seed in range(5):
        u, v = border((8, 8, 8), seed), planted((8, 8, 8), 1, seed=seed)[0]
        model = tf.cp_als(u + v, 3, init="random", seed=seed, n_iter_max=600, tol=0)
        if model.info.status == "degenerate":
            found += 1
            cosines = tf.congruence(model, model)
            r, s = divmod(int(cosines.argmin()), 3)
            assert re.search(DIVERGE.format(min(r, s), max(r, s)), model.info.message)
    assert found >= 4


def test_bounding_the_factors_is_a_remedy():
    info = tf.cp_als(border((6, 5, 7), 0), 2, seed=0, l2_reg=1e-2, n_iter_max=400).info
    assert info.status == "converged"


@pytest.mark.parametrize("shape", [(12, 10, 8), (6, 7, 5, 4), (3, 20, 9)], ids=str)
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("init", ["random", "svd"])
def test_well_posed_problems_are_not_degenerate(shape, noise, init):
    for seed in range(5):
        for sweeps in (20, 100):
            x, _ = planted(shape, 3, noise=noise, seed=seed)
            model = tf.cp_als(x, 3, init=init, seed=seed, n_iter_max=sweeps)
            assert model.info.status != "degenerate", (seed, sweeps, model.info.message)


@pytest.mark.parametrize("congruence", [0.5, 0.8, 0.9])
def test_collinear_components_are_hard_and_not_degenerate(congruence):
    """A swamp: components side by side, which cancel for a while on the way."""
    for seed in range(5):
        weights, factors = random_cp((12, 11, 10), 3, seed=seed, congruence=congruence)
        x = tf.cp_to_tensor((weights, factors))
        info = tf.cp_als(x, 3, seed=seed, n_iter_max=500, tol=1e-9).info
        assert info.status != "degenerate", (seed, info.message)


@pytest.mark.parametrize("rank", [2, 3])
def test_nonnegative_data_are_not_degenerate(rank):
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        factors = [torch.rand(n, rank, dtype=torch.float64, generator=g) for n in (15, 12, 10)]
        x = tf.cp_to_tensor((None, factors))
        info = tf.cp_als(x, rank, seed=seed, n_iter_max=300).info
        assert info.status != "degenerate", (seed, info.message)


def grams(length: float, cosine: float) -> list[torch.Tensor]:
    inner = torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64)
    return [length**2 * inner, torch.ones_like(inner), torch.ones_like(inner)]


def with_sum(together: float, length: float) -> list[torch.Tensor]:
    """Two components of one length whose sum has another."""
    return grams(length, together**2 / (2 * length**2) - 1)


@pytest.mark.parametrize(
    ("length", "together", "diverges"),
    [
        (lambda t: 2 * t**0.2, lambda t: 1.7, True),
        (lambda t: 2 * t**0.01, lambda t: 1.7, False),
        (lambda t: 2 * t**-0.2, lambda t: 1.7, False),
        (lambda t: 2 * t**0.2, lambda t: 1.7 * t**0.1, False),
        (lambda t: 20 * t**0.2, lambda t: 1.7 * t**0.1, True),
        (lambda t: 20 * t**0.2, lambda t: 25 * t**0.1, False),
        (lambda t: 1.2 + 0.2 * t**0.2, lambda t: 1.7, False),
    ],
    ids=[
        "grow, sum stands still",
        "stand still",
        "shrink",
        "grow, and so does the sum",
        "grow, nearly opposite",
        "grow, far from opposite",
        "grow, hardly opposite",
    ],
)
def test_the_watch_asks_for_growth_that_cancels(length, together, diverges):
    watch = DivergenceWatch()
    for sweep in range(1, 101):
        watch.record(sweep, with_sum(together(sweep / 64), length(sweep / 64)))
    for sweep in (100, 64):
        found = watch.diverging(sweep, with_sum(together(sweep / 64), length(sweep / 64)))
        assert (found is not None) == diverges
        if diverges:
            assert found[:2] == (0, 1)
            assert -1 < found[2] < -0.6


def test_cancellation_for_a_while_is_not_divergence():
    """Components of a hyperspectral image cancel in part: each pair grows, but so does its sum."""
    cube = np.asarray(load_indian_pines().tensor, dtype=np.float32)[::2, ::2, ::2]
    for rank in (2, 5, 10, 20):
        info = tf.cp_als(cube, rank, n_iter_max=200, tol=1e-7).info
        assert info.status != "degenerate", (rank, info.message)


def test_the_watch_says_nothing_after_few_sweeps():
    watch = DivergenceWatch()
    for sweep in range(1, 32):
        watch.record(sweep, grams(float(sweep), -1 + 0.01 / sweep))
    assert watch.diverging(31, grams(31.0, -1 + 0.01 / 31)) is None


def test_a_vanished_component_is_no_opposite():
    watch = DivergenceWatch()
    zero = [torch.zeros(2, 2, dtype=torch.float64)] * 3
    for sweep in range(1, 101):
        watch.record(sweep, zero)
    assert watch.diverging(100, zero) is None
