"""What is remembered between MTTKRPs belongs to one thread, and goes when its tensor does."""

import contextlib
import gc
import itertools
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
import torch

from tensorfast.cp.plan import Machine

from .common import LIBRARIES, arrays_of, core, in_threads, outcome, tl
from .test_sharing import SIZES, Sweep, assert_mttkrp

import tensorfast.backends.tensorly as backend  # isort: skip
from tensorfast.backends.tensorly import sharing  # isort: skip


@pytest.fixture(autouse=True, scope="module")
def quick_collection():
    """Look at this file's garbage only: that of all libraries takes long."""
    gc.collect()
    gc.freeze()
    tracemalloc.start(1)
    yield
    tracemalloc.stop()
    gc.unfreeze()


def remembered() -> int:
    """Count the bytes of all arrays that somebody holds."""
    gc.collect()
    # By type alone: to look at some libraries' objects more closely is to wake them up.
    tensors = [a for a in gc.get_objects() if type(a) in (torch.Tensor, torch.nn.Parameter)]
    storages = {a.untyped_storage().data_ptr(): a.untyped_storage().nbytes() for a in tensors}
    numpys = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([numpys]).traces
    return sum(storages.values()) + sum(trace.size for trace in traces)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 10])
@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_outlives_the_tensor(library, steps):
    def loop():
        s = Sweep(library)
        for _ in range(steps):
            s.step()
        s.returned.clear()
        s.result = None
        return s

    with arrays_of(library), backend.active():
        # Of the tests before this one nothing shall be remembered.
        Sweep(library, (110, 110, 110), 1).step()
        before = remembered()
        s = loop()
        held = weakref.ref(s.x)
        s.x = None
        gc.collect()
        assert held() is None
        factors = sum(8 * f.shape[0] * f.shape[1] for f in s.factors)
        # The smallest partial result of this problem is that of two modes.
        assert remembered() - before < factors + 8 * 20 * 20 * 32 / 2


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("callback", [None, lambda cp, error: None], ids=["", "callback"])
def test_nothing_outlives_a_fit_and_its_tensor(library, callback):
    with arrays_of(library), backend.active():
        s = Sweep(library)
        fit(s.x, s.factors, callback)
        held = weakref.ref(s.x)
        s.x = None
        gc.collect()
        assert held() is None


def fit(x, factors, callback=None, sweeps=2, **options):
    """Fit from given factors, and not stop early."""
    start = tl.cp_tensor.CPTensor((None, [f * 1 for f in factors]))
    return tl.decomposition.parafac(
        x,
        factors[0].shape[1],
        n_iter_max=sweeps,
        init=start,
        tol=1e-30,
        callback=callback,
        **options,
    )


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("same", [False, True], ids=["own tensors", "one tensor"])
def test_threads_do_not_disturb_each_other(library, same):
    sweeps = [Sweep(library, seed=n) for n in range(2)]
    if same:
        sweeps[1].x = sweeps[0].x
    together = threading.Barrier(2)
    shared = [0, 0]

    def work(number):
        s, before = sweeps[number], backend.reused()
        for step in range(16):
            together.wait(timeout=60)
            if step % 5 == number:
                s.factors[0] *= -2
            s.step()
            together.wait(timeout=60)
            # While nobody computes.
            if step % 6 == 5 and number == 0:
                s.x *= -1.5
        s.nothing_returned_has_changed()
        shared[number] = backend.reused() - before

    here = backend.reused()
    in_threads(work, 2, library)
    assert backend.reused() == here
    assert min(shared) > 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_tensor_that_another_thread_changes_between_the_calls(library):
    with arrays_of(library), backend.active():
        s = Sweep(library)
        for _ in range(6):
            s.step()
            in_threads(lambda _: s.x.__imul__(-1.5), 1, library)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_thread_that_ends_leaves_nothing(library):
    s = Sweep(library)
    in_threads(lambda _: [s.step() for _ in range(2)], 1, library)
    held = weakref.ref(s.x)
    s.x = None
    gc.collect()
    assert held() is None


# --- the user's code that TensorLy's loops run: a callback ---


def disturbances(library):
    """Name what a callback may do to the tensor and the current factors."""

    def own_loop(x, factors):
        s = Sweep(library)
        s.x, s.factors = x, [f * 1 for f in factors]
        for _ in range(3):
            s.step()

    def slice_of(x, factors):
        x[:, 1:3] *= -1

    def one_entry(x, factors):
        x[3, 4, 5, 6] += 100

    def hidden(x, factors):
        if library == "pytorch":
            x = x.numpy()
        x.reshape(-1)[::9] *= -1

    def factor(x, factors):
        factors[1] *= 2
        factors[-1] -= 0.25

    def entries_of_the_list(x, factors):
        factors[0], factors[1] = factors[1], factors[0] * 1

    def another_fit(x, factors):
        fit(x, factors[::-1], sweeps=1)

    def of_another_tensor(x, factors):
        fit(Sweep(library, seed=5).x, factors, sweeps=1)

    def nested(x, factors):
        fit(x, factors, lambda cp, error: slice_of(x, None), sweeps=1)

    def that_fails(x, factors):
        def failing(cp, error):
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            fit(x, factors, failing)

    return {name: f for name, f in locals().items() if callable(f)}


