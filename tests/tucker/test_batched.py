"""A batch of Tucker models is, tensor by tensor, what the calls for one give."""

import itertools
import math

import numpy as np
import pytest
import tensorly as tl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import tensorfast as tf
from tensorfast.batch import Ledger
from tensorfast.convergence import fast_relative_error
from tensorfast.testing import planted
from tensorfast.tucker import batch as batched
from tensorfast.tucker.batch import model as batched_model
from tensorfast.tucker.shared import scalars
from tests.tucker.batches import (
    CASES,
    assert_each_as_alone,
    assert_same_model,
    sensitivity,
    tensors,
)

cases = pytest.mark.parametrize(("shape", "rank"), CASES, ids=lambda v: "x".join(map(str, v)))
METHODS = {"hooi": tf.hooi, "sthosvd": tf.sthosvd, "hosvd": tf.hosvd}
every = pytest.mark.parametrize("method", METHODS)


@cases
@pytest.mark.parametrize("method", ["sthosvd", "hosvd"])
def test_each_truncation_is_as_alone(shape, rank, method):
    x = tensors(5, shape)
    model = METHODS[method](x, rank, batch_dims=1)
    assert model.core.shape == (5, *rank)
    assert [tuple(f.shape) for f in model.factors] == [
        (5, n, r) for n, r in zip(shape, rank, strict=True)
    ]
    assert_each_as_alone(x, model, lambda one: METHODS[method](one, rank))


@cases
@pytest.mark.parametrize("init", ["sthosvd", "random"])
@pytest.mark.parametrize("tol", [0, 1e-3, 1e-7])
def test_each_iteration_is_as_alone(shape, rank, init, tol):
    x = tensors(6, shape)
    options = {"init": init, "seed": 3, "tol": tol, "n_iter_max": 12 if tol == 0 else 300}
    model = tf.hooi(x, rank, batch_dims=1, **options)
    assert_each_as_alone(x, model, lambda one: tf.hooi(one, rank, **options))


@every
def test_single_precision_is_near_double(method):
    """The oracle in double precision, whose sweeps are as many."""
    x = tensors(6, (8, 7, 6), noise=0.1, dtype=torch.float32)
    options = {"n_iter_max": 8, "tol": 0} if method == "hooi" else {}
    model = METHODS[method](x, 4, batch_dims=1, **options)
    assert model.core.dtype == model.factors[0].dtype == torch.float32
    for i in range(6):
        alone = METHODS[method](x[i].double(), 4, **options)
        sweeps = alone.info.n_iter
        assert_same_model(x[i], model.at(i), alone, sweeps=sweeps)


def test_mode_order_counts_after_the_batch():
    x = tensors(3, (8, 7, 6))
    for order in itertools.permutations(range(3)):
        model = tf.sthosvd(x, (3, 2, 4), mode_order=order, batch_dims=1)
        assert_each_as_alone(
            x, model, lambda one, order=order: tf.sthosvd(one, (3, 2, 4), mode_order=order)
        )


@every
def test_tucker_is_the_front_door(method):
    x = tensors(3, (8, 7, 6))
    mine, theirs = tf.tucker(x, 2, method=method, batch_dims=1), METHODS[method](x, 2, batch_dims=1)
    pairs = zip((mine.core, *mine.factors), (theirs.core, *theirs.factors), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("chunk", [1, 500, 700])
@every
def test_however_the_batch_is_cut(count, chunk, method, monkeypatch):
    """Into tensors that are larger than a chunk, chunks of one, of two; or whole."""
    x = tensors(count, (8, 7, 6))
    options = {"tol": 1e-5} if method == "hooi" else {}
    for module in (batched, batched_model):
        monkeypatch.setattr(module, "SLAB", chunk)
    model = METHODS[method](x, 3, batch_dims=1, **options)
    assert_each_as_alone(x, model, lambda one: METHODS[method](one, 3, **options))


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(8)),
    method=st.sampled_from(sorted(METHODS)),
    init=st.sampled_from(["sthosvd", "random"]),
    seed=st.integers(0, 99),
)
def test_permuting_the_batch_permutes_the_results(order, method, init, seed):
    x = tensors(8, (6, 5, 7))
    options = {"init": init, "seed": seed, "tol": 1e-4} if method == "hooi" else {}
    plain = METHODS[method](x, 2, batch_dims=1, **options)
    moved = METHODS[method](x[list(order)], 2, batch_dims=1, **options)
    for place, i in enumerate(order):
        assert moved.info[place].status == plain.info[i].status
        assert moved.info[place].n_iter == plain.info[i].n_iter
        assert_same_model(x[i], moved.at(place), plain.at(i), sweeps=plain.info[i].n_iter)


