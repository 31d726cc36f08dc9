"""Sweeps launched ahead of their errors give what the plain loop gives, bit for bit."""

import itertools

import pytest
import torch

from tensorfast import baseline
from tensorfast.cp.ahead import RECORDED, als_ahead
from tensorfast.cp.als import als, scalars
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.schedule import all_schedules
from tensorfast.cp.stopping import DivergenceWatch, hadamard
from tensorfast.cp.update import LeastSquares
from tensorfast.testing import planted
from tests.ahead.standins import Directly, Recorder, Tape, judged, report


class Algebra:
    """The small algebra in plain torch: what the kernels do on the device."""

    def __init__(self, rule):
        self.rule = rule
        self.frozen = 0

    def update(self, fit, mode, product):
        gram = hadamard([g for n, g in enumerate(fit.grams) if n != mode])
        if not fit.standing.active:
            self.frozen += 1
            return
        fit.factors[mode].copy_(self.rule(gram, product, fit.factors[mode]))
        fit.grams[mode].copy_(baseline.gram_of_columns(fit.factors[mode]))
        fit.standing.ridge.fill_(self.rule.ridge)

    def judge(self, fit, mode, product):
        judged(fit.standing, torch.stack(scalars(product, fit.factors[mode], fit.grams)))


def equal(a, b):
    """Whether two fits are the same in every bit, and in every word."""
    (factors, info), (others, other) = a, b
    assert all(torch.equal(f, g) for f, g in zip(factors, others, strict=True))
    assert info == other


def problem(shape, rank, noise, dtype, seed=0):
    x = planted(shape, rank, noise=noise, seed=seed, dtype=dtype)[0]
    torch.manual_seed(seed)
    return x, [torch.randn(n, rank, dtype=dtype) for n in shape]


def both(x, start, schedule, tol=1e-6, n_iter_max=60, chunk=5, capture=Directly, **rule):
    """Fit by the plain loop and by chunks; return both, and the algebra of the second."""
    options = {"n_iter_max": n_iter_max, "tol": tol, "free": range(x.ndim), "schedule": schedule}
    plain = als(DenseOperand(x), start, LeastSquares(**rule), **options)
    algebra = Algebra(LeastSquares(**rule))
    options |= {"chunk": chunk, "capture": capture, "monotone": algebra.rule.monotone}
    return plain, als_ahead(DenseOperand(x), start, algebra, **options), algebra


SCHEDULES = [
    (shape, s) for shape in [(7, 6, 8), (4, 5, 3, 6)] for s in all_schedules(range(len(shape)))
]


@pytest.mark.parametrize(("shape", "schedule"), SCHEDULES, ids=str)
@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_the_fit_is_that_of_the_plain_loop(shape, schedule, chunk):
    for dtype, noise in itertools.product((torch.float64, torch.float32), (0.3, 0.01, 0.0)):
        plain, ahead, _ = both(*problem(shape, 3, noise, dtype), schedule, chunk=chunk)
        equal(plain, ahead)


