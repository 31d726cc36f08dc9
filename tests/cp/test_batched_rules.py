"""When the tensors of a batch end: the rules for many are those for one; callback and progress."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorfast as tf
from tensorfast.batch.stopping import STATUSES, BatchStoppingRule, fast_relative_errors
from tensorfast.convergence import StoppingRule, fast_relative_error
from tensorfast.cp import batch as batched
from tensorfast.cp.batch.update import BatchLeastSquares
from tensorfast.cp.stopping import DivergenceWatch
from tensorfast.cp.update import LeastSquares
from tensorfast.testing import planted

SHAPE = (6, 5, 7)
CPU = torch.device("cpu")
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@st.composite
def histories(draw):
    """Errors of a few fits over a few sweeps, whether each is exact, and what it would be exactly.

    Steps are of all sizes from far below a tolerance on, up and down, and some errors are noise.
    """
    sweeps, fits = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    steps = 10.0 ** rng.uniform(-9, -1, (sweeps, fits)) * rng.choice([1, 1, 1, -1], (sweeps, fits))
    start = 10.0 ** rng.uniform(-8, 0, fits)
    errors = np.abs(start - np.cumsum(steps, 0))
    errors[rng.random((sweeps, fits)) < 0.02] = 0.0
    errors[rng.random((sweeps, fits)) < 0.02] = np.nan
    exact = rng.random((sweeps, fits)) < 0.3
    anew = errors * (1 + 1e-7 * rng.standard_normal((sweeps, fits)))
    return errors, exact, anew


@dtypes
@pytest.mark.parametrize("tol", [0.0, 1e-4, 1e-7])
@pytest.mark.parametrize("monotone", [True, False])
@settings(max_examples=60, deadline=None)
@given(history=histories())
def test_the_stopping_rule_is_that_of_one(dtype, tol, monotone, history):
    errors, exact, anew = history
    sweeps, fits = errors.shape
    rule = BatchStoppingRule(tol, dtype, monotone, fits, CPU)
    alone = [StoppingRule(tol, dtype, monotone) for _ in range(fits)]
    told: list[list[float]] = [[] for _ in range(fits)]
    places = np.arange(fits)
    for t in range(sweeps):
        now = torch.from_numpy(errors[t, places].copy())
        fresh = torch.from_numpy(anew[t, places])
        codes = rule.codes(
            t + 1, now, torch.from_numpy(exact[t, places]), lambda index, fresh=fresh: fresh[index]
        )
        for at, i in enumerate(places):
            told[i].append(float(errors[t, i]))
            expected = alone[i].status(told[i], bool(exact[t, i]), lambda i=i, t=t: anew[t, i])
            assert STATUSES[int(codes[at])] == (expected or "")
            np.testing.assert_equal(float(now[at]), told[i][-1])
        # Some are dropped on the way.
        if t == sweeps // 2 and fits > 1:
            index = torch.arange(len(places))[1:]
            rule.keep(index)
            places = places[index.numpy()]


@dtypes
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_errors_from_scalars_are_those_of_one(dtype, seed):
    rng = np.random.default_rng(seed)
    norms = 10.0 ** rng.uniform(-3, 3, 20)
    norms[0] = 0
    error = 10.0 ** rng.uniform(-9, 0.3, 20)
    model = norms * 10.0 ** rng.uniform(-0.1, 0.1, 20)
    inner = (norms + model - error**2 * norms) / 2
    inner[1] = np.nan
    trace = model * 10.0 ** rng.uniform(-1, 5, 20)
    given_ = [torch.from_numpy(a) for a in (norms, inner, model, trace)]
    errors, lost = fast_relative_errors(*given_, dtype)
    for i, (n, p, m, c) in enumerate(zip(norms, inner, model, trace, strict=True)):
        expected = fast_relative_error(n, p, m, dtype, c)
        assert bool(lost[i]) == (expected is None)
        if expected is not None:
            np.testing.assert_allclose(float(errors[i]), expected, rtol=1e-14)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sweep=st.integers(60, 200))
def test_divergence_is_that_of_one(seed, sweep):
    """Random components that grow, or not, and turn against each other, or not."""
    g = torch.Generator().manual_seed(seed)
    fits, rank = 6, 3
    base = torch.randn(fits, 5, rank, generator=g, dtype=torch.float64)
    base[: fits // 2, :, 1] = 0.3 * base[: fits // 2, :, 1] - base[: fits // 2, :, 0]
    power = 0.4 * torch.rand(fits, 1, 1, generator=g, dtype=torch.float64)

    def grams(t):
        columns = base.clone()
        columns[:, :, 1] += columns[:, :, 0]
        columns[:, :, 1] /= t ** power[:, :, 0]
        columns[:, :, 1] -= columns[:, :, 0]
        columns = columns * t**power
        return [columns.mT @ columns, torch.ones(fits, rank, rank, dtype=torch.float64)]

    whole, each = DivergenceWatch(), [DivergenceWatch() for _ in range(fits)]
    for t in range(1, sweep + 1):
        whole.record(t, grams(t))
        for i, watch in enumerate(each):
            watch.record(t, [gram[i] for gram in grams(t)])
    kept = torch.tensor([0, 1, 3, 4, 5])
    whole.keep(kept)
    now = [gram[kept] for gram in grams(sweep)]
    some = torch.tensor([0, 2, 4])
    found = whole.diverging_of(sweep, [gram[some] for gram in now], some)
    for pair, i in zip(found, kept[some].tolist(), strict=True):
        alone = each[i].diverging(sweep, [gram[i] for gram in grams(sweep)])
        assert (pair is None) == (alone is None)
        if pair is not None:
            assert pair[:2] == alone[:2]
            assert pair[2] == pytest.approx(alone[2])


def test_some_of_those_do_diverge():
    watch = DivergenceWatch()

    def grams(t):
        cosine = torch.tensor([1.7**2 / (8 * t**0.4) - 1, 0.1], dtype=torch.float64)
        inner = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
        inner[:, 0, 1] = inner[:, 1, 0] = cosine
        return [4 * t**0.4 * inner]

    for t in range(1, 101):
        watch.record(t, grams(t / 64))
    found = watch.diverging_of(100, grams(100 / 64), torch.arange(2))
    assert found[0][:2] == (0, 1)
    assert found[1] is None


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str
)
@pytest.mark.parametrize("l2_reg", [0.0, 0.3])
def test_the_update_is_that_of_one(dtype, l2_reg):
    """Regular, singular, without anything to solve, and frozen equations side by side."""
    g = torch.Generator().manual_seed(0)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    columns = torch.randn(6, 20, 3, generator=g, dtype=wide)
    columns[1, :, 1] = columns[1, :, 0]
    columns[2] = 0
    columns[3, :, 2] = 0
    columns[4, :, 2] = columns[4, :, 0]
    grams = columns.mH @ columns
    products = (grams @ torch.randn(6, 3, 5, generator=g, dtype=wide)).to(dtype)
    current = torch.randn(6, 3, 5, generator=g, dtype=wide).to(dtype)
    weights = torch.full((6,), l2_reg, dtype=torch.float64) if l2_reg else None
    update = BatchLeastSquares(weights, 6, CPU)
    frozen = torch.tensor([False, False, False, False, True, True])
    before = [t.clone() for t in (grams, products, current)]
    new = update(grams, products, current, frozen)
    assert all(torch.equal(a, b) for a, b in zip(before, (grams, products, current), strict=True))
    assert new.dtype == dtype
    assert new.is_contiguous()
    assert torch.equal(new[4:], current[4:])
    for i in range(4):
        alone = LeastSquares(l2_reg)
        expected = alone(grams[i], products[i].mT, current[i].mT.contiguous())
        assert float(update.ridge[i]) == pytest.approx(alone.ridge)
        torch.testing.assert_close(new[i].mT, expected, rtol=1e-4, atol=1e-4)
    assert (update.ridge[4:] == 0).all()
    update.keep(torch.tensor([1, 5]))
    assert len(update.ridge) == 2


@pytest.mark.parametrize("l2_reg", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_updates_of_different_ranks(l2_reg, dtype):
    """What is padded stays zero and changes nothing; also of singular equations, and after keep."""
    g = torch.Generator().manual_seed(0)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    ranks = [4, 2, 3, 1]
    columns = torch.randn(4, 20, 4, generator=g, dtype=wide)
    columns[2, :, 1] = columns[2, :, 0]
    # Far from the ones that stand on the diagonal beside it.
    columns[1] *= 1e-9
    current = torch.randn(4, 4, 5, generator=g, dtype=wide).to(dtype)
    for i, rank in enumerate(ranks):
        columns[i, :, rank:] = 0
        current[i, rank:] = 0
    grams = columns.mH @ columns
    products = (grams @ torch.randn(4, 4, 5, generator=g, dtype=wide)).to(dtype)
    weights = torch.full((4,), l2_reg, dtype=torch.float64) if l2_reg else None
    update = BatchLeastSquares(weights, 4, CPU, torch.tensor(ranks))
    assert update.monotone == (not l2_reg)
    new = update(grams, products, current)
    some = torch.tensor([3, 2])
    ridges = update.ridge.tolist()
    update.keep(some)
    again = update(grams[some], products[some], current[some])
    torch.testing.assert_close(again, new[some])
    for i, rank in enumerate(ranks):
        alone = LeastSquares(l2_reg)
        own = slice(rank)
        args = grams[i, own, own], products[i, own].mT, current[i, own].mT.contiguous()
        torch.testing.assert_close(new[i, own].mT, alone(*args), rtol=1e-4, atol=1e-4)
        assert ridges[i] == pytest.approx(alone.ridge)
        assert (new[i, rank:] == 0).all()
    assert (ridges[2] > 0) == (not l2_reg)


@pytest.fixture
def noisy() -> torch.Tensor:
    return torch.stack([planted(SHAPE, 3, noise=0.1, seed=s)[0] for s in range(6)])


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_callback_sees_the_batch_as_a_whole(noisy, chunk, monkeypatch):
    """Whatever is done stands still in it, and nothing changes by looking."""
    monkeypatch.setattr(batched, "SLAB", chunk)
    seen = []

    def callback(sweep, errors, factors):
        seen.append((sweep, errors, factors))

    options = {"batch_dims": 1, "seed": 0, "tol": 1e-4, "normalize": False}
    plain = tf.cp_als(noisy, 3, **options)
    model = tf.cp_als(noisy, 3, callback=callback, **options)
    assert model.info == plain.info
    assert all(torch.equal(a, b) for a, b in zip(model.factors, plain.factors, strict=True))
    assert len(set(model.info.n_iter.tolist())) > 1
    assert [sweep for sweep, *_ in seen] == list(range(1, model.info.n_iter.max() + 1))
    for sweep, errors, factors in seen:
        assert type(errors) is np.ndarray
        assert errors.shape == (6,)
        assert [tuple(f.shape) for f in factors] == [(6, n, 3) for n in SHAPE]
        for i in range(6):
            told = model.info[i].rel_errors
            assert errors[i] == told[min(sweep, len(told)) - 1]
            exact = tf.relative_error(noisy[i], (None, [f[i] for f in factors]))
            assert exact == pytest.approx(errors[i], rel=1e-6)


@pytest.mark.parametrize("at", [1, 5, 8])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_callback_stops_what_still_runs(noisy, at, chunk, monkeypatch):
    monkeypatch.setattr(batched, "SLAB", chunk)
    options = {"batch_dims": 1, "seed": 0, "tol": 1e-3}
    plain = tf.cp_als(noisy, 3, **options).info
    info = tf.cp_als(noisy, 3, callback=lambda sweep, *_: sweep == at, **options).info
    before = plain.n_iter < at
    assert (info.status[before] == plain.status[before]).all()
    assert (info.status[~before] == "stopped").all()
    assert (info.n_iter == np.minimum(plain.n_iter, at)).all()
    assert not info.converged[~before].any()


def test_what_the_callback_keeps_is_its_own_and_in_the_scale_of_x(noisy):
    x = noisy.float()
    x[2] *= 1e25
    kept = []
    tf.cp_als(
        x,
        3,
        batch_dims=1,
        seed=0,
        n_iter_max=3,
        tol=0,
        callback=lambda s, e, f: kept.append((e, f)),
    )
    for errors, factors in kept:
        for i in range(6):
            exact = tf.relative_error(x[i], (None, [f[i] for f in factors]))
            assert exact == pytest.approx(errors[i], rel=1e-4)
    assert not torch.equal(kept[0][1][0], kept[1][1][0])
    scale = torch.ones((), requires_grad=True)
    (scale * kept[0][1][1][0]).sum().backward()
    assert scale.grad is not None


def test_an_error_in_the_callback_comes_through(noisy):
    def callback(sweep, errors, factors):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tf.cp_als(noisy, 3, batch_dims=1, seed=0, callback=callback)


def test_progress_shows_sweeps_and_the_largest_error(noisy, capsys):
    info = tf.cp_als(noisy, 3, batch_dims=1, seed=0, n_iter_max=6, tol=0, progress=True).info
    shown = capsys.readouterr().err
    assert f"error={info.rel_error.max():.3e}" in shown
    assert "6/6" in shown


def test_max_iter_and_one_sweep(noisy):
    info = tf.cp_als(noisy, 3, batch_dims=1, seed=0, n_iter_max=1).info
    assert set(info.status) == {"max_iter"}
    assert "1 sweep," in info[0].message