@pytest.mark.parametrize("batch", [(2, 3), (3, 1, 2), (1,), (4,)], ids=str)
@every
def test_several_batch_axes(batch, method):
    shape, count = (5, 4, 6), math.prod(batch)
    x = tensors(count, shape)
    model = METHODS[method](x.view(*batch, *shape), 2, batch_dims=len(batch))
    assert model.core.shape == (*batch, 2, 2, 2)
    assert [tuple(f.shape) for f in model.factors] == [(*batch, n, 2) for n in shape]
    assert (model.shape, model.rank, model.batch_shape) == (shape, (2, 2, 2), batch)
    assert model.info.n_iter.shape == model.info.shape == batch
    flat = METHODS[method](x, 2, batch_dims=1)
    assert list(model.info) == list(flat.info)
    for i, index in enumerate(itertools.product(*map(range, batch))):
        own, other = model.at(index), flat.at(i)
        assert own.info is model.info[index]
        assert torch.equal(own.core, other.core)
        assert all(torch.equal(a, b) for a, b in zip(own.factors, other.factors, strict=True))


def exact(shape, rank, seed):
    """Return a tensor of this multilinear rank, done as soon as it is looked at."""
    g = torch.Generator().manual_seed(seed)
    core = torch.randn(rank, dtype=torch.float64, generator=g)
    sizes = zip(shape, rank, strict=True)
    return tf.multi_ttm(
        core, [torch.randn(n, r, dtype=torch.float64, generator=g) for n, r in sizes]
    )


def mixed():
    """Return tensors that take one sweep, some, and many."""
    shape = (9, 8, 7)
    hard = [torch.randn(shape, generator=torch.Generator().manual_seed(s)).double() for s in (1, 2)]
    easy = tensors(4, shape, noise=0.2)
    first, second = (exact(shape, (2, 2, 2), seed) for seed in (0, 1))
    return torch.stack([first, easy[0], hard[0], easy[1], second, hard[1], easy[2], easy[3]])


@pytest.mark.parametrize("watched", [True, False])
def test_each_ends_when_it_is_done(watched):
    x, options = mixed(), {"tol": 1e-9, "n_iter_max": 40, "init": "random", "seed": 0}
    model = tf.hooi(x, 2, batch_dims=1, callback=(lambda *_: False) if watched else None, **options)
    sweeps = model.info.n_iter
    assert sweeps[0] <= 3
    assert sweeps[4] <= 3
    assert len(set(sweeps.tolist())) > 3
    assert model.info.status[0] == "precision_limit"
    assert model.info.status[2] == model.info.status[5] == "max_iter"
    alone = [tf.hooi(one, 2, **options) for one in x]
    assert sweeps.tolist() == [m.info.n_iter for m in alone]
    assert model.info.status.tolist() == [m.info.status for m in alone]
    for i in range(len(x)):
        assert_same_model(x[i], model.at(i), alone[i], sweeps=10 * int(sweeps[i]))


def test_what_is_done_stays_to_the_bit():
    """While the others go on, whether it is still among what is worked on or dropped."""
    x, seen = mixed(), []

    def callback(sweep, errors, factors):
        seen.append((errors.copy(), [f.clone() for f in factors]))

    options = {"tol": 1e-9, "n_iter_max": 40, "init": "random", "seed": 0}
    model = tf.hooi(x, 2, batch_dims=1, callback=callback, **options)
    assert len(seen) == 40
    for i, ended in enumerate(model.info.n_iter):
        for errors, factors in seen[ended - 1 :]:
            assert errors[i] == model.info[i].rel_errors[-1]
            assert all(torch.equal(a[i], b[i]) for a, b in zip(factors, model.factors, strict=True))
        # The core is the one that belongs to these factors.
        core = tf.multi_ttm(x[i], [f[i] for f in model.factors], transpose=True)
        gap = float(torch.linalg.vector_norm(core - model.core[i]))
        assert gap <= 100 * torch.finfo(x.dtype).eps * float(torch.linalg.vector_norm(core))
    assert not torch.equal(seen[-2][1][0][2], seen[-1][1][0][2])


