"""Factorisation and update on the device, against `LeastSquares` and against float64."""

from dataclasses import replace

import pytest
import torch
from triton import knobs

from tensorfast.cp.stopping import hadamard
from tensorfast.cp.update import LeastSquares
from tensorfast.kernels import cholesky, solve
from tensorfast.kernels.devices import CHIPS
from tensorfast.precision import pivot_tolerance, unit_roundoff
from tensorfast.testing import assert_close
from tensorfast.testing import normal as drawn

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

DTYPES = [torch.float32, torch.float64]
RANKS = [1, 5, 16, 33, 64, 100, 130]
ROUNDING = unit_roundoff(torch.float64)


def normal(*arguments):
    return drawn(*arguments).to(DEVICE)


def double(value, size=1):
    return torch.full((size,), value, dtype=torch.float64, device=DEVICE)


def gram_matrices(rank, kind="good"):
    """Return two Gram matrices whose product is of a certain kind."""
    factors = [
        normal((3 if kind == "deficient" else 2 * rank + 9, rank), torch.float64, s) for s in (1, 2)
    ]
    for f in factors:
        if kind == "equal":
            f[:, rank // 2 :: 7] = f[:, :1].clone()
        if kind == "nearly equal":
            f[:, 1::5] = f[:, :1] + 1e-5 * f[:, 1::5]
        if kind == "zero column":
            f[:, rank // 3] = 0
        if kind == "scaled":
            f *= torch.logspace(-60, 60, rank, dtype=torch.float64, device=DEVICE)
        if kind == "nothing":
            f.zero_()
    return [f.t() @ f for f in factors]


KINDS = ["good", "equal", "nearly equal", "zero column", "deficient", "scaled", "nothing"]


def factorized(grams, dtype=torch.float64, l2=0.0, ridge=0.0, chip=None, active=True):
    """Return ``L^-1``, the shift and the ridge."""
    noted, active = double(ridge), torch.tensor([active], device=DEVICE)
    least = pivot_tolerance(dtype, grams[0].shape[0])
    return *cholesky.factorize(grams, l2, least, noted, active, chip), float(noted)


def check_factor(inverse, h):
    r"""Hold ``L^-1`` to ``L L^T = H``.

    Elimination gives ``L`` with ``|L L^T - H| <= c R u |L| |L^T|``, and ``W`` with
    ``|L W - I| <= c R u |L| |W|``. What is left of ``W H W^T`` beside the identity is therefore at
    most ``c R u`` of ``E + E^T`` with ``E = |W| |L| |L^T| |W^T|``, and so are the roundings of the
    product itself.
    """
    rank = len(h)
    identity = torch.eye(rank, dtype=h.dtype, device=DEVICE)
    lower = torch.linalg.solve_triangular(inverse, identity, upper=False)
    e = inverse.abs() @ lower.abs() @ lower.abs().t() @ inverse.abs().t()
    left = (inverse @ h @ inverse.t() - identity).abs()
    assert torch.all(left <= 2 * (rank + 2) * ROUNDING * (e + e.t()))
    assert torch.equal(inverse, inverse.tril())
    # The rounding of L as it was got from W, and of H.
    size = lower.abs() @ inverse.abs() @ lower.abs() @ lower.abs().t()
    assert torch.all((lower @ lower.t() - h).abs() <= 2 * (rank + 2) * ROUNDING * (size + size.t()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", RANKS)
def test_the_factor_and_the_ridge_are_those_of_least_squares(rank, kind, dtype):
    grams = gram_matrices(rank, kind)
    h = hadamard(grams)
    inverse, shift, ridge = factorized(grams, dtype)
    rule, m = LeastSquares(), normal((4, rank), dtype, 5)
    expected = rule(h, m, m)
    assert ridge == rule.ridge
    diagonal = h.diagonal()
    mean = diagonal.mean() if diagonal.mean() > 0 else torch.ones_like(diagonal)
    weight = torch.where(diagonal > 0, diagonal, mean)
    torch.testing.assert_close(shift, ridge * weight, rtol=4 * ROUNDING * rank, atol=0.0)
    check_factor(inverse, h + torch.diag(shift))
    if kind in ("good", "zero column"):
        found = (m.double() + shift * m.double()) @ inverse.t() @ inverse
        torch.testing.assert_close(found.to(dtype), expected)


def test_blocks_are_as_stable_as_substitution(monkeypatch):
    """Powers, which LAPACK factors with a residual of u; products with inverses alone leave 1000 u.

    Held in extended precision to ``|L L^T - H| <= c R u |L| |L^T|``.
    """
    kernel, seen = cholesky.factor_kernel, []

    class Recorder:
        def __getitem__(self, grid):
            return lambda *args, **options: seen.append(args) or kernel[grid](*args, **options)

    monkeypatch.setattr(cholesky, "factor_kernel", Recorder())
    x = torch.linspace(0, 1, 300, dtype=torch.float64)[:, None]
    powers = x ** (torch.arange(100) % 16) + 1e-6 * drawn((300, 100), torch.float64)
    powers[:, 16:] += 0.2 * drawn((300, 84), torch.float64, 1)
    h = powers.t() @ powers
    assert factorized([h.to(DEVICE)])[2] == 0
    upper = seen[0][2][:100, :100].cpu().triu().numpy().astype("longdouble")
    left, size = abs(upper.T @ upper - h.numpy()), abs(upper.T) @ abs(upper)
    assert (left <= 20 * ROUNDING * size).all()


@pytest.mark.slow
def test_a_rank_of_512():
    test_the_factor_and_the_ridge_are_those_of_least_squares(512, "nearly equal", torch.float32)


@pytest.mark.parametrize("rank", [7, 100, 200])
@pytest.mark.parametrize("capability", CHIPS)
def test_every_chip(capability, rank):
    grams = gram_matrices(rank)
    inverse, _, ridge = factorized(grams, chip=CHIPS[capability])
    assert ridge == 0
    check_factor(inverse, hadamard(grams))


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("rank", [6, 70])
def test_any_number_of_gram_matrices_of_any_strides(rank, count):
    grams = [gram_matrices(rank)[0] for _ in range(count)]
    wide = double(float("nan"), rank * 2 * rank).view(rank, 2 * rank)
    wide[:, ::2] = grams[0]
    inverse, _, _ = factorized([wide[:, ::2], *grams[1:]])
    check_factor(inverse, hadamard(grams))


@pytest.mark.parametrize("rank", [5, 70])
def test_l2_in_full_precision(rank):
    """The weight 0.1 in 32 bits would be off by 1.5e-9."""
    inverse, shift, _ = factorized([0.0 * gram_matrices(rank)[0]], l2=0.1)
    expected = torch.eye(rank, dtype=torch.float64, device=DEVICE) / 0.1**0.5
    torch.testing.assert_close(inverse, expected, rtol=4 * ROUNDING, atol=0.0)
    assert not shift.any()


@pytest.mark.parametrize("rank", [5, 100])
def test_the_largest_ridge_is_kept(rank):
    singular, sound = gram_matrices(rank, "equal"), gram_matrices(rank)
    first = factorized(singular)[2]
    assert first > 0
    assert factorized(singular, ridge=first / 2)[2] == first
    assert factorized(singular, ridge=1.0)[2] == 1.0
    assert factorized(sound, ridge=0.5)[2] == 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rank", [1, 6, 64, 70])
def test_what_is_not_finite_gives_nan(rank, value):
    places = {(0, 0), (rank - 1, rank - 1), (rank // 2, 0), (rank - 1, rank // 2)}
    if rank > 64:
        # All of 40 attempts are made where the last block has it.
        places = {(rank - 1, rank // 2)}
    for row, column in places:
        for kind in ("good", "equal"):
            grams = gram_matrices(rank, kind)
            grams[1][row, column] = grams[1][column, row] = value
            inverse, shift, ridge = factorized(grams, torch.float32, ridge=1e-3)
            assert inverse.isnan().all()
            assert shift.isnan().all()
            assert ridge == 1e-3


@pytest.mark.parametrize("rank", [3, 70])
def test_no_ridge_that_is_tried_helps(rank):
    """No Gram matrix: what is beside its diagonal outweighs every ridge."""
    h = 1e40 * (1 - torch.eye(rank, dtype=torch.float64, device=DEVICE))
    inverse, shift, ridge = factorized([h])
    assert inverse.isnan().all()
    assert shift.isnan().all()
    assert ridge == 0


@pytest.mark.parametrize("rank", [0, 2**15 + 1])
def test_ranks_that_are_refused(rank):
    h = torch.empty((1, 1), dtype=torch.float64, device=DEVICE).expand(rank, rank)
    with pytest.raises(ValueError, match=f"factorize: rank {rank}; expected 1 to 32768"):
        cholesky.factorize([h], 0.0, 1e-15, double(0.0), torch.tensor([True], device=DEVICE))


class Update:
    """A problem and what `apply` leaves of it."""

    def __init__(self, rows, rank, dtype, kind="good", active=True, in_place=False, chip=None):
        self.grams, self.dtype = gram_matrices(rank, kind), dtype
        self.inverse, self.shift, self.ridge = factorized(self.grams, dtype)
        self.m = normal((rows, rank), dtype, 5)
        self.old = normal((rows, rank), dtype, 6)
        self.current = self.old.clone()
        self.factor = self.current if in_place else normal((rows, rank), dtype, 7)
        self.gram = normal((rank, rank), torch.float64, 8)
        self.arguments = (
            self.m,
            self.current,
            self.inverse,
            self.shift,
            torch.tensor([active], device=DEVICE),
            self.factor,
            self.gram,
            chip,
        )
        self.before = (self.factor.clone(), self.gram.clone())
        solve.apply(*self.arguments)

    @property
    def right(self):
        return self.m.double() + self.shift * self.old.double()

    def check(self):
        """Hold the factor to the product it is, and the Gram matrix to the factor."""
        rank, w = len(self.gram), self.inverse
        expected, scale = self.right @ w.t() @ w, self.right.abs() @ w.abs().t() @ w.abs()
        if self.dtype == torch.float64:
            assert_close(self.factor, expected, scale, 2 * rank + 2, dtype=self.dtype)
        else:
            # In float64, and rounded once.
            assert_close(
                self.factor, expected, expected.abs() + 1e-8 * scale, 1, dtype=self.dtype, c=1.0
            )
        f = self.factor.double()
        assert_close(self.gram, f.t() @ f, f.abs().t() @ f.abs(), len(f), dtype=torch.float64)
        assert torch.equal(self.gram, self.gram.t())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("rank", RANKS)
def test_update(rank, rows, dtype):
    Update(rows, rank, dtype, "equal" if rank % 2 else "good").check()


@pytest.mark.parametrize(("rank", "dtype"), [(5, torch.float32), (33, torch.float64)], ids=str)
def test_many_rows(rank, dtype):
    """More tiles than programs, so that each has several."""
    Update(600, rank, dtype, chip=replace(CHIPS[90], multiprocessors=4)).check()


@pytest.mark.parametrize("rank", [5, 33, 64, 100])
@pytest.mark.parametrize("capability", CHIPS)
def test_updates_of_every_chip(capability, rank):
    Update(100, rank, torch.float32, "equal", chip=CHIPS[capability]).check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["good", "equal", "zero column", "deficient"])
@pytest.mark.parametrize("rank", [5, 64, 130])
def test_the_equations_are_solved_as_least_squares_solves_them(rank, kind, dtype):
    r"""By what is left of ``A H = B``: solutions themselves may differ by the condition number.

    A rounding of ``A`` leaves ``u |A| |H|``. With ``L L^T = H`` up to ``c R u |L| |L^T|`` and
    ``L W = I + F``, ``|F| <= c R u |L| |W|``, as substitution gives it, ``W L = I + W F L``, so
    ``B W^T W L L^T`` is ``B`` up to ``c R u |B| |W^T|`` times
    ``(I + |W| |L| + |W| |L| |W| |L|) |L^T|``, a term each for ``F^T``, the roundings of the
    products and of ``L L^T``, and ``W F L``. The substitutions of `LeastSquares` leave
    ``c R u |A| |L| |L^T|``, which is less.
    """
    found = Update(20, rank, dtype, kind)
    h = hadamard(found.grams)
    rule = LeastSquares()
    expected = rule(h, found.m, found.old)
    assert found.ridge == rule.ridge
    h, b, w = h + torch.diag(found.shift), found.right.abs(), found.inverse
    lower = torch.linalg.inv(w).abs()
    w = w.abs()
    both = w @ lower
    products = b @ w.t() @ (lower.t() + both @ lower.t() + both @ both @ lower.t())
    for a in (found.factor.double(), expected.double()):
        rounded = unit_roundoff(dtype) * a.abs() @ h.abs()
        left = (a @ h - found.right).abs()
        assert torch.all(left <= 1.01 * rounded + 4 * (rank + 2) * ROUNDING * products)


@pytest.mark.parametrize("rank", [5, 100])
def test_the_current_factor_may_be_overwritten(rank):
    apart = Update(90, rank, torch.float32, "equal")
    there = Update(90, rank, torch.float32, "equal", in_place=True)
    there.check()
    assert torch.equal(apart.factor, there.factor)
    assert torch.equal(apart.gram, there.gram)
    assert torch.equal(apart.current, apart.old)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("rank", "rows"), [(5, 7), (5, 300), (100, 90)])
def test_nothing_changes_where_a_flag_forbids_it(rank, rows, in_place):
    found = Update(rows, rank, torch.float32, active=False, in_place=in_place)
    assert torch.equal(found.factor, found.before[0])
    assert torch.equal(found.gram, found.before[1])


@pytest.mark.parametrize("rank", [5, 70])
def test_what_is_not_finite_reaches_the_factor(rank):
    found = Update(40, rank, torch.float32)
    found.inverse.fill_(float("nan"))
    found.shift.fill_(float("nan"))
    solve.apply(*found.arguments)
    assert found.factor.isnan().all()
    assert found.gram.isnan().all()


def test_the_current_factor_is_not_read_without_a_shift():
    found = Update(40, 5, torch.float32)
    before = found.factor.clone()
    found.current.fill_(float("nan"))
    solve.apply(*found.arguments)
    assert torch.equal(found.factor, before)


@pytest.mark.parametrize("rank", [5, 100])
def test_the_same_bits_every_time(rank):
    first, second = (Update(300, rank, torch.float32, "equal") for _ in range(2))
    for name in ("inverse", "shift", "factor", "gram"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_operands_of_any_strides():
    plain, other = (Update(40, 5, torch.float32, "equal") for _ in range(2))
    m, current, *rest = other.arguments
    views = [double(float("nan"), 400).float().view(40, 10)[:, ::2].copy_(a) for a in (m, current)]
    solve.apply(*views, *rest)
    assert torch.equal(other.factor, plain.factor)
    with pytest.raises(ValueError, match="apply: factor and gram are written in C order"):
        solve.apply(m, current, *rest[:3], views[0], *rest[4:])


@pytest.mark.parametrize("rank", [5, 70])
def test_the_ridge_of_a_sweep_that_does_not_count_is_not_noted(rank):
    grams = gram_matrices(rank, "equal")
    *counts, ridge = factorized(grams)
    *counts_not, noted = factorized(grams, active=False)
    assert ridge > noted == 0
    assert all(torch.equal(*pair) for pair in zip(counts, counts_not, strict=True))
