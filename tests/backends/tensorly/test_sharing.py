"""Partial results that MTTKRPs share: never those of other operands than the call's own.

Loops in the order of alternating least squares, disturbed between the calls in every way that
NumPy and torch know to change an array; each result is held to the operands of that moment.
"""

from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tensorfast import reference
from tensorfast.testing import assert_close

from .changes import ways
from .common import LIBRARIES, arrays_of, in_threads, outcome, plain, tl, wide

import tensorfast.backends.tensorly as backend  # isort: skip

# Long enough that a loop of one's own shares as well, short enough for many examples.
SIZES = (((20, 20, 20, 20), 32), ((9, 9, 9, 9, 9), 64), ((60, 60, 60), 64))
FEW = hypothesis.settings(max_examples=40, report_multiple_bugs=False)
MANY = hypothesis.settings(FEW, max_examples=1000)


@pytest.fixture(autouse=True)
def shared():
    backend.register(share=True)
    yield
    backend.register(share=True)


class Sweep:
    """A loop of MTTKRPs, each compared with a fresh one."""

    def __init__(self, library: str, shape=SIZES[0][0], rank=SIZES[0][1], dtype="float64", seed=0):
        self.random = np.random.default_rng(seed)
        self.library, self.dtype, self.rank = library, dtype, rank
        self.x = self.normal(*shape)
        self.factors = [self.normal(n, rank) for n in shape]
        self.weights: Any = None
        self.mode = 0
        self.result: Any = None
        #: What was returned, and what it was then.
        self.returned: list[tuple[Any, torch.Tensor]] = []

    def normal(self, *shape: int) -> Any:
        values = self.random.standard_normal(shape).astype(self.dtype)
        return values if self.library == "numpy" else torch.from_numpy(values)

    def mttkrp(self) -> Any:
        """Take that of the next mode, which is held to the operands as they are."""
        cp = (self.weights, self.factors)
        self.result = tl.tenalg.unfolding_dot_khatri_rao(self.x, cp, self.mode)
        assert_mttkrp(self.result, self.x, cp, self.mode)
        return self.result

    def step(self) -> None:
        """Take the MTTKRP of the next mode and update its factor, as TensorLy's methods do."""
        self.returned.append((self.mttkrp(), plain(self.result).clone()))
        self.factors[self.mode] = self.normal(len(self.factors[self.mode]), self.rank)
        self.mode = (self.mode + 1) % len(self.factors)

    def nothing_returned_has_changed(self) -> None:
        for result, then in self.returned:
            assert torch.equal(plain(result), then)


def assert_mttkrp(result: Any, x: Any, cp: Any, mode: int, rows: slice = slice(None)) -> None:
    weights, factors = cp
    x, others = in_double(x), [in_double(f) for n, f in enumerate(factors) if n != mode]
    w = None if weights is None else in_double(weights)
    exact = reference.mttkrp(x, others, mode, w)
    absolute = None if w is None else w.abs()
    scale = reference.mttkrp(x.abs(), [f.abs() for f in others], mode, absolute)
    length = x.numel() // x.shape[mode] + x.ndim
    assert_close(plain(result)[rows], exact[rows], scale[rows], length)


def in_double(array: Any) -> torch.Tensor:
    return plain(wide(array))