@pytest.mark.parametrize("tol", [0.0, 1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("n_iter_max", [1, 4, 33])
def test_every_way_to_end(tol, n_iter_max):
    seen = set()
    for seed, dtype in itertools.product(range(3), (torch.float64, torch.float32)):
        x, start = problem((7, 6, 8), 2, 0.1 * seed, dtype, seed)
        plain, ahead, _ = both(x, start, None, tol, n_iter_max)
        equal(plain, ahead)
        seen.add(ahead[1].status)
    assert seen <= {"converged", "max_iter", "precision_limit"}


def test_sweeps_launched_after_the_last_change_nothing():
    x, start = problem((7, 6, 8), 2, 0.1, torch.float64)
    plain, ahead, algebra = both(x, start, None, tol=1e-3, chunk=8)
    equal(plain, ahead)
    assert ahead[1].status == "converged"
    assert ahead[1].n_iter % 8
    assert algebra.frozen > 0


def test_singular_equations_and_regularisation():
    x, start = problem((7, 6, 8), 1, 0.0, torch.float64)
    start = [f.repeat(1, 3) for f in start]
    plain, ahead, _ = both(x + 0.01, start, None, n_iter_max=20)
    equal(plain, ahead)
    assert "ridge" in ahead[1].message
    equal(*both(*problem((7, 6, 8), 4, 0.2, torch.float32), None, l2_reg=0.1)[:2])


@pytest.fixture
def noted(monkeypatch):
    """Collect what watches are told."""
    noted, record = [], DivergenceWatch.record

    def spy(self, sweep, grams):
        if self.due(sweep):
            noted.append((sweep, hadamard(grams).tolist()))
        record(self, sweep, grams)

    monkeypatch.setattr(DivergenceWatch, "record", spy)
    return noted


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_errors_that_rise_and_fall(tol):
    """With regularisation the error itself may rise, and the host may trust one that is older."""
    for seed in range(8):
        x, start = problem((7, 6, 8), 4, 0.2, torch.float32, seed)
        plain, ahead, _ = both(x, start, None, tol, 40, l2_reg=0.3)
        equal(plain, ahead)


def test_components_that_diverge(noted):
    a, b = torch.eye(2, dtype=torch.float64)
    terms = [(a, a, b), (a, b, a), (b, a, a)]
    x = sum(torch.einsum("i,j,k->ijk", *term) for term in terms)
    torch.manual_seed(1)
    start = [torch.randn(2, 2, dtype=torch.float64) for _ in range(3)]
    plain, ahead, _ = both(x, start, None, tol=0, n_iter_max=500, chunk=7)
    equal(plain, ahead)
    assert ahead[1].status == "degenerate"
    assert noted[: len(noted) // 2] == noted[len(noted) // 2 :]


def test_components_are_noted_after_the_right_sweeps(noted):
    # Every sweep needs the residual itself, so that chunks end early.
    equal(*both(*problem((7, 6, 8), 3, 1e-3, torch.float32), None, tol=0, n_iter_max=40)[:2])
    assert [sweep for sweep, _ in noted] == [16, 32] * 2
    assert noted[:2] == noted[2:]


def test_fixed_modes():
    x, start = problem((7, 6, 8), 3, 0.2, torch.float64)
    options = {"n_iter_max": 30, "tol": 1e-5, "free": [0, 2]}
    plain = als(DenseOperand(x), start, LeastSquares(), **options)
    ahead = als_ahead(DenseOperand(x), start, Algebra(LeastSquares()), **options)
    equal(plain, ahead)
    assert torch.equal(ahead[0][1], start[1])


def test_a_callback_sees_every_sweep_and_may_stop():
    x, start = problem((7, 6, 8), 3, 0.2, torch.float64)
    calls = ([], [])
    options = {"n_iter_max": 30, "tol": 0, "free": range(3)}
    plain = als(DenseOperand(x), start, LeastSquares(), callback=report(calls[0]), **options)
    ahead = als_ahead(
        DenseOperand(x), start, Algebra(LeastSquares()), callback=report(calls[1]), **options
    )
    equal(plain, ahead)
    assert ahead[1].status == "stopped"
    for (sweep, error, factors), other in zip(*calls, strict=True):
        assert (sweep, error) == other[:2]
        assert all(torch.equal(f, g) for f, g in zip(factors, other[2], strict=True))


def test_data_that_are_not_finite():
    x, start = problem((7, 6, 8), 2, 0.1, torch.float64)
    x[1, 2, 3] = torch.nan
    for fit in (
        lambda: als(DenseOperand(x), start, LeastSquares(), n_iter_max=9, tol=0, free=range(3)),
        lambda: als_ahead(
            DenseOperand(x), start, Algebra(LeastSquares()), n_iter_max=9, tol=0, free=range(3)
        ),
    ):
        with pytest.raises(FloatingPointError, match="no longer finite"):
            fit()


@pytest.mark.parametrize("schedule", list(all_schedules(range(3))), ids=str)
def test_each_sweep_of_the_cycle_is_recorded_once(schedule):
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    recorder = Recorder()
    plain, ahead, _ = both(x, start, schedule, tol=0, n_iter_max=12, capture=recorder)
    equal(plain, ahead)
    assert recorder.recorded == schedule.sweeps


class Refused(Algebra):
    """Under a capture nothing is done, and the second update is refused."""

    capturing = 0

    def capture(self, step):
        self.capturing = 1
        try:
            step()
        finally:
            self.capturing = 0

    def update(self, fit, mode, product):
        if self.capturing == 2:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        if self.capturing:
            self.capturing += 1
        else:
            super().update(fit, mode, product)


@pytest.mark.parametrize("schedule", list(all_schedules(range(3))), ids=str)
def test_where_nothing_can_be_recorded_the_fit_goes_on_and_says_so(schedule):
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    options = {"n_iter_max": 12, "tol": 0, "free": range(3), "schedule": schedule}
    factors, info = als(DenseOperand(x), start, LeastSquares(), **options)
    algebra = Refused(LeastSquares())
    others, other = als_ahead(DenseOperand(x), start, algebra, capture=algebra.capture, **options)
    assert other.message.startswith(info.message)
    assert other.message.endswith("No graph of the sweep was made: operation not permitted.")
    assert all(torch.equal(f, g) for f, g in zip(factors, others, strict=True))


def test_what_is_given_is_not_modified():
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    kept = [f.clone() for f in start]
    both(x, start, None)
    assert all(torch.equal(f, g) for f, g in zip(start, kept, strict=True))


class Unread(Algebra):
    """The same for equations that are sound, without a number being read."""

    def __init__(self):
        self.updates = 0

    def update(self, fit, mode, product):
        self.updates += 1
        gram = hadamard([g for n, g in enumerate(fit.grams) if n != mode])
        lower, _ = torch.linalg.cholesky_ex(gram)
        new = torch.cholesky_solve(product.to(gram.dtype).t(), lower).t().to(product.dtype)
        active = fit.standing.active.clone()
        fit.factors[mode].copy_(torch.where(active, new, fit.factors[mode]))
        fit.grams[mode].copy_(baseline.gram_of_columns(fit.factors[mode]))


@pytest.fixture
def shelf():
    RECORDED.clear()
    yield RECORDED
    RECORDED.clear()


@pytest.mark.parametrize("schedule", list(all_schedules(range(3))), ids=str)
@pytest.mark.parametrize("tol", [0.0, 1e-4])
def test_a_second_fit_of_other_data_in_the_same_place_replays_the_first(shelf, schedule, tol):
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    options = {"n_iter_max": 12, "tol": tol, "free": range(3), "schedule": schedule}
    for seed in range(3):
        data, start = problem((7, 6, 8), 3, 0.3, torch.float64, seed)
        x.copy_(data)
        algebra = Unread()
        ahead = als_ahead(
            DenseOperand(x), start, algebra, keep=("x", 10), capture=Tape, chunk=3, **options
        )
        plain = als(DenseOperand(x), start, LeastSquares(), **options)
        equal(plain, ahead)
        # Those of a cycle launched directly, and recorded.
        assert algebra.updates == (0 if seed else 6 * schedule.sweeps)
        assert len(shelf) == 1
        # What is returned is not what is kept.
        ahead[0][0].fill_(7)


def test_what_is_kept_is_of_one_problem_only(shelf):
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    wider = problem((7, 6, 8), 4, 0.3, torch.float64)[1]
    algebra = Unread()

    def fit(start, **changed):
        made = algebra.updates
        options = {"n_iter_max": 9, "tol": 0, "free": range(3), "keep": ("x", 10), "chunk": 3}
        als_ahead(DenseOperand(x), start, algebra, capture=Tape, **(options | changed))
        return algebra.updates > made

    assert fit(start)
    assert not fit(start)
    assert fit(start, keep=("y", 10))
    assert fit(start, free=[0, 2])
    assert fit(start, chunk=4)
    assert fit(start, schedule=list(all_schedules(range(3)))[-1])
    assert fit(wider)
    assert not fit(wider)
    assert not fit(start)
    assert fit(start, keep=None)


def test_a_fit_that_is_too_large_is_not_kept(shelf):
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    options = {"n_iter_max": 9, "tol": 0, "free": range(3), "keep": ("x", 1 << 26)}
    als_ahead(DenseOperand(x), start, Unread(), capture=Tape, **options)
    assert len(shelf) == 0


def test_a_fit_that_was_too_short_to_be_recorded_is_not_kept(shelf):
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    options = {"n_iter_max": 1, "tol": 0, "free": range(3), "keep": ("x", 10)}
    als_ahead(DenseOperand(x), start, Unread(), capture=Tape, **options)
    assert len(shelf) == 0


def test_a_fit_within_the_callback_of_another_has_sweeps_of_its_own(shelf):
    x, start = problem((7, 6, 8), 3, 0.3, torch.float64)
    options = {"n_iter_max": 9, "tol": 0, "free": range(3), "keep": ("x", 10), "chunk": 1}
    options["capture"] = Tape
    alone = als_ahead(DenseOperand(x), start, Unread(), **options)

    def callback(sweep, error, factors):
        equal(alone, als_ahead(DenseOperand(x), start, Unread(), **options))
        return False

    equal(alone, als_ahead(DenseOperand(x), start, Unread(), callback=callback, **options))
