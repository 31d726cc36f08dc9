"""Choosing the backend: for everything, for a thread, for a block, and what was there before."""

import inspect
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from .common import FUNCTIONS, chosen, core, tl

import tensorfast.backends.tensorly as backend  # isort: skip

ROOT = Path(__file__).resolve().parents[3]
tenalg = tl.tenalg


@pytest.fixture(autouse=True)
def restored():
    """Put back what TensorLy had chosen, for all threads and for this one."""
    manager = type(tenalg)
    before = manager._backend, manager._default_backend
    with chosen(tenalg, lambda: None):
        yield
    manager._backend, manager._default_backend = before
    backend.register(share=True)


def state():
    """Return all that decides which backend this thread uses."""
    local = dict(tenalg._THREAD_LOCAL_DATA.__dict__)
    return local, tenalg._backend, tenalg._default_backend


def in_a_thread(work, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *args).result(timeout=60)


def name():
    return tenalg.get_backend()


# --- for everything, or for a thread ---


def test_to_register_twice_is_to_register_once_and_chooses_nothing():
    before = state()
    for share in (True, False, True):
        backend.register(share=share)
    backend.register()
    assert tenalg.available_backend_names.count("tensorfast") == 1
    assert state() == before
    tenalg.set_backend("tensorfast")
    first = tenalg.current_backend()
    backend.register()
    tenalg.set_backend("tensorfast")
    assert tenalg.current_backend() is first
    assert name() == first.backend_name == "tensorfast"


def test_the_others_are_there_still():
    backend.register()
    for other in ("einsum", "core"):
        tenalg.set_backend(other)
        assert name() == other
    with pytest.raises(ValueError, match="nonsense"):
        tenalg.set_backend("nonsense")


def test_set_for_all_threads():
    backend.set_backend()
    assert name() == in_a_thread(name) == "tensorfast"
    tenalg.set_backend("core")
    assert name() == in_a_thread(name) == "core"


def test_set_for_one_thread():
    def elsewhere():
        backend.set_backend(local_threadsafe=True)
        return name()

    backend.register()
    assert in_a_thread(elsewhere) == "tensorfast"
    assert name() == in_a_thread(name) == "core"
    backend.set_backend(local_threadsafe=True)
    assert name() == "tensorfast"
    assert in_a_thread(name) == "core"


def test_sharing_is_not_switched_on_again_by_setting():
    """Who switched it off keeps it off, until it is switched on."""
    x = np.random.default_rng(0).standard_normal((20, 20, 20, 20))
    cp = tl.random.random_cp(x.shape, 32, random_state=0)

    def shares():
        before = backend.reused()
        with backend.active():
            tl.decomposition.parafac(x, 32, init=cp, n_iter_max=2, tol=1e-30)
        return backend.reused() > before

    assert isinstance(backend.reused(), int)
    assert shares()
    backend.register(share=False)
    backend.set_backend()
    assert not shares()
    backend.register(share=True)
    assert shares()


# --- for a block ---


@pytest.mark.parametrize("here", ["core", "einsum", "tensorfast", None])
def test_what_was_there_before_is_there_after(here):
    backend.register()
    local = tenalg._THREAD_LOCAL_DATA.__dict__
    if here is None:
        del local["backend"]
    else:
        tenalg.set_backend(here, local_threadsafe=True)
    before = state()
    with backend.active() as nothing:
        assert nothing is None
        assert name() == "tensorfast"
        assert tenalg._backend is before[1]
        with backend.active():
            assert name() == "tensorfast"
        assert name() == "tensorfast"
    assert state() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_an_exception_gets_out_and_the_backend_with_it(error):
    before = state()
    with pytest.raises(error), backend.active(), backend.active():
        raise error
    assert state() == before


def test_another_choice_inside_ends_with_the_block():
    before = state()
    with backend.active():
        tenalg.set_backend("einsum", local_threadsafe=True)
        assert name() == "einsum"
        with backend.active():
            assert name() == "tensorfast"
        assert name() == "einsum"
    assert state() == before


@pytest.mark.skipif(
    not hasattr(tenalg, "_backend_base_class"),
    reason="TensorLy's own context cannot restore a backend before version 0.10",
)
def test_inside_tensorlys_own_context():
    with tenalg.backend_context("einsum", local_threadsafe=True):
        with backend.active():
            assert name() == "tensorfast"
        assert name() == "einsum"


def test_a_thread_that_had_chosen_nothing_follows_the_others_again():
    def work():
        with backend.active():
            inside.wait(timeout=60)
            changed.wait(timeout=60)
            assert name() == "tensorfast"
        assert tenalg._THREAD_LOCAL_DATA.__dict__ == {}
        return name()

    inside, changed = threading.Barrier(2), threading.Barrier(2)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        inside.wait(timeout=60)
        assert name() == "core"
        tenalg.set_backend("einsum")
        changed.wait(timeout=60)
        assert done.result(timeout=60) == "einsum"


