"""When a fit ends, what it says then, and the callback, progress bar and line search on the way."""

import builtins
import re

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm

import tensorfast as tf
from tensorfast.cp.linesearch import LineSearch
from tensorfast.cp.stopping import describe
from tensorfast.testing import planted, random_cp

SHAPE = (9, 8, 7)


@pytest.fixture
def noisy() -> torch.Tensor:
    return planted(SHAPE, 3, noise=0.1)[0]


def test_converged(noisy):
    info = tf.cp_als(noisy, 3, seed=0, tol=1e-4).info
    assert info.status == "converged"
    assert info.converged
    assert info.n_iter == len(info.rel_errors) < 100
    falls = -np.diff(info.rel_errors)
    assert abs(falls[-1]) < 1e-4 <= abs(falls[:-1]).min()
    assert "changed by less than tol=0.0001" in info.message
    assert f"{info.n_iter} sweeps" in info.message


def test_max_iter(noisy):
    info = tf.cp_als(noisy, 3, init="random", seed=0, n_iter_max=4, tol=1e-12).info
    assert (info.status, info.n_iter, info.converged) == ("max_iter", 4, False)
    assert re.search(r"4 sweeps.*raise n_iter_max", info.message)


def test_an_exact_fit_out_of_sweeps_asks_for_no_more():
    x = torch.zeros(3, 4, 5)
    x[1, 2, 3] = 2.0
    truth = [torch.eye(n)[:, i : i + 1] for n, i in zip(x.shape, (1, 2, 3), strict=True)]
    info = tf.cp_als(x, 1, init=(None, truth), n_iter_max=2, tol=0).info
    assert (info.status, info.rel_errors[-1]) == ("max_iter", 0)
    assert info.message.endswith("as many as allowed; the model equals the data.")


def test_one_sweep_is_told_in_the_singular(noisy):
    message = tf.cp_als(noisy, 3, seed=0, n_iter_max=1).info.message
    assert "1 sweep," in message
    assert "sweeps" not in message


def test_tol_0_runs_all_sweeps():
    x, truth = planted(SHAPE, 3)
    info = tf.cp_als(x, 3, init=truth, n_iter_max=37, tol=0).info
    assert info.n_iter == 37
    assert info.rel_errors[-1] < 1e-14


def test_precision_limit():
    x, _ = planted(SHAPE, 3, dtype=torch.float32)
    info = tf.cp_als(x, 3, seed=0, n_iter_max=500, tol=1e-12).info
    assert info.status == "precision_limit"
    assert info.converged
    assert info.n_iter < 500
    assert 0 < info.rel_errors[-1] < 2e-6
    assert "float64" in info.message


@pytest.mark.parametrize("tol", [0, 1e-6])
def test_an_exact_fit_is_no_failure(tol):
    """Small whole numbers are computed without rounding: the error is 0, not merely small."""
    x = torch.ones(4, 4, 4, dtype=torch.float64)
    ones = (None, [torch.ones(4, 1, dtype=x.dtype)] * 3)
    info = tf.cp_als(x, 1, init=ones, tol=tol, n_iter_max=10).info
    assert info.rel_errors[-1] == 0
    assert info.fit == 1
    assert (info.status, info.n_iter) == (("converged", 2) if tol else ("max_iter", 10))