def test_what_is_done_is_dropped_from_the_work(monkeypatch):
    """A quarter of what is worked on is done at most, when a sweep begins."""
    seen, drop = [], Ledger.drop

    def dropped(ledger):
        before = len(ledger.places)
        index = drop(ledger)
        if index is not None:
            seen.append((before, len(ledger.places)))
        return index

    monkeypatch.setattr(Ledger, "drop", dropped)
    x = torch.cat([mixed(), mixed() + 0.01 * tensors(8, (9, 8, 7))])
    model = tf.hooi(x, 2, batch_dims=1, tol=1e-8, n_iter_max=100, init="random", seed=0)
    assert len(set(model.info.n_iter.tolist())) > 4
    assert len(seen) > 2
    assert all(after <= 0.75 * before for before, after in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-5, 1e-7, 0.0])
@every
def test_the_error_is_true(method, noise, dtype):
    made = [exact((8, 7, 6), (2, 3, 2), s) for s in range(4)]
    x = torch.stack([y + noise * y.std() * torch.randn_like(y) for y in made]).to(dtype)
    model = METHODS[method](x, (2, 3, 2), batch_dims=1)
    found = tf.relative_error(x, model)
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(model.info.rel_error, found, rtol=0.02, atol=2 * eps)
    assert (found < 2 * noise + 20 * eps).all()


@pytest.mark.parametrize("rank", [(5, 1, 1), (9, 2, 2), 2], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every
def test_singular_tensors_among_others(rank, dtype, method):
    """Zero, constant, of rank 1, and ranks above what there is, or all there is."""
    x = tensors(5, (9, 2, 2), dtype=dtype)
    x[1], x[2], x[3] = 0, 3.5, planted((9, 2, 2), 1, dtype=dtype)[0]
    options = {"n_iter_max": 5, "seed": 0} if method == "hooi" else {}
    model = METHODS[method](x, rank, batch_dims=1, **options)
    eps = torch.finfo(dtype).eps
    for f in model.factors:
        eye = torch.eye(f.shape[-1], dtype=dtype).expand(5, -1, -1)
        assert float((f.mT @ f - eye).abs().max()) < 100 * eps
    assert model.info.rel_error[1] == 0
    assert (model.info.rel_error[1:4] < 50 * eps).all()
    for i in range(5):
        alone = METHODS[method](x[i], rank, **options).info
        # Of five directions only one is told apart where the others keep one: the rest are any.
        rounding = 8 * alone.n_iter * 6 * eps if rank != (5, 1, 1) else 1e-6
        assert model.info[i].rel_errors[-1] == pytest.approx(alone.rel_errors[-1], abs=rounding)
        assert (model.info[i].status, model.info[i].n_iter) == (alone.status, alone.n_iter)
    rest = METHODS[method](x[[0, 4]], rank, batch_dims=1, **options)
    for at, i in enumerate((0, 4)):
        assert model.info[i].n_iter == rest.info[at].n_iter
        assert model.info[i].rel_errors[-1] == pytest.approx(rest.info[at].rel_errors[-1], rel=1e-5)


@pytest.mark.parametrize("decades", [7, 9, 12])
def test_values_that_a_gram_matrix_loses(decades):
    """Singular values far below the largest are found by orthogonal reductions, as alone."""
    g = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=g)).Q
    v = torch.linalg.qr(torch.randn(42, 6, dtype=torch.float64, generator=g)).Q
    values = torch.tensor([1, 1e-1, 10.0**-decades, 1e-2 * 10.0**-decades, 0, 0]).double()
    x = torch.stack([(u * values @ v.T).view(6, 7, 6), tensors(1, (6, 7, 6))[0]])
    model = tf.hosvd(x, (3, 7, 6), batch_dims=1)
    found, true = model.factors[0][0], u[:, :3]
    assert float((found @ found.T - true @ true.T).norm()) < 0.1
    assert_same_model(x[1], model.at(1), tf.hosvd(x[1], (3, 7, 6)))


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("chunk", [1 << 20, 500])
@every
def test_each_tensor_has_a_scale_of_its_own(scale, chunk, method, monkeypatch):
    monkeypatch.setattr(batched, "SLAB", chunk)
    x = tensors(4, (8, 7, 6), dtype=torch.float32)
    scales = torch.tensor([1.0, scale, 0.0, 1 / scale], dtype=torch.float64)[:, None, None, None]
    scaled = (x * scales).clamp(-3e38, 3e38).float()
    plain, model = (METHODS[method](y, 3, batch_dims=1) for y in (x, scaled))
    # Numbers near the bottom of the range have fewer digits; what is not finite was cut above.
    relative = 1e-3 if scale < 1e-38 else 1e-5
    for i in (0, 1, 3):
        if scale == 1e-40 and i == 3:
            continue
        assert model.info[i].rel_errors[-1] == pytest.approx(
            plain.info[i].rel_errors[-1], rel=relative
        )
        norms = [float(torch.linalg.vector_norm(m.core[i].double())) for m in (plain, model)]
        assert norms[1] / norms[0] == pytest.approx(float(scales[i]), rel=relative)
    assert model.info.rel_error[2] == 0


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160, 1e200])
@every
def test_what_over_or_underflows_in_double_precision(scale, method):
    x = tensors(3, (8, 7, 6))
    plain = METHODS[method](x, 3, batch_dims=1)
    x[1] *= scale
    model = METHODS[method](x, 3, batch_dims=1)
    np.testing.assert_allclose(model.info.rel_error, plain.info.rel_error, rtol=1e-9)
    assert float((model.core[1] / scale).norm()) == pytest.approx(float(plain.core[1].norm()))


