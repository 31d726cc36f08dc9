"""What `rank_sweep` finds is what fits one by one find, and what it suggests is the rank."""

import builtins
import dataclasses

import numpy as np
import pytest
import torch

import tensorfast as tf
from tensorfast.convergence import account
from tensorfast.cp.operand import DenseOperand
from tensorfast.results import CPTensor
from tensorfast.testing import planted, random_cp


def fluorescence(seed: int, noise: float = 0.01, samples: int = 5) -> np.ndarray:
    """Make samples of three fluorophores: 201 emission by 61 excitation wavelengths, smooth bands.

    As Bro's amino acids (Chemometrics Intell. Lab. Syst. 38 (1997)): three pure samples and
    mixtures.
    """
    rng = np.random.default_rng(seed)
    emission, excitation = np.linspace(250, 450, 201), np.linspace(240, 300, 61)

    def bands(wavelengths, centres, widths):
        return np.exp(-0.5 * ((wavelengths[:, None] - centres) / widths) ** 2)

    mixed = np.vstack([np.eye(3), rng.uniform(0.2, 0.8, (samples - 3, 3))])
    emitted = bands(emission, np.array([305.0, 350.0, 285.0]), np.array([15.0, 22.0, 12.0]))
    taken = bands(excitation, np.array([275.0, 282.0, 258.0]), np.array([9.0, 11.0, 7.0]))
    x = np.einsum("ir,jr,kr->ijk", mixed, emitted, taken)
    error = rng.standard_normal(x.shape)
    return x + noise * np.linalg.norm(x) / np.linalg.norm(error) * error


@pytest.mark.parametrize("seed", range(5))
def test_the_rank_of_fluorescence_is_found(seed):
    sweep = tf.rank_sweep(fluorescence(seed), range(1, 11), n_init=5, seed=seed)
    assert sweep.suggest() == 3
    assert sweep.ranks == tuple(range(1, 11))
    assert sweep.errors.shape == sweep.matches.shape == (10, 5)
    # The noise, and what of it three components take: as many numbers as they have.
    freedom = 3 * (5 + 201 + 61 - 2) / (5 * 201 * 61)
    left = 0.01 * np.sqrt(1 - freedom)
    assert sweep.best_errors[2] == pytest.approx(left, rel=4 / np.sqrt(2 * 5 * 201 * 61))
    assert sweep.core_consistency[2] > 95
    assert (sweep.core_consistency[3:] < 50).all()
    assert sweep.match[2] > 0.99
    assert (np.diff(sweep.best_errors) < 0).all()


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_from_no_noise_to_much(noise, dtype):
    x = fluorescence(0, noise).astype(dtype)
    assert tf.rank_sweep(x, range(1, 7), n_init=3, seed=0).suggest() == 3


