"""HOOI launched ahead of its errors gives what the plain loop gives, bit for bit."""

import itertools

import pytest
import torch

import tensorfast as tf
from tensorfast.ahead import loop
from tensorfast.convergence import StoppingRule
from tensorfast.ops import small
from tensorfast.tucker import ahead as engine
from tensorfast.tucker import sweep as sweeps
from tensorfast.tucker.ahead import RECORDED, hooi_ahead
from tensorfast.tucker.iteration import hooi_plainly
from tests.ahead.standins import Directly, Recorder, Tape, factorize, judged, report
from tests.tucker.test_hooi import CASES, exact_error, multilinear, noisy

cases = pytest.mark.parametrize(("shape", "rank"), CASES, ids=lambda v: "x".join(map(str, v)))


def start_for(x, rank, seed=0):
    g = torch.Generator().manual_seed(seed)
    draws = [
        torch.randn(n, r, generator=g, dtype=x.dtype) for n, r in zip(x.shape, rank, strict=True)
    ]
    return [torch.linalg.qr(a).Q for a in draws]


def both(x, rank, tol=1e-6, n_iter_max=40, seed=0, callbacks=(None, None), **options):
    """Fit by the plain loop and by chunks."""
    squared = float(torch.linalg.vector_norm(x.double()) ** 2)
    start = start_for(x, rank, seed)
    rules = [StoppingRule(tol, x.dtype) for _ in range(2)]
    about = {"n_iter_max": n_iter_max}
    plain = hooi_plainly(x, start, squared, rules[0], callback=callbacks[0], **about)
    options = {"capture": Directly, "chunk": 3, "judge": judged} | options
    there = hooi_ahead(x, start, squared, rules[1], callback=callbacks[1], **about, **options)
    return plain, there


def equal(plain, there):
    """Whether two fits are the same in every bit, and in every word."""
    ours, theirs = ([fit.core, *fit.factors] for fit in (plain, there))
    assert [f.tolist() for f in ours] == [f.tolist() for f in theirs]
    assert plain[2:] == there[2:]


@cases
@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("capture", [None, Directly, Tape], ids=str)
def test_the_fit_is_that_of_the_plain_loop(shape, rank, chunk, capture):
    for dtype in (torch.float64, torch.float32):
        equal(*both(noisy(shape, 0, dtype), rank, chunk=chunk, capture=capture, n_iter_max=12))


