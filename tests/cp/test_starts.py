"""Several starts in one pass end, start by start, as runs of their own do."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import tensorfast as tf
from tensorfast.blocks import SLAB
from tensorfast.convergence import account
from tensorfast.cp import starts as several
from tensorfast.cp.batch.shared import SharedOperand
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.schedule import all_schedules
from tensorfast.cp.starts import Start, best_of, fit_starts, groups_of, starts_of
from tensorfast.testing import planted, random_cp

SHAPES = [(7, 6), (6, 5, 7), (4, 5, 3, 6), (3, 4, 2, 3, 4)]
OPTIONS = {"n_iter_max": 60, "tol": 1e-6}


def fits_of(x, starts, fixed=(), callback=None, **options):
    """All fits of a pass, where `cp_als` gives the best only."""
    defaults = {"l2_reg": 0.0, "normalize": True, "progress": False, "check_finite": True}
    free = [n for n in range(x.ndim) if n not in fixed]
    given = {**defaults, **OPTIONS, **options}
    with torch.inference_mode():
        return fit_starts(
            "op", x, starts, free=free, callback=callback, like=x, precision="ieee", **given
        )


def alone(x, start, **options):
    return tf.cp_als(x, start.rank, init=start.init, seed=start.seed, **{**OPTIONS, **options})


def parts(fit):
    return (fit.weights, *fit.factors)


def assert_as_alone(x, fits, starts, **options):
    """Hold each fit to a run of its own.

    How far rounding carries is measured: by a run on data moved by some roundings, as many as sums
    in another order are apart.
    """
    wide = x if x.dtype not in (torch.float16, torch.bfloat16) else x.float()
    eps = torch.finfo(wide.dtype).eps
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, dtype=wide.dtype, generator=generator)
    moved = wide * (1 + 20 * eps * noise)
    for at, (fit, start) in enumerate(zip(fits, starts, strict=True)):
        want, near = alone(x, start, **options), alone(moved, start, **options)
        info = fit.info
        assert (info.status, info.n_iter) == (want.info.status, want.info.n_iter), at
        assert ("singular" in info.message) == ("singular" in want.info.message)
        errors, beside = np.array(want.info.rel_errors), np.array(near.info.rel_errors)
        both = min(len(errors), len(beside))
        reach = 10 * np.abs(errors[:both] - beside[:both]).max() + 100 * eps
        np.testing.assert_allclose(info.rel_errors, errors, rtol=0, atol=reach, err_msg=str(at))
        for a, b, c in zip(parts(fit), parts(want), parts(near), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            length = torch.linalg.vector_norm(b)
            reach = 10 * torch.linalg.vector_norm(b - c) + 100 * eps * length
            assert torch.linalg.vector_norm(a - b) <= reach, at


def tensor(shape, seed=0, dtype=torch.float64, rank=3, noise=0.2):
    return planted(shape, rank, noise=noise, seed=seed, dtype=dtype)[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tol", [0, 1e-6])
def test_each_start_is_as_alone(shape, tol):
    x, starts = tensor(shape), starts_of(3, "svd", 5, 7)
    options = {"tol": tol, "n_iter_max": 40}
    assert_as_alone(x, fits_of(x, starts, **options), starts, **options)


@pytest.mark.parametrize("init", ["svd", "random"])
def test_the_best_is_returned_with_the_errors_of_all(init):
    x = tensor((6, 5, 7), noise=0.3)
    model = tf.cp_als(x, 3, n_init=6, seed=3, init=init, **OPTIONS)
    runs = [tf.cp_als(x, 3, init="random" if j else init, seed=3 + j, **OPTIONS) for j in range(6)]
    found = [run.info.rel_errors[-1] for run in runs]
    starts = model.info.starts
    np.testing.assert_allclose(starts.rel_error, found, rtol=1e-8)
    assert starts.status.tolist() == [run.info.status for run in runs]
    assert starts.n_iter.tolist() == [run.info.n_iter for run in runs]
    assert len(set(np.round(found, 6))) > 1
    best = int(np.argmin(found))
    assert model.info.rel_errors == starts[best].rel_errors
    assert model.info.message.endswith(f"It is the best of 6 starts, that at {best}.")
    assert tf.factor_match_score(model, runs[best]) > 1 - 1e-6
    assert tf.relative_error(x, model) == pytest.approx(min(found), rel=1e-8)
    assert repr(model.info).endswith("the best of 6 starts)")
    assert len(repr(model.info)) < 110
    assert hash(model.info) == hash(model.info)
    assert runs[0].info.starts is None


def test_one_start_is_a_run_as_ever():
    x = tensor((6, 5, 7))
    one, plain = (tf.cp_als(x, 2, seed=0, **more) for more in ({"n_init": 1}, {}))
    assert one.info == plain.info
    assert all(torch.equal(a, b) for a, b in zip(parts(one), parts(plain), strict=True))


def test_ragged_ranks():
    """What is padded is not contracted, and does not tell in any number."""
    x = tensor((6, 5, 7))
    starts = [Start(rank, "random", seed) for seed, rank in enumerate((1, 4, 2, 3, 4, 1, 7))]
    for options in ({"tol": 0, "n_iter_max": 12}, {}):
        assert_as_alone(x, fits_of(x, starts, **options), starts, **options)


@pytest.mark.parametrize(
    "schedule",
    [*all_schedules(range(2)), *all_schedules(range(3)), *all_schedules(range(4))],
    ids=str,
)
def test_every_schedule_gives_the_same(schedule, monkeypatch):
    """Also where starts leave in the middle of its cycle."""
    x = tensor((6, 5, 7, 4)[: 1 + max(map(max, schedule.runs))])
    starts = [Start(2 + seed % 2, "random", seed) for seed in range(6)]
    monkeypatch.setattr(DenseOperand, "schedule", lambda *_: schedule)
    fits = fits_of(x, starts)
    assert len({fit.info.n_iter for fit in fits}) > (2 if x.ndim > 2 else 1)
    monkeypatch.undo()
    assert_as_alone(x, fits, starts)


def test_the_schedule_is_that_of_what_runs(monkeypatch):
    """Of all columns, and anew where some have left."""
    asked, plain = [], DenseOperand.schedule

    def schedule(operand, columns, free):
        asked.append(columns)
        return plain(operand, columns, free)

    monkeypatch.setattr(DenseOperand, "schedule", schedule)
    starts = [Start(2 + seed % 2, "random", seed) for seed in range(4)]
    ends = [fit.info.n_iter for fit in fits_of(tensor((6, 5, 7)), starts)]
    running = [
        sum(start.rank for start, end in zip(starts, ends, strict=True) if end > sweep)
        for sweep in sorted({0, *ends} - {max(ends)})
    ]
    assert asked == running
    assert running[0] == 10


def test_what_has_ended_leaves_the_stack(monkeypatch):
    """At once: each read is made with the columns of what still runs."""
    seen, plain = [], DenseOperand.mttkrps

    def mttkrps(operand, run, factors):
        seen.append((run, factors[0].shape[1]))
        return plain(operand, run, factors)

    sweeps = next(iter(all_schedules(range(3))))
    monkeypatch.setattr(DenseOperand, "mttkrps", mttkrps)
    monkeypatch.setattr(DenseOperand, "schedule", lambda *_: sweeps)
    x = tensor((6, 5, 7))
    starts = [Start(2 + seed % 3, "random", seed) for seed in range(8)]
    fits = fits_of(x, starts, tol=1e-4, n_iter_max=100)
    ends = [fit.info.n_iter for fit in fits]
    assert len(set(ends)) > 4
    expected = [
        sum(start.rank for start, end in zip(starts, ends, strict=True) if end >= sweep)
        for sweep in range(1, max(ends) + 1)
    ]
    assert [columns for run, columns in seen if run == (0,)] == expected
    # One read serves all.
    assert len(seen) == 3 * max(ends)


def test_however_starts_are_grouped(monkeypatch):
    x, starts = tensor((6, 5, 7)), starts_of(3, "svd", 7, 0)
    whole = fits_of(x, starts)
    monkeypatch.setattr(several, "SLAB", 7 * 42)
    assert [len(group) for group in groups_of(x.shape, [3] * 7)] == [2, 2, 2, 1]
    fits = fits_of(x, starts)
    assert_as_alone(x, fits, starts)
    told = []
    watched = fits_of(x, starts, callback=lambda *args: told.append(args[:2]))
    for a, b, c in zip(whole, fits, watched, strict=True):
        assert a.info.status == b.info.status == c.info.status
        assert b.info == c.info
        np.testing.assert_allclose(a.info.rel_errors, b.info.rel_errors, rtol=1e-8)
    assert [sweep for sweep, _ in told] == list(range(1, 1 + max(f.info.n_iter for f in fits)))


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [
        ((200, 200, 200), [8] * 8),
        ((145, 145, 200), [r for r in range(1, 11) for _ in range(5)]),
        ((3, 1000, 1000), [8] * 4),
        ((5, 6, 7), [700, 3, 400, 200]),
        ((2, 2), [1]),
    ],
    ids=str,
)
def test_groups_stay_within_their_bound(shape, ranks):
    """Half of the tensor, or 2^20 elements, for all columns; and 512 of them."""
    groups = groups_of(shape, ranks)
    assert sorted(at for group in groups for at in group) == list(range(len(ranks)))
    numel = math.prod(shape)
    for group in groups:
        columns = sum(ranks[at] for at in group)
        if len(group) > 1:
            assert columns * (numel // min(shape)) <= max(numel // 2, SLAB)
            assert columns <= 512
    if shape == (200, 200, 200):
        assert len(groups) == 1
    if len(ranks) == 50:
        assert [sum(ranks[at] for at in group) for group in groups] == [64, 64, 64, 64, 19]


@pytest.mark.parametrize("layout", ["C", "F", "permuted", "strided", "negative"])
def test_strides(layout):
    x = tensor((6, 5, 7))
    given = {
        "C": x,
        "F": x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "permuted": x.permute(1, 0, 2).contiguous().permute(1, 0, 2),
        "strided": torch.zeros(12, 5, 14, dtype=x.dtype)[::2, :, ::2].copy_(x),
        "negative": x,
    }[layout]
    starts = starts_of(3, "random", 4, 0)
    if layout == "negative":
        backwards = np.ascontiguousarray(x.numpy()[::-1, :, ::-1])[::-1, :, ::-1]
        model = tf.cp_als(backwards, 3, n_init=4, init="random", seed=0, **OPTIONS)
        assert isinstance(model.factors[0], np.ndarray)
        found = model.info.starts.rel_error
        np.testing.assert_allclose(
            found, [alone(x, start).info.rel_errors[-1] for start in starts], rtol=1e-8
        )
    else:
        assert_as_alone(given, fits_of(given, starts), starts)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.complex64, torch.complex128],
    ids=str,
)
def test_types(dtype):
    wide = dtype if dtype.is_complex else torch.float32
    x = tensor((9, 8, 10), dtype=wide).to(dtype)
    starts = [Start(1 + seed % 3, "random" if seed else "svd", seed) for seed in range(5)]
    options = {"tol": 0, "n_iter_max": 10}
    fits = fits_of(x, starts, **options)
    assert_as_alone(x, fits, starts, **options)
    assert fits[0].factors[0].dtype == (dtype if dtype.is_complex else torch.float32)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_data_at_the_ends_of_the_range(scale):
    x = tensor((6, 5, 7), dtype=torch.float32)
    options = {"n_init": 4, "seed": 0, "tol": 0, "n_iter_max": 8}
    plain, scaled = (tf.cp_als(y, 2, **options) for y in (x, scale * x))
    np.testing.assert_allclose(
        [info.rel_errors for info in scaled.info.starts],
        [info.rel_errors for info in plain.info.starts],
        rtol=1e-4,
    )
    torch.testing.assert_close(scaled.weights, scale * plain.weights, rtol=1e-3, atol=0)
    start = random_cp((6, 5, 7), 2, seed=1, dtype=torch.float32)
    given = {**options, "init": start, "fixed_modes": (1,), "l2_reg": 0.1}
    big = tf.cp_als(scale * x, 2, **given)
    assert torch.equal(big.factors[1], start[1][1])
    one = tf.cp_als(scale * x, 2, **{**given, "n_init": 1}).info.rel_errors
    np.testing.assert_allclose(big.info.starts[0].rel_errors, one, rtol=1e-3)
    for l2_reg in (0.0, 0.1):
        kept = tf.cp_als(scale * x, 2, **{**given, "l2_reg": l2_reg})
        exact = tf.relative_error(scale * x, kept)
        assert kept.info.rel_errors[-1] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("l2_reg", [1e-3, 1.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_l2_reg_and_normalize(l2_reg, normalize):
    x = tensor((6, 5, 7))
    starts = [Start(1 + seed % 3, "random", seed) for seed in range(5)]
    options = {"l2_reg": l2_reg, "normalize": normalize}
    assert_as_alone(x, fits_of(x, starts, **options), starts, **options)


@pytest.mark.parametrize("fixed", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
def test_fixed_modes_are_kept_in_every_start(fixed):
    """The first start is the given model, the others random in what is free."""
    x, given = tensor((6, 5, 7)), random_cp((6, 5, 7), 3, seed=9, dtype=torch.float64)
    starts = starts_of(3, given, 4, 5)
    fits = fits_of(x, starts, fixed)
    for fit in fits:
        for n in fixed:
            assert torch.equal(fit.factors[n], given[1][n])
    drawn = [fits_of(x, [start], tol=0, n_iter_max=1)[0] for start in starts[1:]]
    assert len({float(fit.factors[0][0, 0]) for fit in drawn}) == 3
    first = tf.cp_als(x, 3, init=given, fixed_modes=fixed, **OPTIONS)
    np.testing.assert_allclose(fits[0].info.rel_errors, first.info.rel_errors, rtol=1e-8)
    best = tf.cp_als(x, 3, init=given, fixed_modes=fixed, n_init=4, seed=5, **OPTIONS)
    assert [info.n_iter for info in best.info.starts] == [fit.info.n_iter for fit in fits]
    assert all(torch.equal(best.factors[n], given[1][n]) for n in fixed)


def test_a_given_model_is_the_first_start():
    x, given = tensor((6, 5, 7)), random_cp((6, 5, 7), 3, seed=9, dtype=torch.float64)
    copies = [f.clone() for f in given[1]]
    starts = starts_of(3, given, 3, 5)
    assert [start.init for start in starts[1:]] == ["random", "random"]
    assert_as_alone(x, fits_of(x, starts), starts)
    assert all(torch.equal(a, b) for a, b in zip(copies, given[1], strict=True))


def test_seeds():
    """An integer counts up; a generator is drawn from in order; the same again gives the same."""
    x = tensor((6, 5, 7))
    options = {"n_init": 3, "n_iter_max": 5, "tol": 0}
    once, again = (tf.cp_als(x, 2, seed=np.int64(4), **options) for _ in range(2))
    assert once.info == again.info
    assert all(torch.equal(a, b) for a, b in zip(parts(once), parts(again), strict=True))
    assert tf.cp_als(x, 2, seed=5, **options).info != once.info
    state = torch.Generator().manual_seed(4)
    drawn = tf.cp_als(x, 2, seed=state, **options).info.starts
    state = torch.Generator().manual_seed(4)
    for at, init in enumerate(("svd", "random", "random")):
        run = tf.cp_als(x, 2, seed=state, init=init, n_iter_max=5, tol=0).info
        np.testing.assert_allclose(drawn[at].rel_errors, run.rel_errors, rtol=1e-9)
    last = tf.cp_als(x, 2, seed=2**64 - 1, **options).info.starts
    for at, (init, seed) in enumerate((("svd", 2**64 - 1), ("random", 0), ("random", 1))):
        run = tf.cp_als(x, 2, seed=seed, init=init, n_iter_max=5, tol=0).info
        np.testing.assert_allclose(last[at].rel_errors, run.rel_errors, rtol=1e-9)
    unseeded = tf.cp_als(x, 2, init="random", **options).info.starts
    assert len(set(unseeded.rel_error.tolist())) == 3


def border(shape, seed):
    """Border rank 2: two components that diverge."""
    g = torch.Generator().manual_seed(seed)
    pairs = [torch.randn(2, n, dtype=torch.float64, generator=g) for n in shape]
    terms = [[pair[int(n == place)] for n, pair in enumerate(pairs)] for place in range(3)]
    return sum(torch.einsum("i,j,k->ijk", *vectors) for vectors in terms)


def test_starts_that_diverge_are_told():
    x = border((6, 5, 7), 0)
    starts = [Start(rank, "random", seed) for seed, rank in enumerate((2, 3, 2, 1, 2))]
    options = {"n_iter_max": 300, "tol": 0}
    fits = fits_of(x, starts, **options)
    for fit, start in zip(fits, starts, strict=True):
        want = alone(x, start, **options).info
        assert fit.info.status == want.status
        # The pair, too, is one of real components.
        if want.status == "degenerate":
            assert fit.info.message.split("(")[0] == want.message.split("(")[0]
    assert {fits[at].info.status for at in (0, 2, 4)} == {"degenerate"}


def ended(error, status="converged"):
    return account(status, [1.0, error], "Done.")


@pytest.mark.parametrize(
    ("ends", "best"),
    [
        ([(0.3,), (0.1,), (0.2,)], 1),
        ([(0.1,), (0.1,)], 0),
        ([(0.1, "degenerate"), (0.1005,)], 1),
        ([(0.2,), (0.1, "degenerate"), (0.1009, "max_iter"), (0.1005,)], 3),
        ([(0.1, "degenerate"), (0.102,)], 0),
        ([(0.2, "degenerate"), (0.1, "degenerate")], 1),
        ([(0.0, "degenerate"), (1e-9,)], 0),
        ([(0.1,), (0.0999, "precision_limit"), (0.2, "degenerate")], 1),
    ],
    ids=str,
)
def test_which_is_best(ends, best):
    assert best_of([ended(*end) for end in ends]) == best


@pytest.mark.parametrize("kind", ["zero", "rank 1", "constant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_singular_tensors(kind, dtype):
    shape = (6, 5, 7)
    x = {
        "zero": torch.zeros(shape, dtype=dtype),
        "rank 1": planted(shape, 1, dtype=dtype)[0],
        "constant": torch.full(shape, 3.5, dtype=dtype),
    }[kind]
    starts = [Start(1 + seed % 3, "random", seed) for seed in range(6)]
    for fit, start in zip(fits_of(x, starts), starts, strict=True):
        want = alone(x, start).info
        assert ("singular" in fit.info.message) == ("singular" in want.message)
        assert fit.info.rel_errors[-1] == pytest.approx(want.rel_errors[-1], abs=2e-5)
        assert all(torch.isfinite(part).all() for part in parts(fit))


@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-4, 1e-5, 1e-6, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64], ids=str)
def test_the_errors_are_true(noise, dtype):
    x = tensor((16, 12, 10), dtype=dtype, noise=noise)
    starts = [Start(3 + seed % 2, "random", seed) for seed in range(4)]
    for fit in fits_of(x, starts, tol=0, n_iter_max=60, normalize=False):
        exact = tf.relative_error(x, (fit.weights, fit.factors))
        assert fit.info.rel_errors[-1] == pytest.approx(exact, rel=0.02, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64], ids=str)
def test_residual_norms_of_some(dtype):
    """By inner products, from residuals, and where the former have lost their digits."""
    shape, ranks = (6, 5, 7), (2, 3, 1, 3)
    x, (weights, factors) = planted(shape, 3, dtype=dtype)
    models = [random_cp(shape, rank, seed=rank, dtype=dtype) for rank in ranks]
    models[3] = weights, factors
    rows = [torch.zeros(4, 3, n, dtype=dtype) for n in shape]
    for at, (w, f) in enumerate(models):
        for n in range(3):
            rows[n][at, : ranks[at]] = (f[n] * (w if n == 0 else 1)).t()
    operand = SharedOperand(DenseOperand(x), ranks)
    index = torch.tensor([3, 0, 2])
    found = operand.residual_norms(rows, index)
    norm = float(torch.linalg.vector_norm(x.to(torch.complex128)))
    for at, got in zip(index.tolist(), found.tolist(), strict=True):
        exact = tf.relative_error(x, models[at]) * norm
        # Of the model that x was made from, what is left is rounding, and depends on its order.
        reach = 10 * torch.finfo(dtype).eps * norm if at == 3 else 0
        assert got == pytest.approx(exact, rel=1e-6, abs=reach)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_residual_norms_where_components_cancel(dtype):
    """Inner products have their digits of the components, 1e8 times what is left, and not of it."""
    shape = (6, 5, 7)
    x, (_, factors) = planted(shape, 1, dtype=dtype)
    _, beside = random_cp(shape, 1, seed=5, dtype=dtype)
    model = [torch.cat([f, b, b], 1) for f, b in zip(factors, beside, strict=True)]
    model[0] = model[0] * torch.tensor([1.0, 3e4, -3e4])
    scale = float(torch.vdot(tf.cp_to_tensor((None, factors)).flatten(), x.flatten()).real)
    model[0][:, 0] *= scale / float(tf.cp_to_tensor((None, factors)).abs().square().sum())
    operand = SharedOperand(DenseOperand(x), [3, 3])
    found = operand.residual_norms([torch.stack([f.t(), f.t()]) for f in model], torch.tensor([1]))
    exact = tf.relative_error(x, (None, model)) * float(torch.linalg.vector_norm(x))
    assert found.tolist() == [pytest.approx(exact, rel=1e-5)]


def test_callback_sees_the_best_so_far():
    x, seen = tensor((6, 5, 7), noise=0.3).numpy(), []

    def watch(sweep, error, factors):
        seen.append((sweep, error))
        assert isinstance(factors[0], np.ndarray)
        assert tf.relative_error(x, (None, factors)) == pytest.approx(error, rel=1e-9)
        factors[0][:] = np.nan
        return sweep == 6

    options = {"n_init": 4, "init": "random", "seed": 0, "tol": 1e-3}
    model = tf.cp_als(x, 3, callback=watch, **options)
    plain = tf.cp_als(x, 3, **options).info.starts
    starts = model.info.starts
    assert [sweep for sweep, _ in seen] == [1, 2, 3, 4, 5, 6]
    for at, (_, error) in enumerate(seen):
        last = [info.rel_errors[min(at, info.n_iter - 1)] for info in starts]
        assert error == min(last)
    for info, full in zip(starts, plain, strict=True):
        assert info.rel_errors == full.rel_errors[:6]
        assert info.status == ("stopped" if full.n_iter >= 6 else full.status)
    assert "stopped" in starts.status


def test_progress_changes_nothing():
    x = tensor((6, 5, 7))
    plain, shown = (tf.cp_als(x, 2, n_init=3, seed=0, progress=p) for p in (False, True))
    assert plain.info == shown.info


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"line_search": True},
            NotImplementedError,
            "line_search is True and n_init is 3; .* loop over the calls",
        ),
        (
            {"batch_dims": 1},
            NotImplementedError,
            "n_init is 3 and batch_dims is 1; .* call it with several seeds",
        ),
        ({"init": "nvecs"}, ValueError, "init is 'nvecs'; expected 'svd', 'random'"),
        ({"init": 3}, TypeError, "init is int; expected"),
        ({"fixed_modes": (0,)}, ValueError, r"is \(0,\) but init is 'svd'; pass the factors"),
    ],
    ids=str,
)
def test_what_is_refused(arguments, error, text):
    with pytest.raises(error, match=f"^cp_als: .*{text}"):
        tf.cp_als(tensor((6, 5, 7)), 2, n_init=3, **arguments)


def test_what_is_not_finite():
    x = tensor((6, 5, 7))
    x[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match=r"1 non-finite values of 210, the first at \(1, 2, 3\)"):
        tf.cp_als(x, 2, n_init=3)
    with pytest.raises(FloatingPointError, match="no longer finite"):
        tf.cp_als(x, 2, n_init=3, check_finite=False)


def test_several_starts_are_explained():
    x = np.full((200, 200, 200), np.nan, dtype=np.float32)
    one, eight = (tf.explain("cp_als", x, 8, n_init=k) for k in (1, 8))
    assert eight.engine == one.engine == "torch"
    assert eight.schedule.endswith(", 8 of 8 starts at a time, 64 columns")
    assert 8 * one.seconds > eight.seconds > one.seconds
    assert one.workspace < eight.workspace <= 200**3 * 4 // 2
    many = tf.explain("cp_als", x, 8, n_init=30)
    assert many.schedule.endswith("12 of 30 starts at a time, 96 columns")
    assert many.workspace <= 200**3 * 4 // 2
    assert many.seconds > 2 * tf.explain("cp_als", x, 8, n_init=12).seconds
    with FakeTensorMode():
        plan = tf.explain("cp_als", torch.empty(512, 512, 512, device="cuda"), 32, n_init=4)
        assert plan.reasons[0].startswith("kernels contract")
        assert plan.schedule.endswith("128 columns")