@pytest.mark.parametrize("at", [1, 3])
def test_the_callback_stops(noisy, at):
    calls = []

    def callback(sweep, error, factors):
        calls.append((sweep, error, [f.clone() for f in factors]))
        return sweep == at

    model = tf.cp_als(noisy, 3, seed=0, tol=0, callback=callback, normalize=False)
    info = model.info
    assert (info.status, info.n_iter, info.converged) == ("stopped", at, False)
    assert "callback stopped" in info.message
    assert [sweep for sweep, *_ in calls] == list(range(1, at + 1))
    assert tuple(error for _, error, _ in calls) == info.rel_errors
    assert all(type(error) is float for _, error, _ in calls)
    for mine, theirs in zip(calls[-1][2], model.factors, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("answer", [None, False, 0])
def test_whatever_is_not_true_goes_on(noisy, answer):
    info = tf.cp_als(noisy, 3, seed=0, n_iter_max=5, tol=0, callback=lambda *_: answer).info
    assert (info.status, info.n_iter) == ("max_iter", 5)


def test_what_the_callback_keeps_is_not_overwritten_and_can_be_used(noisy):
    kept = []
    tf.cp_als(
        noisy, 3, seed=0, n_iter_max=4, tol=0, callback=lambda s, e, factors: kept.append(factors)
    )
    short = tf.cp_als(noisy, 3, seed=0, n_iter_max=2, tol=0, normalize=False)
    for mine, theirs in zip(kept[1], short.factors, strict=True):
        assert torch.equal(mine, theirs)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (scale * kept[0][0]).sum().backward()
    assert scale.grad == pytest.approx(float(kept[0][0].sum()))


def test_what_the_callback_sees_is_in_the_scale_of_x():
    """However the engine scales data near the ends of a type's range."""
    x = 1e25 * planted(SHAPE, 3, noise=0.1, dtype=torch.float32)[0]
    seen = []

    def callback(sweep, error, factors):
        seen.append(abs(tf.relative_error(x, (None, factors)) - error))
        return False

    tf.cp_als(x, 3, seed=0, n_iter_max=3, tol=0, callback=callback)
    assert max(seen) < 1e-5


def test_an_error_in_the_callback_comes_through(noisy):
    def callback(sweep, error, factors):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tf.cp_als(noisy, 3, seed=0, callback=callback, progress=True)


def test_progress_shows_sweeps_and_error(noisy, capsys):
    info = tf.cp_als(noisy, 3, seed=0, n_iter_max=6, tol=0, progress=True).info
    shown = capsys.readouterr().err
    assert f"error={info.rel_errors[-1]:.3e}" in shown
    assert "6/6" in shown


def test_progress_and_callback_together(noisy, capsys):
    info = tf.cp_als(noisy, 3, seed=0, tol=0, progress=True, callback=lambda s, *_: s == 2).info
    assert info.status == "stopped"
    assert "2/100" in capsys.readouterr().err


def test_progress_without_tqdm_says_what_to_install(noisy, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match="tqdm is not installed; run pip install") as caught:
        tf.cp_als(noisy, 3, progress=True)
    assert "progress=False" in str(caught.value)
    assert tf.cp_als(noisy, 3, seed=0, n_iter_max=2).info.n_iter == 2


def test_no_bar_is_left_open(noisy):
    before = len(tqdm._instances)
    tf.cp_als(noisy, 3, seed=0, n_iter_max=2, progress=True)
    assert len(tqdm._instances) == before


def swamp(seed: int) -> torch.Tensor:
    """Components nearly side by side in every mode: hundreds of sweeps of almost no progress."""
    return tf.cp_to_tensor(random_cp((15, 14, 13), 4, seed=seed, congruence=0.9))


@pytest.mark.parametrize("seed", range(4))
def test_line_search_pays_in_a_swamp(seed):
    x = swamp(seed)
    options = {"init": "random", "seed": seed, "n_iter_max": 300, "tol": 0}
    plain = np.array(tf.cp_als(x, 4, **options).info.rel_errors)
    searched = np.array(tf.cp_als(x, 4, line_search=True, **options).info.rel_errors)
    assert (np.diff(searched) <= 1e-13 / searched[1:]).all()
    # As soon as a step may be taken, and ever after.
    assert (searched[:4] == plain[:4]).all()
    assert (searched <= plain * (1 + 1e-9)).all()
    sweeps = [int(np.argmax(errors < plain[-1] * 1.0001)) for errors in (plain, searched)]
    assert sweeps[1] < 0.8 * sweeps[0]


def test_line_search_steps_and_gives_way():
    search = LineSearch()
    old, new = [torch.zeros(2, 1)], [torch.ones(2, 1)]
    steps = []
    for sweep in range(1, 40):
        search.candidate(sweep - 1, old)
        candidate = search.candidate(sweep, new)
        if candidate is not None:
            steps.append((sweep, float(candidate[0][0])))
            search.report(False, new)
    tried = [sweep for sweep, _ in steps]
    assert min(tried) >= 4
    powers = [np.log(sweep) / np.log(step) for sweep, step in steps]
    assert powers[0] == pytest.approx(2)
    assert powers == pytest.approx(sorted(powers))
    assert powers[-1] > 2.5


def test_the_ridge_is_told_after_everything_else():
    info = describe("converged", [0.5, 0.5], 1e-6, 1e-9, None)
    assert info.message.startswith("The relative error changed")
    assert re.search(r"singular.* ridge of up to 1e-09 was added\.$", info.message)


@pytest.mark.parametrize("shape", [(30, 30, 30), (20, 20, 20, 20)], ids=str)
@pytest.mark.parametrize("congruence", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("tol", [1e-6, 1e-7])
def test_float32_runs_as_long_as_float64(shape, congruence, tol):
    """Though its error from three scalars jitters by more than ``tol``."""
    for seed in range(2):
        truth = random_cp(shape, 5, seed=seed, congruence=congruence)
        x = tf.cp_to_tensor(truth)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
        x += 0.01 * x.norm() * noise / noise.norm()
        start = (None, random_cp(shape, 5, seed=seed + 7)[1])
        double, single = (
            tf.cp_als(data, 5, init=start, n_iter_max=1000, tol=tol).info for data in (x, x.float())
        )
        assert single.status == "converged"
        assert single.rel_errors[-1] < double.rel_errors[-1] + 3 * tol
        assert double.n_iter / 1.2 < single.n_iter < 1.2 * double.n_iter
