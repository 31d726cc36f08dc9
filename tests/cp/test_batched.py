"""A batch of fits gives, tensor by tensor, what fits one by one give."""

import itertools

import numpy as np
import pytest
import tensorly as tl
import torch
from tensorly.decomposition import parafac

import tensorfast as tf
from tensorfast import reference
from tensorfast.cp import batch as batched
from tensorfast.cp.batch.operand import BatchOperand
from tensorfast.cp.schedule import all_schedules
from tensorfast.testing import planted, random_cp

SHAPES = [(7, 6), (6, 5, 7), (4, 5, 3, 6), (3, 4, 2, 3, 4)]
RANK = 3


def tensors(count, shape, rank=RANK, noise=0.1, dtype=torch.float64):
    return torch.stack(
        [planted(shape, rank, noise=noise, seed=seed, dtype=dtype)[0] for seed in range(count)]
    )


def starts(count, shape, rank=RANK, dtype=torch.float64):
    found = [random_cp(shape, rank, seed=50 + seed, dtype=dtype) for seed in range(count)]
    weights = torch.stack([w for w, _ in found])
    return weights, [torch.stack([f[n] for _, f in found]) for n in range(len(shape))]


def one(model, index):
    weights, factors = model
    return weights[index], [f[index] for f in factors]