@pytest.mark.parametrize("rank", [1, 2, 4, 5])
@pytest.mark.parametrize("congruence", [0.0, 0.5])
def test_planted_ranks_are_found(rank, congruence):
    """Of four modes, too, and where some starts rest in worse minima."""
    for shape in ((12, 10, 14), (6, 7, 8, 5)):
        truth = random_cp(shape, rank, seed=rank, congruence=congruence, dtype=torch.float64)
        x = tf.cp_to_tensor(truth)
        noise = torch.randn(shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
        x += 0.05 * torch.linalg.vector_norm(x) / torch.linalg.vector_norm(noise) * noise
        sweep = tf.rank_sweep(x, range(1, 8), n_init=5, seed=0)
        assert sweep.suggest() == rank, sweep.table()
        assert tf.factor_match_score(sweep.models[rank - 1], truth) > 0.9


def test_each_is_what_cp_als_finds(monkeypatch):
    """Errors, models and measures, from fewer reads."""
    reads, plain = [], DenseOperand.mttkrps
    monkeypatch.setattr(
        DenseOperand, "mttkrps", lambda *args: reads.append(args[1]) or plain(*args)
    )
    x, _ = planted((9, 8, 10), 3, noise=0.1)
    options = {"n_init": 3, "seed": 4, "tol": 1e-5, "n_iter_max": 50}
    sweep = tf.rank_sweep(x, [5, 1, 3, 2], **options)
    together = len(reads)
    assert sweep.ranks == (1, 2, 3, 5)
    for at, rank in enumerate(sweep.ranks):
        model = tf.cp_als(x, rank, **options)
        best, starts = sweep.models[at], model.info.starts
        assert best.info.message == model.info.message
        assert best.info.starts.status.tolist() == starts.status.tolist()
        np.testing.assert_allclose(sweep.errors[at], starts.rel_error, rtol=1e-7)
        np.testing.assert_allclose(best.info.rel_errors, model.info.rel_errors, rtol=1e-7)
        assert sweep.best_errors[at] == best.info.rel_errors[-1]
        assert tf.factor_match_score(best, model) > 1 - 1e-5
        consistency = tf.core_consistency(x, best)
        assert sweep.core_consistency[at] == pytest.approx(consistency, rel=1e-6)
        for start in range(3):
            init = "random" if start else "svd"
            kept = {k: v for k, v in options.items() if k not in ("n_init", "seed")}
            run = tf.cp_als(x, rank, init=init, seed=4 + start, **kept)
            score = tf.factor_match_score(best, run)
            assert sweep.matches[at, start] == pytest.approx(score, abs=1e-5)
        assert (sweep.matches[at] == 1).any()
    assert together < (len(reads) - together) / 4


def test_kinds_types_and_options():
    x = fluorescence(0).astype(np.float32)[:, ::5, ::3]
    options = {"n_init": 2, "seed": 0, "n_iter_max": 20}
    sweep = tf.rank_sweep(x, range(1, 4), **options)
    assert all(isinstance(f, np.ndarray) for model in sweep.models for f in model.factors)
    assert sweep.models[0].factors[0].dtype == np.float32
    half = tf.rank_sweep(torch.from_numpy(x).bfloat16(), range(1, 4), **options)
    np.testing.assert_allclose(half.best_errors, sweep.best_errors, rtol=0.05, atol=0.01)
    assert half.models[2].factors[0].dtype == torch.float32
    turned = tf.rank_sweep(torch.from_numpy(x) * 1j, range(1, 4), **options)
    assert turned.models[0].factors[0].dtype == torch.complex64
    np.testing.assert_allclose(turned.best_errors[:2], sweep.best_errors[:2], rtol=1e-3)
    tiny = tf.rank_sweep(x * np.float32(1e-28), range(1, 4), **options)
    np.testing.assert_allclose(tiny.best_errors, sweep.best_errors, rtol=1e-3)
    np.testing.assert_allclose(tiny.core_consistency, sweep.core_consistency, atol=0.1)
    bounded = tf.rank_sweep(
        x, np.arange(1, 4), l2_reg=1.0, normalize=False, init="random", **options
    )
    assert (bounded.best_errors > sweep.best_errors).all()
    assert (bounded.models[1].weights == 1).all()
    assert tf.rank_sweep(x, iter([2]), progress=True, **options).suggest() == 2
    once = tf.rank_sweep(torch.from_numpy(x), range(1, 3), **options).models[0].factors[0]
    once.requires_grad_(True)


def swept(errors, consistency, matches=None, statuses=None, ranks=None):
    """Make a result with these numbers."""
    ranks = tuple(range(1, len(errors) + 1)) if ranks is None else ranks
    statuses = ["converged"] * len(errors) if statuses is None else statuses
    models = tuple(
        CPTensor(np.ones(rank), [], account(status, [error], "Done."))
        for rank, error, status in zip(ranks, errors, statuses, strict=True)
    )
    matches = np.ones(len(errors)) if matches is None else np.array(matches)
    errors = np.array(errors)
    return tf.RankSweep(
        ranks=ranks,
        models=models,
        errors=np.stack([errors, errors], 1),
        core_consistency=np.array(consistency, dtype=float),
        matches=np.stack([np.ones(len(errors)), matches], 1),
    )


@pytest.mark.parametrize(
    ("arguments", "rank"),
    [
        (([0.5, 0.3, 0.1, 0.05], [100, 100, 99, 90]), 4),
        # Too little core consistency; and high again later.
        (([0.5, 0.3, 0.1, 0.05], [100, 100, 99, 40]), 3),
        (([0.5, 0.3, 0.1, 0.05], [100, 20, -70, 60]), 4),
        # Starts that disagree.
        (([0.5, 0.3, 0.1, 0.05], [100, 100, 99, 90], [1, 1, 1, 0.6]), 3),
        # An error that hardly falls, rises, or is none.
        (([0.5, 0.3, 0.1, 0.099], [100, 100, 99, 90]), 3),
        (([0.5, 0.3, 0.1, 0.2, 0.099], [100, 100, 99, 90, 90]), 3),
        (([0.5, 0.3, 1e-7, 1e-15], [100, 100, 99, 90]), 3),
        # Components that diverge.
        (([0.5, 0.3], [100, 99], None, ["converged", "degenerate"]), 1),
        # Nothing speaks for any.
        (([0.99, 0.98], [10, 5]), 1),
        # Steps of several: what is asked is asked of each component.
        (([0.3, 0.25], [99, 99], None, None, (2, 4)), 4),
        (([0.3, 0.28], [99, 99], None, None, (2, 4)), 2),
    ],
    ids=str,
)
def test_what_is_suggested(arguments, rank):
    assert swept(*arguments).suggest() == rank


def test_the_match_is_that_of_starts_that_came_near():
    sweep = swept([0.5, 0.1, 1e-9], [100, 100, 100])
    errors = np.array([[0.5, 0.51, 0.52, 0.6], [0.1, 0.2, 0.3, 0.4], [1e-9, 1e-7, 1e-6, 0.3]])
    matches = np.array([[1, 0.9, 0.8, 0.1], [1, 0.1, 0.2, 0.3], [1, 0.5, 0.7, 0.0]])
    sweep = dataclasses.replace(sweep, errors=errors, matches=matches)
    np.testing.assert_allclose(sweep.match, [0.85, np.nan, 0.6])
    # One start, and nothing to agree with, is no objection.
    one = dataclasses.replace(sweep, errors=errors[:, :1], matches=matches[:, :1])
    assert np.isnan(one.match).all()
    assert one.suggest() == 3


def test_words():
    sweep = swept([0.5, 0.1, 0.0999], [100, 98.7, -1e9], [1, 0.95, 0.2])
    lines = str(sweep).splitlines()
    assert lines == sweep.table().splitlines()
    assert len(lines) == 4
    assert lines[2] == ">    2  1.00e-01              98.7  0.950  converged"
    assert "below 0" in lines[3]
    assert {len(line) for line in lines[1:]} == {len(lines[2])}
    assert repr(sweep) == "RankSweep(ranks=(1, 2, 3), n_init=2, suggests 2)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        sweep.ranks = (1,)


def test_plot(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sweep = swept([0.5, 0.1, 0.0999], [100, 98.7, -1e9], [1, 0.95, 0.2])
    ax = sweep.plot()
    best = next(line for line in ax.get_lines() if line.get_label() == "error of the best")
    np.testing.assert_array_equal(best.get_ydata(), sweep.best_errors)
    figure, given = pyplot.subplots()
    assert sweep.plot(given) is given
    figure.canvas.draw()
    pyplot.close("all")

    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match="matplotlib is not installed; run pip install matplotlib"
    ):
        sweep.plot()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"ranks": []}, ValueError, r"ranks is \[\]; expected at least one rank"),
        ({"ranks": [2, 2]}, ValueError, r"ranks is \[2, 2\]; .* each once"),
        ({"ranks": [2, 0]}, ValueError, "rank is 0; expected at least 1"),
        ({"ranks": [1.5]}, TypeError, "rank is 1.5"),
        ({"ranks": 5}, TypeError, r"ranks is 5; expected several integers"),
        ({"ranks": "12"}, TypeError, "ranks is '12'; expected several integers"),
        ({"n_init": 0}, ValueError, "n_init is 0; expected at least 1"),
        ({"init": "nvecs"}, ValueError, "init is 'nvecs'; expected 'svd', 'random'"),
        ({"init": (None, [])}, TypeError, "init is tuple; expected 'svd' or 'random'"),
        ({"n_iter_max": 0}, ValueError, "n_iter_max is 0"),
        ({"tol": -1}, ValueError, "tol is -1"),
        ({"l2_reg": -1}, ValueError, "l2_reg is -1"),
        ({"precision": "fp8"}, ValueError, "precision is 'fp8'"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"x": np.ones(3)}, ValueError, "x has 1 modes"),
        ({"x": np.ones((3, 0))}, ValueError, r"x.shape\[1\] is 0"),
        ({"x": np.full((3, 4), np.nan)}, ValueError, "x has 12 non-finite values"),
    ],
    ids=str,
)
def test_what_is_refused(arguments, error, text):
    given = {"x": np.ones((3, 4)), "ranks": [1, 2], **arguments}
    with pytest.raises(error, match=f"^rank_sweep: .*{text}"):
        tf.rank_sweep(given.pop("x"), given.pop("ranks"), **given)