@every
def test_nan_in_one_tensor(method):
    """The bad one is named, and replaced it leaves the rest alone."""
    x = tensors(6, (8, 7, 6))
    whole = METHODS[method](x, 3, batch_dims=1)
    bad = x.clone()
    bad[4, 1, 2, 3] = torch.nan
    with pytest.raises(
        ValueError,
        match=rf"^{method}: x has 1 non-finite values of 2016, the first at \(4, 1, 2, 3\).*"
        r"fill or drop them; they are in 1 of 6 tensors, at batch index 4$",
    ):
        METHODS[method](bad, 3, batch_dims=1)
    bad[1, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"2 of 6 tensors, at batch index \(0, 1\), \(1, 1\)$"):
        METHODS[method](bad.view(2, 3, 8, 7, 6), 3, batch_dims=2)
    bad[1], bad[4] = x[1], 1.0
    model = METHODS[method](bad, 3, batch_dims=1)
    for i in (0, 1, 2, 3, 5):
        assert model.info[i].status == whole.info[i].status
        assert model.info[i].n_iter == whole.info[i].n_iter
        assert_same_model(x[i], model.at(i), whole.at(i), sweeps=whole.info[i].n_iter)


@pytest.mark.parametrize("shape", [(7, 6, 5), (200, 5, 6)], ids=str)
@pytest.mark.parametrize("init", ["sthosvd", "random"])
def test_a_seed_gives_the_same_bits(shape, init):
    """For any batch, and a sketch is that of the tensor alone with this seed."""
    x = tensors(3, shape)
    options = {"init": init, "n_iter_max": 2, "tol": 0}
    one, two = (tf.hooi(x, 3, batch_dims=1, seed=5, **options) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.factors, two.factors, strict=True))
    assert one.info == two.info
    assert_each_as_alone(x, one, lambda y: tf.hooi(y, 3, seed=5, **options))
    other = tf.hooi(x, 3, batch_dims=1, seed=6, **options)
    same = all(torch.equal(a, b) for a, b in zip(one.factors, other.factors, strict=True))
    assert same == (init == "sthosvd" and shape[0] < 128)
    # A generator goes on as after a single call.
    mine, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    assert tf.hooi(x, 3, batch_dims=1, seed=mine, **options).info == one.info
    tf.hooi(x[0], 3, seed=theirs, **options)
    assert torch.equal(mine.get_state(), theirs.get_state())


@every
@pytest.mark.parametrize("chunk", [1 << 20, 6000, 1])
def test_sketches_of_long_modes(method, chunk, monkeypatch):
    """By the same random numbers whichever chunk a tensor is in, or larger than one."""
    for module in (batched, batched_model):
        monkeypatch.setattr(module, "SLAB", chunk)
    x = tensors(3, (200, 5, 6))
    options = {"seed": 0, "n_iter_max": 3, "tol": 0} if method == "hooi" else {}
    model = METHODS[method](x, (4, 3, 3), batch_dims=1, **options)
    assert_each_as_alone(x, model, lambda y: METHODS[method](y, (4, 3, 3), **options))