def assert_each_as_alone(x, model, start, rank=RANK, rel=1e-9, **options):
    """Hold every tensor's factors, errors and status to the fit of that tensor alone."""
    for i in range(len(x)):
        alone = tf.cp_als(x[i], rank, init=one(start, i), **options)
        info = model.info[i]
        assert (info.status, info.n_iter) == (alone.info.status, alone.info.n_iter), i
        np.testing.assert_allclose(info.rel_errors, alone.info.rel_errors, rtol=rel, atol=rel)
        assert ("singular" in info.message) == ("singular" in alone.info.message)
        mine = one(model, i)
        for a, b in zip((mine[0], *mine[1]), (alone.weights, *alone.factors), strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            gap = float(torch.linalg.vector_norm(a - b))
            assert gap <= 100 * rel * float(torch.linalg.vector_norm(b)), (i, gap)


def plain_als(x, factors, sweeps):
    """ALS as a textbook has it, by the reference and dense least squares, in double precision."""
    factors = [f.clone() for f in factors]
    for _ in range(sweeps):
        for n in range(x.ndim):
            others = [f for m, f in enumerate(factors) if m != n]
            design = reference.khatri_rao(others)
            factors[n] = torch.linalg.lstsq(design, tf.unfold(x, n).mT).solution.mT.contiguous()
    return factors


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_plain_als(shape):
    x, (weights, factors) = tensors(4, shape), starts(4, shape)
    model = tf.cp_als(
        x, RANK, batch_dims=1, init=(weights, factors), n_iter_max=4, tol=0, normalize=False
    )
    for i in range(4):
        begin = [f[i] for f in factors]
        begin[0] = begin[0] * weights[i]
        for got, want in zip(model.factors, plain_als(x[i], begin, 4), strict=True):
            torch.testing.assert_close(got[i], want, rtol=1e-7, atol=1e-8)
        exact = tf.relative_error(x[i], one(model, i))
        assert model.info[i].rel_errors[-1] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tol", [0, 1e-3, 1e-6])
def test_each_is_as_alone(shape, tol):
    x, start = tensors(6, shape), starts(6, shape)
    options = {"tol": tol, "n_iter_max": 60}
    model = tf.cp_als(x, RANK, batch_dims=1, init=start, **options)
    assert_each_as_alone(x, model, start, rel=1e-7, **options)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("chunk", [1, 500])
def test_however_the_batch_is_cut(count, chunk, monkeypatch):
    """Into chunks of one tensor, of two, or whole."""
    x, start = tensors(count, (6, 5, 7)), starts(count, (6, 5, 7))
    whole = tf.cp_als(x, RANK, batch_dims=1, init=start, tol=1e-5)
    monkeypatch.setattr(batched, "SLAB", chunk)
    model = tf.cp_als(x, RANK, batch_dims=1, init=start, tol=1e-5)
    assert_each_as_alone(x, model, start, rel=1e-8, tol=1e-5)
    for a, b in zip((whole.weights, *whole.factors), (model.weights, *model.factors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("batch", [(2, 3), (3, 1, 2), (1,), (4,)], ids=str)
def test_several_batch_axes(batch):
    shape, count = (5, 4, 6), int(np.prod(batch))
    x, (weights, factors) = tensors(count, shape), starts(count, shape)
    start = weights.view(*batch, RANK), [f.view(*batch, *f.shape[1:]) for f in factors]
    model = tf.cp_als(x.view(*batch, *shape), RANK, batch_dims=len(batch), init=start)
    assert model.weights.shape == (*batch, RANK)
    assert [tuple(f.shape) for f in model.factors] == [(*batch, n, RANK) for n in shape]
    assert (model.shape, model.rank, model.batch_shape) == (shape, RANK, batch)
    assert model.info.n_iter.shape == model.info.shape == batch
    flat = tf.cp_als(x, RANK, batch_dims=1, init=(weights, factors))
    assert list(model.info) == list(flat.info)
    for i, index in enumerate(itertools.product(*map(range, batch))):
        assert model.info[index] == flat.info[i]
        own, other = model.at(index), flat.at(i)
        assert torch.equal(own.weights, other.weights)
        assert all(torch.equal(a, b) for a, b in zip(own.factors, other.factors, strict=True))


@pytest.mark.parametrize("fixed", [(0,), (1,), (-1,), (0, 2), (1, 2)], ids=str)
def test_fixed_modes_are_kept_bit_for_bit(fixed):
    shape = (6, 5, 7)
    x, start = tensors(5, shape), starts(5, shape)
    model = tf.cp_als(x, RANK, batch_dims=1, init=start, fixed_modes=fixed, tol=1e-4)
    for n in fixed:
        assert torch.equal(model.factors[n], start[1][n])
    assert_each_as_alone(x, model, start, rel=1e-8, fixed_modes=fixed, tol=1e-4)


@pytest.mark.parametrize("l2_reg", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_l2_reg(l2_reg, normalize):
    x, start = tensors(4, (6, 5, 7)), starts(4, (6, 5, 7))
    options = {"l2_reg": l2_reg, "normalize": normalize, "tol": 1e-7, "n_iter_max": 200}
    model = tf.cp_als(x, RANK, batch_dims=1, init=start, **options)
    assert_each_as_alone(x, model, start, rel=1e-6, **options)


def test_each_ends_when_it_is_done():
    """At once, after some sweeps, never: and none is moved by what others do afterwards."""
    shape = (6, 5, 7)
    exact, (weights, factors) = planted(shape, RANK, seed=3)
    easy, hard = tensors(2, shape), tf.cp_to_tensor(random_cp(shape, RANK, congruence=0.95))
    x = torch.stack([exact, easy[0], hard, easy[1], exact])
    w, f = starts(5, shape)
    for i in (0, 4):
        w[i] = weights
        for n in range(3):
            f[n][i] = factors[n]
    options = {"tol": 1e-7, "n_iter_max": 150}
    model = tf.cp_als(x, RANK, batch_dims=1, init=(w, f), **options)
    assert_each_as_alone(x, model, (w, f), rel=1e-6, **options)
    sweeps = model.info.n_iter
    assert sweeps[0] == sweeps[4] <= 2 < sweeps[1] < 150 == sweeps[2]
    assert model.info.status[2] == "max_iter"
    # Frozen, and not merely little changed.
    assert float(torch.linalg.vector_norm(tf.cp_to_tensor(model.at(0)) - exact)) < 1e-13


def test_what_is_done_is_dropped_from_the_work(monkeypatch):
    """A quarter of what is worked on is done at most, when a sweep begins."""
    seen, kept = [], BatchOperand.keep

    def keep(operand, index):
        before = len(operand)
        kept(operand, index)
        seen.append((before, len(operand)))

    monkeypatch.setattr(BatchOperand, "keep", keep)
    shape = (6, 5, 7)
    x = torch.stack(
        [
            tf.cp_to_tensor(random_cp(shape, 3, seed=s % 6, congruence=0.1 * (s % 8)))
            for s in range(16)
        ]
    )
    model = tf.cp_als(x, 3, batch_dims=1, init=starts(16, shape), tol=1e-5, n_iter_max=200)
    assert len(set(model.info.n_iter.tolist())) > 4
    assert len(seen) > 2
    assert all(after <= 0.75 * before for before, after in seen)
    assert seen[-1][1] <= 4


@pytest.mark.parametrize("schedule", [*all_schedules(range(3)), *all_schedules(range(4))], ids=str)
def test_every_schedule_gives_the_same(schedule, monkeypatch):
    """Also where tensors are done in the middle of its cycle."""
    monkeypatch.setattr(BatchOperand, "schedule", lambda *_: schedule)
    shape = (6, 5, 7, 4)[: 1 + max(map(max, schedule.runs))]
    truths = [random_cp(shape, RANK, seed=s % 6, congruence=0.1 * s) for s in range(8)]
    x = torch.stack([tf.cp_to_tensor(truth) for truth in truths])
    start, options = starts(8, shape), {"tol": 1e-5, "n_iter_max": 120}
    model = tf.cp_als(x, RANK, batch_dims=1, init=start, **options)
    assert len(set(model.info.n_iter.tolist())) > 4
    assert_each_as_alone(x, model, start, rel=1e-6, **options)


def test_all_done_at_once():
    x, truth = planted((6, 5, 7), RANK, dtype=torch.float32)
    start = truth[0].expand(8, RANK), [f.expand(8, *f.shape) for f in truth[1]]
    model = tf.cp_als(x.expand(8, 6, 5, 7), RANK, batch_dims=1, init=start)
    assert set(model.info.status) == {"precision_limit"}
    assert set(model.info.n_iter) == {1}
    assert model.info.converged.all()


def border(shape, seed):
    """Border rank 2: two components that diverge."""
    g = torch.Generator().manual_seed(seed)
    pairs = [torch.randn(2, n, dtype=torch.float64, generator=g) for n in shape]
    terms = [[pair[int(n == place)] for n, pair in enumerate(pairs)] for place in range(3)]
    return sum(torch.einsum("i,j,k->ijk", *vectors) for vectors in terms)


@pytest.mark.parametrize("tol", [0, 1e-6])
def test_degenerate_tensors_are_told_from_the_others(tol):
    shape = (6, 5, 7)
    x = torch.stack([border(shape, 0), *tensors(2, shape, 2), border(shape, 1), border(shape, 2)])
    start = starts(5, shape, 2)
    options = {"n_iter_max": 300, "tol": tol}
    model = tf.cp_als(x, 2, batch_dims=1, init=start, **options)
    assert list(model.info.status == "degenerate") == [True, False, False, True, True]
    for i in range(5):
        alone = tf.cp_als(x[i], 2, init=one(start, i), **options).info
        assert model.info[i].status == alone.status
        assert model.info[i].rel_errors[-1] == pytest.approx(alone.rel_errors[-1], rel=1e-3)
        assert ("diverge against each other" in model.info[i].message) == (i in (0, 3, 4))


def test_degenerate_tensors_that_others_leave_behind():
    """The first are done between the sweeps at which the components of all are noted."""
    shape = (6, 5, 7)
    slow = [tf.cp_to_tensor(random_cp(shape, 3, seed=s, congruence=0.7)) for s in (0, 2, 4)]
    x = torch.stack([*slow, *(border(shape, seed) for seed in (2, 6, 12))])
    weights, factors = starts(13, shape, 2)
    order = [0, 2, 4, 2, 6, 12]
    start = weights[order], [f[order] for f in factors]
    options = {"tol": 1e-6, "n_iter_max": 100}
    info = tf.cp_als(x, 2, batch_dims=1, init=start, **options).info
    assert (info.n_iter[:3] > 32).all()
    assert (info.n_iter[:3] < 64).all()
    for i in range(6):
        alone = tf.cp_als(x[i], 2, init=one(start, i), **options).info
        assert info[i].status == alone.status
    assert set(info.status[3:]) == {"degenerate"}


@pytest.mark.parametrize("kind", ["zero", "rank 1", "constant", "equal columns", "zero column"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_singular_tensor_among_others(kind, dtype):
    shape = (6, 5, 7)
    x, (weights, factors) = tensors(5, shape, dtype=dtype), starts(5, shape, dtype=dtype)
    if kind == "zero":
        x[1] = 0
    elif kind == "rank 1":
        x[1] = planted(shape, 1, dtype=dtype)[0]
    elif kind == "constant":
        x[1] = 3.5
    else:
        for f in factors:
            f[1, :, 1] = 0 if kind == "zero column" else f[1, :, 0]
    options = {"tol": 1e-6, "n_iter_max": 60}
    start = weights, factors
    model = tf.cp_als(x, RANK, batch_dims=1, init=start, **options)
    alone = tf.cp_als(x[1], RANK, init=one(start, 1), **options)
    assert ("singular" in model.info[1].message) == ("singular" in alone.info.message)
    assert model.info[1].rel_errors[-1] == pytest.approx(alone.info.rel_errors[-1], abs=2e-5)
    assert all(torch.isfinite(f).all() for f in (model.weights, *model.factors))
    others = [0, 2, 3, 4]
    assert not any("singular" in model.info[i].message for i in others)
    rest = tf.cp_als(x[others], RANK, batch_dims=1, init=one(start, others), **options)
    for at, i in enumerate(others):
        assert model.info[i].status == rest.info[at].status
        assert abs(model.info[i].n_iter - rest.info[at].n_iter) <= (dtype == torch.float32)
        assert model.info[i].rel_errors[-1] == pytest.approx(rest.info[at].rel_errors[-1], abs=2e-6)


def test_zero_rank_1_and_nan_in_one_batch():
    """The line of the contract: the bad one is named, and replaced it leaves the rest alone."""
    x = tensors(6, (16, 16, 16), dtype=torch.float32)
    x[1], x[2] = 0, planted((16, 16, 16), 1, dtype=torch.float32)[0]
    whole = tf.cp_als(x, 4, batch_dims=1, seed=0, n_iter_max=50)
    bad = x.clone()
    bad[4, 1, 2, 3] = torch.nan
    with pytest.raises(
        ValueError,
        match=r"x has 1 non-finite values of 24576, the first at \(4, 1, 2, 3\).*"
        r"1 of 6 tensors, at batch index 4",
    ):
        tf.cp_als(bad, 4, batch_dims=1, seed=0)
    bad[4] = 1.0
    model = tf.cp_als(bad, 4, batch_dims=1, seed=0, n_iter_max=50)
    for i in (0, 1, 2, 3, 5):
        assert model.info[i].status == whole.info[i].status
        np.testing.assert_allclose(
            model.info[i].rel_errors, whole.info[i].rel_errors, rtol=1e-5, atol=1e-6
        )
    assert model.info.rel_error[1] == 0
    assert model.info.rel_error[2] < 1e-5
    assert torch.equal(tf.cp_to_tensor(model.at(1)), x[1])


@pytest.mark.parametrize("init", ["svd", "random"])
def test_a_start_depends_on_seed_and_index_only(init):
    """Not on how many tensors there are, nor on what they are."""
    x = tensors(70, (6, 5, 4), 2)
    options = {"batch_dims": 1, "init": init, "n_iter_max": 3, "tol": 0}
    whole = tf.cp_als(x, 2, seed=7, **options)
    again = tf.cp_als(x, 2, seed=7, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole.factors, again.factors, strict=True))
    assert whole.info == again.info
    state = torch.Generator().manual_seed(7)
    assert tf.cp_als(x, 2, seed=state, **options).info == whole.info
    assert tf.cp_als(x, 2, seed=state, **options).info != whole.info
    assert tf.cp_als(x, 2, seed=8, **options).info != whole.info
    other = x.clone()
    other[3] = 1.0
    other[66] = 0.0
    for few in (tf.cp_als(x[:66], 2, seed=7, **options), tf.cp_als(other, 2, seed=7, **options)):
        for i in (0, 1, 2, 4, 30, 63, 64, 65):
            for a, b in zip(whole.factors, few.factors, strict=True):
                torch.testing.assert_close(a[i], b[i], rtol=1e-9, atol=1e-9)
    # Two tensors with the same data start apart.
    twins = tf.cp_als(x[:1].expand(2, 6, 5, 4), 2, seed=7, **options)
    assert not torch.equal(twins.factors[0][0], twins.factors[0][1]) or init == "svd"


@pytest.mark.parametrize(
    ("shape", "rank"), [((6, 5, 7), 3), ((5, 140, 3), 3), ((3, 2, 9, 4), 2)], ids=str
)
def test_the_svd_start_is_as_good_as_alone(shape, rank):
    """By Gram matrices, and by sketches."""
    x = tensors(6, shape, rank, noise=0.3)
    model = tf.cp_als(x, rank, batch_dims=1, seed=0, n_iter_max=1)
    for i in range(6):
        alone = tf.cp_als(x[i], rank, seed=0, n_iter_max=1).info.rel_errors[0]
        assert model.info[i].rel_errors[0] == pytest.approx(alone, rel=0.1)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25, 1e30])
def test_tensors_at_the_ends_of_the_range(scale):
    shape = (6, 5, 7)
    x = tensors(4, shape, dtype=torch.float32)
    scales = torch.tensor([1.0, scale, 0.0, 1 / scale])[:, None, None, None]
    options = {"batch_dims": 1, "seed": 0, "n_iter_max": 15, "tol": 0}
    plain, model = (tf.cp_als(y, RANK, **options) for y in (x, x * scales))
    for i in (0, 1, 3):
        np.testing.assert_allclose(
            model.info[i].rel_errors, plain.info[i].rel_errors, rtol=1e-4, atol=1e-6
        )
        torch.testing.assert_close(
            model.weights[i], plain.weights[i] * scales[i, 0, 0, 0], rtol=1e-3, atol=0
        )
    assert model.info.rel_error[2] == 0
    start = starts(4, shape, dtype=torch.float32)
    given = {"tol": 0, "n_iter_max": 8, "fixed_modes": (1,), "l2_reg": 0.1}
    big = tf.cp_als(x * scales, RANK, batch_dims=1, init=start, **given)
    assert torch.equal(big.factors[1], start[1][1])
    for i in (0, 1, 3):
        alone = tf.cp_als((x * scales)[i], RANK, init=one(start, i), **given).info.rel_errors
        np.testing.assert_allclose(big.info[i].rel_errors, alone, rtol=1e-3)


def test_what_overflows_in_double_precision():
    x = tensors(3, (6, 5, 7), 1, noise=0)
    x[1] *= 1e200
    model = tf.cp_als(x, 1, batch_dims=1, seed=0)
    assert (model.info.rel_error < 1e-6).all()
    assert all(torch.isfinite(f).all() for f in (model.weights, *model.factors))


@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-4, 1e-5, 1e-6, 0.0])
def test_the_error_is_true(noise):
    x = tensors(4, (16, 12, 10), noise=noise, dtype=torch.float32)
    model = tf.cp_als(x, RANK, batch_dims=1, seed=0, n_iter_max=60, tol=0, normalize=False)
    for i in range(4):
        exact = tf.relative_error(x[i], one(model, i))
        assert model.info[i].rel_errors[-1] == pytest.approx(exact, rel=0.02)
        assert model.info[i].fit == 1 - model.info[i].rel_errors[-1]


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_errors_are_those_of_tensorly(backend):
    """Tensor by tensor, from the same starts, in single precision."""
    before = tl.get_backend()
    tl.set_backend(backend)
    try:
        shape, count, rank = (16, 16, 16), 10, 8
        x = tensors(count, shape, rank, dtype=torch.float32)
        g = torch.Generator().manual_seed(0)
        factors = [torch.randn(count, n, rank, generator=g) for n in shape]
        model = tf.cp_als(x, rank, batch_dims=1, init=(None, factors), n_iter_max=50, tol=0)
        for i in range(count):
            start = [f[i].numpy() if backend == "numpy" else f[i] for f in factors]
            theirs = parafac(
                x[i].numpy() if backend == "numpy" else x[i],
                rank,
                n_iter_max=50,
                init=tl.cp_tensor.CPTensor((None, start)),
                tol=-1.0,
            )
            error = tf.relative_error(x[i], theirs)
            assert tf.relative_error(x[i], model.at(i)) == pytest.approx(error, abs=1e-5)
    finally:
        tl.set_backend(before)


def test_tensors_too_large_for_a_model_in_one_piece():
    """Their exact residuals are computed slab by slab."""
    shape = (130, 100, 90)
    truths = [random_cp(shape, 2, seed=seed, dtype=torch.float32) for seed in range(2)]
    x = torch.stack([tf.cp_to_tensor(truth) for truth in truths])
    start = (
        torch.stack([w for w, _ in truths]),
        [torch.stack([f[n] for _, f in truths]) for n in range(3)],
    )
    model = tf.cp_als(x, 2, batch_dims=1, init=start, n_iter_max=2, tol=0, normalize=False)
    for i in range(2):
        exact = tf.relative_error(x[i], one(model, i))
        assert 0 < exact < 1e-6
        assert model.info[i].rel_errors[-1] == pytest.approx(exact, rel=1e-3)