@pytest.mark.parametrize("tol", [0.0, 1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("n_iter_max", [1, 4, 33])
def test_every_way_to_end(tol, n_iter_max):
    seen = set()
    for seed, dtype in itertools.product(range(3), (torch.float64, torch.float32)):
        for x in (noisy((12, 11, 10), seed, dtype), multilinear((12, 11, 10), (4, 3, 5), dtype)):
            plain, there = both(x, (4, 3, 5), tol, n_iter_max, seed)
            equal(plain, there)
            seen.add(there.status)
    assert seen <= {"converged", "max_iter", "precision_limit"}
    assert len(seen) > (n_iter_max > 4 and tol > 0)


def test_each_sweep_of_the_cycle_is_recorded_once():
    recorder = Recorder()
    equal(*both(noisy((7, 6, 5, 8)), (3, 2, 4, 3), tol=0, n_iter_max=11, capture=recorder))
    # Four modes in runs of three: three sweeps are four runs.
    assert recorder.recorded == 3


def test_where_nothing_can_be_recorded_the_fit_goes_on_and_says_so():
    def refused(step):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    plain, there = both(noisy((12, 11, 10)), (4, 3, 5), tol=0, n_iter_max=9, capture=refused)
    assert there.remark == " No graph of the sweep was made: operation not permitted."
    equal(plain, there._replace(remark=""))


def test_a_callback_sees_every_sweep_and_may_stop():
    calls = ([], [])
    plain, there = both(noisy((12, 11, 10)), (4, 3, 5), tol=0, callbacks=[*map(report, calls)])
    equal(plain, there)
    assert there.status == "stopped"
    for one, other in zip(*calls, strict=True):
        assert one[:2] == other[:2]
        assert all(torch.equal(f, g) for f, g in zip(one[2], other[2], strict=True))


def test_where_something_is_raised_all_that_was_launched_has_ended(monkeypatch):
    read, chunk_read = [], loop._Chunk.read
    monkeypatch.setattr(loop._Chunk, "read", lambda self: read.append(self) or chunk_read(self))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "exact_error", interrupted)
    with pytest.raises(KeyboardInterrupt):
        both(multilinear((12, 11, 10), (4, 3, 5), torch.float64), (4, 3, 5), tol=0)
    assert len(read) == loop.AHEAD


def test_what_is_given_is_not_modified():
    x, rank = noisy((12, 11, 10)), (4, 3, 5)
    start = start_for(x, rank)
    given = [f.clone() for f in start]
    hooi_ahead(x, start, 1.0, StoppingRule(0, x.dtype), n_iter_max=2, judge=judged)
    assert all(torch.equal(f, g) for f, g in zip(start, given, strict=True))


@pytest.fixture
def shelf():
    RECORDED.clear()
    yield RECORDED
    RECORDED.clear()


def test_a_second_fit_of_other_data_in_the_same_place_replays_the_first(shelf, monkeypatch):
    made = []
    improved = engine.improved
    monkeypatch.setattr(engine, "improved", lambda *a: made.append(a) or improved(*a))
    x = noisy((12, 11, 10))
    for seed in range(3):
        x.copy_(noisy((12, 11, 10), seed))
        made.clear()
        plain, there = both(x, (4, 3, 5), seed=seed, capture=Tape, keep=True, n_iter_max=9)
        equal(plain, there)
        # A cycle of two sweeps launched directly, and recorded.
        assert len(made) == (0 if seed else 2 * 2 * 3)
        assert len(shelf) == 1
        there.core.fill_(7)
    both(x, (4, 3, 4), capture=Tape, keep=True, n_iter_max=9)
    assert len(shelf) == 2


def test_what_was_recorded_in_inference_mode_serves_outside_of_it_and_back(shelf):
    x = noisy((12, 11, 10))
    for mode in (True, False, True):
        with torch.inference_mode(mode), torch.no_grad():
            plain, there = both(x, (4, 3, 5), capture=Tape, keep=True, n_iter_max=9)
        equal(plain, there)
        assert len(shelf) == 1


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((64, 40), (4, 4)), ((40, 30, 24), (5, 4, 3)), ((20, 9, 8, 7), (3, 2, 2, 2))],
)
@pytest.mark.parametrize("kind", ["noisy", "exact", "zero", "rank 1"])
def test_bases_by_cholesky_factors_serve_as_well(monkeypatch, shape, rank, kind):
    for seed, dtype in itertools.product(range(2), (torch.float64, torch.float32)):
        x = {
            "noisy": noisy(shape, seed, dtype),
            "exact": multilinear(shape, rank, dtype),
            "zero": torch.zeros(shape, dtype=dtype),
            "rank 1": torch.ones(shape, dtype=dtype),
        }[kind]
        options = {"init": "random", "seed": seed, "n_iter_max": 10, "tol": 0}
        expected = tf.hooi(x, rank, **options).info.rel_errors[-1]
        with monkeypatch.context() as patch:
            patch.setattr(sweeps, "orthonormal", lambda a: small.cholesky_qr(a, factorize))
            model = tf.hooi(x, rank, **options)
        eps = torch.finfo(dtype).eps
        for f in model.factors:
            gap = f.double().T @ f.double() - torch.eye(f.shape[1], dtype=torch.float64)
            assert float(gap.abs().max()) <= 8 * f.shape[0] * eps
        error = exact_error(x, model) if kind != "zero" else 0.0
        assert error <= expected * (1 + 1e-6) + 100 * eps
