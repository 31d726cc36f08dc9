"""Recorded fits on a GPU: kept, taken by other streams and threads, freed."""

import threading

import pytest
import torch

import tensorfast as tf
from tensorfast.ahead import forget
from tensorfast.cp import ahead as cp
from tensorfast.testing import planted
from tensorfast.tucker import ahead as tucker

pytestmark = pytest.mark.gpu

SHAPE, RANK = (40, 36, 32), 5


@pytest.fixture(autouse=True)
def nothing_kept():
    forget()
    yield
    forget()


def data(seed=0):
    return planted(SHAPE, RANK, noise=0.2, seed=seed, dtype=torch.float32)[0].cuda()


def cp_als(x, **options):
    return tf.cp_als(x, RANK, init="random", seed=0, n_iter_max=12, tol=0, **options)


def hooi(x):
    return tf.hooi(x, RANK, init="random", seed=0, n_iter_max=6, tol=0)


def same(one, other):
    for a, b in zip(one[1], other[1], strict=True):
        assert torch.equal(a, b)
    assert one.info.rel_errors == other.info.rel_errors


@pytest.mark.parametrize(("fit", "shelf"), [(cp_als, cp.RECORDED), (hooi, tucker.RECORDED)])
def test_a_second_fit_in_the_same_place_is_the_same_as_a_fresh_one(fit, shelf):
    place, fresh = data(), []
    for seed in range(3):
        forget()
        fresh.append(fit(data(seed)))
    forget()
    for seed in range(3):
        place.copy_(data(seed))
        same(fit(place), fresh[seed])
        assert len(shelf) == 1


@pytest.mark.parametrize("fit", [cp_als, hooi])
def test_streams_take_turns(fit):
    x = data()
    expected = fit(x)
    for _ in range(4):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = fit(x)
        torch.cuda.current_stream().wait_stream(stream)
        same(found, expected)


@pytest.mark.parametrize("fit", [cp_als, hooi])
def test_threads_fit_the_same_tensor_at_once(fit):
    x, failed = data(), []
    expected = fit(x)

    def work():
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(5):
                    same(fit(x), expected)
        except Exception as error:
            failed.append(error)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_fit_that_is_given_up_takes_nothing_from_those_that_are_kept():
    x, other = data(), torch.randn(96, 80, 72, device="cuda")
    hooi(other)
    expected = hooi(x)
    for key in list(tucker.RECORDED._kept)[:1]:
        # The one that was recorded first.
        tucker.RECORDED.take(key)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    scrap = [torch.full((1 << 22,), float("nan"), device="cuda") for _ in range(16)]
    for _ in range(3):
        same(hooi(x), expected)
    assert all(bool(s.isnan().all()) for s in scrap)


def test_different_fits_of_one_thread_may_be_replayed_by_several_at_once():
    tensors, failed = [torch.randn(n, 80, 72, device="cuda") for n in (96, 100, 104, 108)], []
    expected = [hooi(x) for x in tensors]

    def work(x, expected):
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(5):
                    same(hooi(x), expected)
        except Exception as error:
            failed.append(error)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=a) for a in zip(tensors, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("fit", [cp_als, hooi])
def test_inference_mode_makes_no_difference(fit):
    x = data()
    with torch.inference_mode():
        expected = fit(x)
    same(fit(x), expected)
    with torch.inference_mode():
        same(fit(x), expected)


def test_what_is_forgotten_is_freed():
    x = data()
    fitted = cp_als(x)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    assert len(cp.RECORDED) == 1
    forget()
    assert torch.cuda.memory_allocated() < before
    assert fitted.info.n_iter == 12


def test_a_large_fit_is_not_kept():
    x = torch.randn(300, 300, 300, device="cuda")
    plan = tf.explain("cp_als", x, 64)
    assert not cp.RECORDED.holds(plan.workspace)
    tf.cp_als(x, 64, init="random", seed=0, n_iter_max=8, tol=0)
    assert len(cp.RECORDED) == 0


def test_the_workspace_is_no_more_than_was_said():
    for shape, rank in (((300, 300, 300), 32), ((64, 64, 64, 64), 16)):
        x = torch.randn(shape, device="cuda")
        for name in ("cp_als", "hooi"):
            said = tf.explain(name, x, rank).workspace
            start = {"init": "random", "seed": 0, "n_iter_max": 8, "tol": 0}
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            getattr(tf, name)(x, rank, **start)
            # Cublas takes its own once.
            assert torch.cuda.max_memory_allocated() - before <= said + (40 << 20), (name, shape)
            forget()
