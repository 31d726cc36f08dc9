"""The kernel of many small truncated higher-order SVDs, built as host C++, beside the library's.

What a barrier is for no result on a host can tell: test_barriers.py.
"""

import ctypes
import itertools
import math

import pytest
import torch

import tensorfast
from tensorfast.cuda import tucker_plan
from tensorfast.cuda.launcher import STATIC
from tensorfast.cuda.tucker import STATUSES, sthosvd_small
from tensorfast.kernels.devices import CHIPS, chip_like
from tensorfast.precision import explicit_residual_below

FLOAT, DOUBLE = torch.float32, torch.float64
DIGITS = {dtype: 60 * torch.finfo(dtype).eps for dtype in (FLOAT, DOUBLE)}

#: Shapes and ranks: orders, sizes of 1, primes, full ranks.
CASES = [
    ((6, 5), (2, 2)),
    ((5, 4, 6), (2, 3, 2)),
    ((7, 1, 3), (2, 1, 2)),
    ((8, 3, 9), (5, 3, 4)),
    ((3, 2, 4, 3), (2, 1, 3, 2)),
    ((2, 3, 2, 4, 3), (1, 2, 2, 2, 2)),
    ((37, 2, 3), (5, 2, 1)),
    ((4, 4, 4), (1, 1, 1)),
    ((3, 4, 2), (3, 4, 2)),
]