class Disturbance:
    """Draws what a user does between two calls."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw

    def pick(self, choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def some_mode(self, s: Sweep) -> int:
        return self.draw(st.integers(0, len(s.factors) - 1))

    def in_place(self, s: Sweep, array: Any) -> None:
        # Not every way is open to every layout.
        outcome(self.pick(ways(s.library)), array)

    def factor_in_place(self, s: Sweep) -> None:
        self.in_place(s, s.factors[self.some_mode(s)])

    def tensor_in_place(self, s: Sweep) -> None:
        self.in_place(s, s.x)

    def in_place_and_back(self, s: Sweep) -> None:
        for array in (s.x, s.factors[self.some_mode(s)]):
            array *= -2
            array *= -0.5

    def factor_replaced(self, s: Sweep) -> None:
        mode = self.some_mode(s)
        s.factors[mode] = s.normal(*s.factors[mode].shape)

    def factors_copied(self, s: Sweep) -> None:
        s.factors = [f * 1 for f in s.factors]

    def factors_swapped(self, s: Sweep) -> None:
        a, b = self.some_mode(s), self.some_mode(s)
        s.factors[a], s.factors[b] = s.factors[b], s.factors[a]

    def factors_the_same(self, s: Sweep) -> None:
        a, b = self.some_mode(s), self.some_mode(s)
        s.factors[a] = s.factors[b]

    def factor_is_a_result(self, s: Sweep) -> None:
        if s.result is not None and s.result.shape == s.factors[0].shape:
            s.factors[self.some_mode(s)] = s.result / abs(s.result).max()
            s.factors[self.some_mode(s)] = s.returned.pop()[0]

    def result_in_place(self, s: Sweep) -> None:
        if s.returned:
            s.returned.pop()[0][:] = 7

    def tensor_replaced(self, s: Sweep) -> None:
        shape = s.x.shape
        s.x = None
        s.x = s.normal(*shape)

    def tensor_copied(self, s: Sweep) -> None:
        s.x = s.x * 1

    def tensor_from_elsewhere(self, s: Sweep) -> None:
        """Take one that lies where the one before it lay."""
        kept, where = s.x * 2, id(s.x)
        shape = s.x.shape
        s.x = None
        for _ in range(5):
            x = s.normal(*shape)
            if id(x) == where:
                break
        s.x = kept if id(kept) == where else x

    def tensor_laid_out_differently(self, s: Sweep) -> None:
        if s.library == "numpy":
            s.x = self.pick((np.asfortranarray, lambda a: a[::-1], lambda a: a.T))(s.x)
        else:
            s.x = self.pick((lambda a: a.mT.contiguous().mT, lambda a: a.mT))(s.x)

    def weights_changed(self, s: Sweep) -> None:
        s.weights = self.pick((None, s.normal(s.rank)))

    def weights_in_place(self, s: Sweep) -> None:
        if s.weights is not None:
            s.weights *= -2

    def mode_jumped_to(self, s: Sweep) -> None:
        s.mode = self.some_mode(s)

    def mode_repeated(self, s: Sweep) -> None:
        s.mttkrp()

    def rank_changed(self, s: Sweep) -> None:
        s.rank = self.pick((1, s.rank, s.rank + 1))
        s.factors = [s.normal(len(f), s.rank) for f in s.factors]
        s.weights = None

    def type_changed(self, s: Sweep) -> None:
        s.dtype = self.pick(("float32", "float64"))
        convert = getattr(torch, s.dtype) if s.library == "pytorch" else np.dtype(s.dtype)
        change = (
            (lambda a: a.to(convert)) if s.library == "pytorch" else (lambda a: a.astype(convert))
        )
        s.x, s.factors, s.weights = change(s.x), [change(f) for f in s.factors], None

    def refused(self, s: Sweep) -> None:
        bad = list(s.factors)
        bad[s.mode - 1] = s.normal(3, s.rank)
        error = outcome(tl.tenalg.unfolding_dot_khatri_rao, s.x, (None, bad), s.mode)
        assert isinstance(error, Exception)

    def another_tensor(self, s: Sweep) -> None:
        other = Sweep(s.library, tuple(s.x.shape), s.rank, s.dtype, seed=1)
        other.mode = s.mode
        other.step()
        other.step()

    def another_thread(self, s: Sweep) -> None:
        in_threads(lambda _: s.mttkrp(), 1, s.library)

    def gradients_wanted(self, s: Sweep) -> None:
        if s.library == "pytorch":
            with torch.enable_grad():
                leaf = s.factors[s.mode - 1].clone().requires_grad_()
                factors = [*s.factors]
                factors[s.mode - 1] = leaf
                result = tl.tenalg.unfolding_dot_khatri_rao(s.x, (s.weights, factors), s.mode)
                assert_mttkrp(result, s.x, (s.weights, factors), s.mode)
                result.sum().backward()
                assert leaf.grad.shape == leaf.shape

    def inference(self, s: Sweep) -> None:
        if s.library == "pytorch":
            with torch.inference_mode():
                s.mttkrp()


DISTURBANCES = [
    name
    for name, value in vars(Disturbance).items()
    if callable(value) and name not in ("__init__", "pick", "some_mode", "in_place", "inference")
]


def loop(data: st.DataObject) -> None:
    disturb = Disturbance(data)
    library = disturb.pick(LIBRARIES)
    shape, rank = disturb.pick(SIZES)
    dtype = "float32" if len(shape) == 3 else disturb.pick(("float64", "float32"))
    with arrays_of(library), backend.active():
        s = Sweep(library, shape, rank, dtype)
        before = backend.reused()
        s.step()
        for _ in range(disturb.draw(st.integers(1, 4 * len(shape)))):
            name = disturb.pick(["", "", "", *DISTURBANCES])
            if name:
                getattr(disturb, name)(s)
            s.step()
        s.nothing_returned_has_changed()
        hypothesis.event("reused" if backend.reused() > before else "not reused")


@hypothesis.settings(FEW)
@hypothesis.given(data=st.data())
def test_a_disturbed_loop(data):
    loop(data)


@pytest.mark.slow
@hypothesis.settings(MANY)
@hypothesis.given(data=st.data())
def test_a_disturbed_loop_in_a_thousand_examples(data):
    loop(data)


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_undisturbed_loop_shares(library):
    """Otherwise the tests of this file would say nothing."""
    with arrays_of(library), backend.active():
        s = Sweep(library)
        before = backend.reused()
        for _ in range(12):
            s.step()
        assert backend.reused() > before
        s.nothing_returned_has_changed()


@pytest.mark.parametrize("what", ["x", "factors"])
@pytest.mark.parametrize(
    ("library", "way"),
    [(library, way) for library in LIBRARIES for way in ways(library)],
    ids=lambda p: getattr(p, "__name__", p),
)
def test_each_way_to_change_an_array(library, way, what):
    with arrays_of(library), backend.active():
        s = Sweep(library)
        for at in range(8):
            s.step()
            way(s.x if what == "x" else s.factors[at % 3])


@pytest.mark.parametrize("special", [1e20, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_change_beside_a_value_that_swallows_it(library, special):
    """Who marks what is missing by a huge number still gets the rest right."""
    with arrays_of(library), backend.active():
        s = Sweep(library)
        for _ in range(8):
            s.x.reshape(-1)[0] = special
            result = tl.tenalg.unfolding_dot_khatri_rao(s.x, (None, s.factors), s.mode)
            # It is in the first slice of every mode.
            s.x.reshape(-1)[0] = 0
            assert_mttkrp(result, s.x, (None, s.factors), s.mode, rows=slice(1, None))
            s.factors[s.mode] = s.normal(*s.factors[s.mode].shape)
            s.mode = (s.mode + 1) % 4
            s.x.reshape(-1)[1000:2000] *= -1