def test_a_given_start_is_used_and_not_touched():
    x = tensors(4, (8, 7, 6))
    options = {"batch_dims": 1, "tol": 0}
    given_ = tf.hooi(x, (3, 2, 4), init="random", seed=3, n_iter_max=2, **options)
    before = [f.clone() for f in given_.factors]
    whole = tf.hooi(x, (3, 2, 4), init="random", seed=3, n_iter_max=5, **options)
    skewed = [f @ torch.randn(f.shape[-1], f.shape[-1], dtype=f.dtype) for f in given_.factors]
    for start in (given_, tuple(given_), (given_.core, skewed)):
        more = tf.hooi(x, (3, 2, 4), init=start, n_iter_max=3, **options)
        for i in range(4):
            np.testing.assert_allclose(
                more.info[i].rel_errors, whole.info[i].rel_errors[2:], rtol=1e-9
            )
    assert all(torch.equal(a, b) for a, b in zip(before, given_.factors, strict=True))


def test_errors_never_increase():
    x = tensors(8, (8, 7, 6), noise=1.0)
    info = tf.hooi(x, 3, batch_dims=1, init="random", seed=0, n_iter_max=20, tol=0).info
    assert all(max(np.diff(one.rel_errors)) <= 1e-12 for one in info)


@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
@cases
def test_never_behind_tensorly(shape, rank, backend):
    """Tensor by tensor, from the same start, and no further off."""
    before = tl.get_backend()
    tl.set_backend(backend)
    try:
        x = tensors(3, shape)
        start = tf.sthosvd(x, rank, batch_dims=1)
        ours = tf.hooi(x, rank, batch_dims=1, init=start, n_iter_max=20, tol=0)
        for i in range(3):
            kind = (lambda t: t.numpy()) if backend == "numpy" else (lambda t: t)
            begin = kind(start.core[i]), [kind(f[i]) for f in start.factors]
            theirs = tl.decomposition.tucker(
                kind(x[i]), rank=list(rank), init=begin, n_iter_max=20, tol=0
            )
            error = tf.relative_error(kind(x[i]), theirs)
            assert tf.relative_error(x[i], ours.at(i)) <= error * (1 + 1e-6)
    finally:
        tl.set_backend(before)


class Reads(TorchDispatchMode):
    """Counts what waits for a device: numbers that are read, and results of unknown length."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default
        self.count += func in waits
        return func(*args, **(kwargs or {}))


@every
@pytest.mark.parametrize("noise", [0.5, 1e-6])
def test_the_host_reads_as_often_for_many_tensors_as_for_a_few(method, noise):
    """Residuals themselves among it, and tensors of an extreme scale."""
    options = {"n_iter_max": 4, "tol": 0, "seed": 0} if method == "hooi" else {}
    counts = []
    for count in (5, 50):
        x = tensors(count, (8, 7, 6), noise=noise, dtype=torch.float32)
        x[:3] *= 1e-30
        with Reads() as reads:
            METHODS[method](x, 4, batch_dims=1, **options)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
def test_errors_by_scalars_are_those_of_one(dtype):
    """Also where factors are not quite orthonormal, and where the digits are lost."""
    x = tensors(4, (8, 7, 6), noise=0.2, dtype=dtype)
    x[3] = exact((8, 7, 6), (3, 3, 3), 0)
    model = tf.hosvd(x, 3, batch_dims=1)
    factors = [f * (1 + 1e-3 * n) for n, f in enumerate(model.factors)]
    squared = torch.linalg.vector_norm(x.flatten(1), dim=1).double().square()
    errors, lost = batched_model.fast_errors(model.core, factors, squared, dtype)
    for i in range(4):
        inner, model_squared = scalars(model.core[i], [f[i] for f in factors])
        alone = fast_relative_error(float(squared[i]), float(inner), float(model_squared), dtype)
        assert bool(lost[i]) == (alone is None)
        if alone is not None:
            # Of squares near 1, rounded a few times in float64.
            assert float(errors[i]) == pytest.approx(alone, rel=1e-12 / alone**2)
    untouched = batched_model.fast_errors(model.core, model.factors, squared, dtype)[0]
    assert float((untouched - errors).abs().max()) > 1e-4


def test_sensitivity_tells_what_is_close():
    """The measure of the other tests: near ties are sensitive, gaps are not."""
    diagonal = torch.diag(torch.tensor([3.0, 2.0, 1.999, 0.5], dtype=torch.float64))
    assert sensitivity(diagonal, tf.hosvd(diagonal, 1)) < 2
    assert sensitivity(diagonal, tf.hosvd(diagonal, 2)) > 500