def data(shape, rank, dtype=DOUBLE, batch=2, noise=0.3, seed=0):
    """Return tensors with leading subspaces of these ranks, well apart from the others."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*sizes):
        return torch.randn(sizes, dtype=DOUBLE, generator=rng)

    x = normal(batch, *rank)
    for n, (size, r) in enumerate(zip(shape, rank, strict=True)):
        basis = torch.linalg.qr(normal(batch, size, r)).Q
        x = (basis @ x.movedim(n + 1, 1).flatten(2)).unflatten(2, x.movedim(n + 1, 1).shape[2:])
        x = x.movedim(1, n + 1)
    x = x * math.sqrt(x[0].numel()) / x.flatten(1).norm(dim=1).view(-1, *[1] * len(shape))
    return (x + noise * normal(*x.shape)).to(dtype)


def model_of(core, factors):
    return tensorfast.tucker_to_tensor((core.double(), [f.double() for f in factors]))


def compare(done, x, rank, digits, **options):
    """Compare each: errors, subspaces, models, and whether columns are orthonormal."""
    for at in range(len(x)):
        own = tensorfast.sthosvd(x[at].double(), rank, **options)
        assert abs(float(done.errors[at]) - own.info.rel_errors[0]) <= digits
        factors = [f[at].double() for f in done.factors]
        for factor, expected in zip(factors, own.factors, strict=True):
            r = factor.shape[1]
            gap = (factor @ factor.T - expected @ expected.T).norm()
            assert gap <= 10 * digits
            assert (factor.T @ factor - torch.eye(r, dtype=DOUBLE)).norm() <= digits
        gap = model_of(done.core[at], factors) - model_of(own.core, own.factors)
        assert gap.norm() <= 10 * digits * x[at].double().norm()


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize(("shape", "rank"), CASES, ids=str)
def test_results_are_those_of_the_library(launch, shape, rank, dtype):
    x = data(shape, rank, dtype)
    done = sthosvd_small(x, rank, launch=launch)
    compare(done, x, rank, DIGITS[dtype])
    assert {STATUSES[code] for code in done.status.tolist()} == {"converged"}
    assert done.unresolved.tolist() == [0, 0]


@pytest.mark.parametrize("mode_order", list(itertools.permutations(range(3))), ids=str)
def test_modes_in_any_order(launch, mode_order):
    x = data((5, 4, 6), (2, 4, 3))
    done = sthosvd_small(x, (2, 4, 3), mode_order=mode_order, launch=launch)
    compare(done, x, (2, 4, 3), DIGITS[DOUBLE], mode_order=mode_order)


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_any_number_of_threads_gives_the_same(launch, dtype):
    x = data((9, 4, 6), (3, 2, 4), dtype, batch=1)
    for launch.threads in (32, 96, 256, 512):
        compare(sthosvd_small(x, (3, 2, 4), launch=launch), x, (3, 2, 4), DIGITS[dtype])


@pytest.mark.parametrize(("shape", "rank"), [((21, 5, 4), (4, 3, 2)), ((3, 2, 4, 3), (2, 1, 3, 2))])
def test_results_do_not_depend_on_which_thread_goes_first(launch, shape, rank):
    x = data(shape, rank, FLOAT)
    one = sthosvd_small(x, rank, launch=launch)
    launch.backwards = True
    other = sthosvd_small(x, rank, launch=launch)
    assert torch.equal(one.errors, other.errors)
    assert torch.equal(one.core, other.core)
    assert all(map(torch.equal, one.factors, other.factors))


@pytest.mark.parametrize("size", [2, 3, 16, 33, 64])
def test_eigenvectors_of_every_size(launch, size):
    # Half of the singular values are equal, or zero: subspaces of these are anyone's.
    rng = torch.Generator().manual_seed(size)
    left, right = (
        torch.linalg.qr(torch.randn(size, size, dtype=DOUBLE, generator=rng)).Q for _ in range(2)
    )
    for values in (1.0, 0.0, torch.logspace(0, -7, size, dtype=DOUBLE)):
        spectrum = torch.ones(size, dtype=DOUBLE)
        spectrum[size // 2 :] = values if isinstance(values, float) else values[size // 2 :]
        x = (left * spectrum) @ right.T
        rank = size // 2
        done = sthosvd_small(x[None], (rank, size), launch=launch)
        error = spectrum[rank:].norm() / spectrum.norm()
        # Of eigenvalues, which are squares, rounding is beside the largest.
        assert abs(done.errors[0] ** 2 - error**2) <= size * torch.finfo(DOUBLE).eps
        factor = done.factors[0][0]
        assert (factor.T @ factor - torch.eye(rank, dtype=DOUBLE)).norm() <= 1e-13
        assert torch.equal(done.factors[1][0], torch.eye(size, dtype=DOUBLE))


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_a_rank_above_what_the_other_modes_have(launch, dtype):
    shape, rank = (17, 3, 2), (9, 3, 2)
    x = data(shape, rank, dtype)
    done = sthosvd_small(x, rank, launch=launch)
    for at in range(2):
        factors = [f[at].double() for f in done.factors]
        eye = torch.eye(9, dtype=DOUBLE)
        assert (factors[0].T @ factors[0] - eye).norm() <= DIGITS[dtype]
        gap = model_of(done.core[at], factors) - x[at].double()
        assert gap.norm() <= DIGITS[dtype] * x[at].double().norm()
    assert (done.unresolved != 0).tolist() == [dtype is DOUBLE] * 2


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("level", [0.0, 1e-2])
@pytest.mark.parametrize(("shape", "rank"), [((6, 5, 4), (2, 5, 3)), ((3, 4, 2, 3), (2, 2, 1, 2))])
def test_the_residual_itself_where_eigenvalues_are_lost(launch, shape, rank, level, dtype):
    x = data(shape, rank, dtype, noise=level * explicit_residual_below(dtype))
    done = sthosvd_small(x, rank, launch=launch)
    for at in range(2):
        exact = x[at].double()
        gap = model_of(done.core[at], [f[at] for f in done.factors]) - exact
        error = gap.norm() / exact.norm()
        assert error < explicit_residual_below(dtype)
        # Of float64 the residual itself is rounding.
        digits = 1e-3 if level or dtype is FLOAT else 2.0
        torch.testing.assert_close(done.errors[at], error, rtol=digits, atol=0)


def test_a_tensor_of_zeros(launch):
    x = data((5, 4, 6), (2, 4, 3))
    x[0] = 0
    done = sthosvd_small(x, (2, 4, 3), launch=launch)
    assert done.errors[0] == 0
    assert not done.core[0].any()
    for factor in done.factors:
        r = factor.shape[2]
        assert torch.equal(factor[0].T @ factor[0], torch.eye(r, dtype=DOUBLE))
    compare(sthosvd_small(x[1:], (2, 4, 3), launch=launch), x[1:], (2, 4, 3), DIGITS[DOUBLE])


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_any_scale(launch, scale):
    x = data((5, 4, 6), (2, 4, 3), FLOAT)
    one = sthosvd_small(x, (2, 4, 3), launch=launch)
    other = sthosvd_small(x * scale, (2, 4, 3), launch=launch)
    torch.testing.assert_close(one.errors, other.errors, rtol=0, atol=DIGITS[FLOAT])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_its_own_only(launch, value):
    x = data((5, 4, 6), (2, 4, 3), batch=3)
    x[1, 2, 1, 1] = value
    done = sthosvd_small(x, (2, 4, 3), launch=launch)
    assert [STATUSES[c] for c in done.status.tolist()] == ["converged", "not_finite", "converged"]
    assert done.errors.isnan().tolist() == [False, True, False]
    assert done.core[1].isnan().all()
    compare(sthosvd_small(x[[0, 2]], (2, 4, 3), launch=launch), x[[0, 2]], (2, 4, 3), 1e-13)


def test_modes_that_keep_what_a_gram_matrix_does_not_resolve(launch):
    rng = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(6, 6, dtype=DOUBLE, generator=rng)).Q for _ in range(2)
    )
    x = (left * torch.tensor([1.0, 1e-2, 1e-7, 1e-7, 1e-8, 1e-9], dtype=DOUBLE)) @ right.T
    found = [
        int(sthosvd_small(x[None], rank, launch=launch).unresolved[0])
        for rank in ((2, 6), (3, 6), (6, 3), (2, 2))
    ]
    assert found == [0, 1, 2, 0]


def test_data_that_do_not_lie_in_order(launch):
    x = data((5, 4, 6), (2, 3, 2))
    turned = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    one = sthosvd_small(turned, (2, 3, 2), launch=launch)
    assert torch.equal(one.core, sthosvd_small(x, (2, 3, 2), launch=launch).core)
    assert not sthosvd_small(x[:0], (2, 3, 2), launch=launch).status.numel()


def test_the_plan_counts_shared_memory_as_the_kernel_does(libraries):
    for (shape, rank), dtype in itertools.product(CASES, tucker_plan.DTYPES):
        for order in (None, range(len(shape))):
            chosen = tucker_plan.plan(shape, rank, dtype, order)
            size, kept = ((ctypes.c_int * 5)(*sizes) for sizes in (shape, rank))
            call = libraries(chosen.unit).bytes_taken
            taken = call(len(shape), size, kept, ctypes.c_uint(chosen.packed), len(chosen.order))
            assert chosen.shared == taken


def test_what_does_not_fit(launch):
    x = data((5, 4, 6), (2, 3, 2))
    with pytest.raises(ValueError, match=r"mode_order is \(0, 1, 1\); expected all 3 modes"):
        sthosvd_small(x, (2, 3, 2), mode_order=(0, 1, 1), launch=launch)
    for rank in ((2, 3), (2, 3, 7), (0, 3, 2)):
        with pytest.raises(ValueError, match="from 1 to its length"):
            sthosvd_small(x, rank, launch=launch)
    with pytest.raises(ValueError, match="x is on cpu; the kernel runs on CUDA"):
        sthosvd_small(x, (2, 3, 2))


@pytest.mark.parametrize(
    ("shape", "rank", "dtype", "capability", "reason"),
    [
        ((16,), (4,), "float32", 90, "tensors have 1 modes"),
        ((2,) * 6, (1,) * 6, "float32", 90, "tensors have 6 modes"),
        ((16, 16, 16), (8, 8, 17), "float32", 90, "from 1 to its length"),
        ((16, 0, 16), (8, 0, 8), "float32", 90, "from 1 to its length"),
        ((16, 16, 16), (8, 8, 8), "bfloat16", 90, "x is bfloat16"),
        ((64, 64, 64), (8, 8, 8), "float32", 90, "bytes of shared memory; a block may use 232448"),
        ((16, 16, 16), (8, 8, 8), "float32", 75, "compute capability 7.5"),
    ],
)
def test_reasons(monkeypatch, shape, rank, dtype, capability, reason):
    monkeypatch.setattr(tucker_plan, "missing", lambda: ())
    chip = chip_like(90)
    chip = type(chip)(**{**chip.__dict__, "capability": capability})
    (found,) = tucker_plan.reasons(shape, rank, dtype, "cuda", chip)
    assert reason in found


def test_what_is_missing_is_among_the_reasons(monkeypatch):
    monkeypatch.setattr(tucker_plan, "missing", lambda: ("no compiler",))
    reasons = tucker_plan.reasons((16, 16, 16), (8, 8, 8), "float32", "cpu", chip_like(90))
    assert reasons == ["no compiler", "x is on cpu; the kernel runs on CUDA"]


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: f"sm_{chip.capability}")
def test_small_tensors_fit_and_cost_what_they_should(monkeypatch, chip):
    monkeypatch.setattr(tucker_plan, "missing", lambda: ())
    for shape in [(16, 16, 16), (24, 24, 24), (8, 8, 8, 8), (5, 5, 5, 5, 5), (64, 64)]:
        rank = tuple(n // 2 for n in shape)
        assert tucker_plan.reasons(shape, rank, "float32", "cuda", chip) == []
        chosen = tucker_plan.plan(shape, rank, "float32")
        assert chosen.shared + STATIC <= chip.shared_memory
        one, many = (tucker_plan.seconds(chosen, b, chip) for b in (1, 10_000))
        assert 1e-6 < one < many < 1


def test_the_order_is_that_of_the_library_and_threads_grow():
    shape, rank = (8, 3, 9, 4), (5, 3, 4, 2)
    assert tucker_plan.plan(shape, rank, "float32").order == (2, 3, 0)
    threads = [tucker_plan.plan((n,) * 3, (1,) * 3, "float32").threads for n in (2, 16, 24, 32)]
    assert threads == [64, 64, 256, 512]