@pytest.mark.parametrize("way", disturbances("numpy"))
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_a_callback_does(library, way):
    disturb = disturbances(library)[way]

    def factors():
        s = Sweep(library)

        def callback(cp, error):
            disturb(s.x, cp.factors)

        return fit(s.x, s.factors, callback, sweeps=3).factors

    with arrays_of(library):
        expected = factors()
        with backend.active():
            before = backend.reused()
            actual = factors()
            # Between its own sweeps nothing is shared, and within them there is.
            assert backend.reused() > before
    for got, want in zip(actual, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * float(abs(want).max()))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_fit_that_was_broken_off_and_taken_up_with_another_tensor_in_its_place(library):
    class Enough(Exception):
        pass

    calls = []

    def callback(cp, error):
        calls.append(error)
        if len(calls) == 2:
            raise Enough

    with arrays_of(library), backend.active():
        s = Sweep(library)
        with contextlib.suppress(Enough):
            fit(s.x, s.factors, callback)
        s.x *= -1.5
        for _ in range(5):
            s.step()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[2]], ids=str)
def test_every_mttkrp_of_a_fit(library, sizes, monkeypatch):
    """Look at each where TensorLy goes on with it: in the solve that follows."""
    seen = []
    with arrays_of(library), backend.active():
        array_backend = type(tl.backend.current_backend())
        solve = array_backend.solve

        def looking(a, b):
            frame = sys._getframe()
            while frame.f_code.co_name != "parafac":
                frame = frame.f_back
            at = frame.f_locals
            cp = (at["weights"], at["factors"])
            assert_mttkrp(at["mttkrp"], at["tensor"], cp, at["mode"])
            seen.append(at["mode"])
            return solve(a, b)

        monkeypatch.setattr(array_backend, "solve", staticmethod(looking))
        s = Sweep(library, *sizes)
        before = backend.reused()
        fit(s.x, s.factors, sweeps=3)
        assert backend.reused() > before
        assert seen == [*range(s.x.ndim)] * 3
        # The next begins in the place of the last.
        s.x *= 2
        fit(s.x, s.factors, sweeps=2)


class Interrupted:
    """Ctrl-C at one of the lines of a module, by their number."""

    def __init__(self, module, at):
        self.file, self.left = module.__file__, at

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(self.before)

    def trace(self, frame, event, arg):
        self.left -= event == "line"
        if event == "line" and self.left == 0:
            raise KeyboardInterrupt
        return self.trace if frame.f_code.co_filename == self.file else None


@pytest.mark.parametrize("changed", [0, 3])
@pytest.mark.parametrize("steps", [4, 5])
@pytest.mark.parametrize("library", LIBRARIES)
def test_an_interrupt_at_any_line_and_a_loop_that_goes_on(library, steps, changed, monkeypatch):
    """Whoever catches it may change any factor, ask again and go on."""
    monkeypatch.setattr("tensorfast.backends.tensorly.algebra.SMALL", 0)
    monkeypatch.setattr(sharing, "CPU", Machine(call=0))
    before = backend.reused()
    with arrays_of(library), backend.active():
        for line in itertools.count(1):
            s = Sweep(library, (2, 3, 4, 5), 3)
            for _ in range(steps):
                s.step()
            with contextlib.suppress(KeyboardInterrupt), Interrupted(sharing, line):
                s.mttkrp()
                break
            mode = (s.mode + changed) % 4
            s.factors[mode] = s.normal(*s.factors[mode].shape)
            s.step()
            s.step()
    assert line > 20
    assert backend.reused() - before > line


@pytest.mark.parametrize("library", LIBRARIES)
def test_bad_input_in_the_middle_of_a_loop(library):
    with arrays_of(library), backend.active():
        s = Sweep(library)
        for step in range(8):
            s.step()
            bad = [*s.factors]
            bad[step % 4] = None
            mode = (step + 1) % 4
            error = outcome(tl.tenalg.unfolding_dot_khatri_rao, s.x, (None, bad), mode)
            assert isinstance(error, Exception)


def test_gradients_with_and_without_in_one_loop():
    with arrays_of("pytorch"), backend.active():
        s = Sweep("pytorch")
        s.x.requires_grad_()
        for step in range(12):
            with torch.set_grad_enabled(step % 3 == 0):
                s.step()
                assert s.result.requires_grad == (step % 3 == 0)


@pytest.mark.parametrize("at", range(9))
def test_a_call_in_inference_mode_in_a_loop(at):
    with arrays_of("pytorch"), backend.active():
        s = Sweep("pytorch")
        for step in range(16):
            if step == at:
                with torch.inference_mode():
                    s.mttkrp()
            s.step()


@pytest.mark.parametrize("what", ["x", "factors"])
def test_forward_derivatives_in_a_loop(what):
    unfolding_dot_khatri_rao = core("unfolding_dot_khatri_rao")
    with arrays_of("pytorch"), backend.active(), torch.autograd.forward_ad.dual_level():
        s = Sweep("pytorch")

        def dual(a):
            return torch.autograd.forward_ad.make_dual(a, s.normal(*a.shape))

        def tangent(a):
            return torch.autograd.forward_ad.unpack_dual(a).tangent

        x = dual(s.x) if what == "x" else s.x
        for step in range(8):
            factors = [*s.factors]
            if what == "factors":
                # The same numbers as before, other derivatives.
                factors[(step + 2) % 4] = dual(factors[(step + 2) % 4])
            args = x, (None, factors), step % 4
            torch.testing.assert_close(
                tangent(tl.tenalg.unfolding_dot_khatri_rao(*args)),
                tangent(unfolding_dot_khatri_rao(*args)),
            )