def test_a_thread_that_had_chosen_keeps_its_choice():
    def work():
        tenalg.set_backend("core", local_threadsafe=True)
        with backend.active():
            inside.wait(timeout=60)
            changed.wait(timeout=60)
            assert name() == "tensorfast"
        return name()

    inside, changed = threading.Barrier(2), threading.Barrier(2)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        inside.wait(timeout=60)
        tenalg.set_backend("einsum")
        changed.wait(timeout=60)
        assert done.result(timeout=60) == "core"
    assert name() == "einsum"


def test_threads_in_and_out_of_blocks_that_overlap():
    """The first in is the first out, and neither sees the other's block."""
    steps = [threading.Barrier(2) for _ in range(4)]

    def first():
        with backend.active():
            steps[0].wait(timeout=60)
            steps[1].wait(timeout=60)
            assert name() == "tensorfast"
        assert name() == "core"
        steps[2].wait(timeout=60)
        steps[3].wait(timeout=60)

    def second():
        steps[0].wait(timeout=60)
        assert name() == "core"
        with backend.active():
            steps[1].wait(timeout=60)
            steps[2].wait(timeout=60)
            assert name() == "tensorfast"
        assert name() == "core"
        steps[3].wait(timeout=60)

    before = state()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(timeout=60)
    assert state() == before


def test_many_threads_register_and_use_it_at_once():
    start = threading.Barrier(8)
    x = np.arange(24.0).reshape(2, 3, 4)
    expected = core("mode_dot")(x, np.ones((5, 3)), 1)

    def work():
        start.wait(timeout=60)
        for _ in range(50):
            assert name() == "core"
            with backend.active():
                np.testing.assert_allclose(tenalg.mode_dot(x, np.ones((5, 3)), 1), expected)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result(timeout=60)
    assert tenalg.available_backend_names.count("tensorfast") == 1


# --- what TensorLy sees ---


@pytest.mark.parametrize("function", FUNCTIONS)
def test_signatures_are_tensorlys(function):
    with backend.active():
        own = inspect.signature(getattr(tenalg.current_backend(), function))
    theirs = inspect.signature(core(function))
    assert [(p.name, p.kind, p.default) for p in own.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]


def test_functions_that_were_imported_before_are_ours_inside():
    from tensorly.tenalg import unfolding_dot_khatri_rao

    x, factors = np.ones((2, 3)), [np.ones((2, 2)), np.ones((3, 2))]
    weights = np.array([2.0, 3.0])
    dropped = unfolding_dot_khatri_rao(x, (weights, factors), 0)
    np.testing.assert_array_equal(dropped, [[3, 3], [3, 3]])
    with backend.active():
        # Core drops the weights of a matrix.
        kept = unfolding_dot_khatri_rao(x, (weights, factors), 0)
    np.testing.assert_array_equal(kept, [[6, 9], [6, 9]])


# --- what is imported, in a process of its own ---


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("place", ["decomposition.parafac", "tenalg.unfolding_dot_khatri_rao"])
def test_functions_that_others_have_wrapped_before(place):
    module, _ = place.split(".")
    code = f"""
from functools import partial
from tensorly import {module}
{place} = partial({place})
import tensorfast.backends.tensorly as backend
backend.set_backend()
"""
    python(code)


def test_a_function_in_the_place_of_tensorlys_is_no_loop_of_its():
    """It may do anything to its tensor."""
    code = """
import numpy as np
from tensorly import decomposition, tenalg

def parafac(x, factors):
    for mode in [0, 1, 2, 3] * 2:
        found = tenalg.unfolding_dot_khatri_rao(x, (None, factors), mode)
        expected = tenalg.core_tenalg.unfolding_dot_khatri_rao(x, (None, factors), mode)
        assert np.allclose(found, expected)
        factors[mode] = found / np.abs(found).max()
        x *= -1.5

decomposition.parafac = parafac
import tensorfast.backends.tensorly as backend
rng = np.random.default_rng(0)
with backend.active():
    parafac(rng.random((20, 20, 20, 20)), [rng.random((20, 32)) for _ in range(4)])
"""
    python(code)


def test_tensorly_is_imported_by_no_other_module_and_missed_by_name():
    code = """
import sys, tensorfast, tensorfast.backends
assert not any(name.partition(".")[0] == "tensorly" for name in sys.modules)
class Hidden:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "tensorly":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
try:
    import tensorfast.backends.tensorly
except ImportError as error:
    print(error)
"""
    message = python(code)
    assert "pip install" in message
    assert "tensorly" in message


def test_threads_that_register_first_and_a_backend_from_the_environment():
    code = """
import sys, threading, tensorfast.backends.tensorly as backend, tensorly as tl
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def work():
    start.wait()
    backend.register()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert tl.tenalg.available_backend_names.count("tensorfast") == 1
assert tl.tenalg.get_backend() == "einsum"
with backend.active():
    assert tl.tenalg.get_backend() == "tensorfast"
assert tl.tenalg.get_backend() == "einsum"
backend.set_backend()
assert tl.tenalg.get_backend() == "tensorfast"
"""
    python(code, TENSORLY_TENALG_BACKEND="einsum")
