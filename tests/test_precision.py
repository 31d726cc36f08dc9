"""The numerics policy, and that torch's settings neither degrade a result nor are left changed."""

import contextlib
import dataclasses
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tensorfast as tf
from tensorfast import _dispatch
from tensorfast.precision import (
    STORAGE_DTYPES,
    compute_dtype,
    explicit_residual_below,
    matmul_precision,
    pivot_tolerance,
    precision_floor,
    safe_scale,
    solve_dtype,
    unit_roundoff,
)
from tensorfast.testing import assert_close, planted

CPU = torch.device("cpu")
MATMUL = torch.backends.mkldnn.matmul


@pytest.fixture
def medium():
    """Let torch compute float32 products in bfloat16 where the CPU can."""
    torch.set_float32_matmul_precision("medium")
    assert MATMUL.fp32_precision == "bf16"
    yield
    torch.set_float32_matmul_precision("highest")
    MATMUL.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "none"


def test_half_precision_is_storage_only():
    assert [compute_dtype(d) for d in STORAGE_DTYPES] == [
        torch.float32,
        torch.float32,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    ]


@pytest.mark.parametrize("dtype", STORAGE_DTYPES, ids=str)
def test_solves_are_in_double_precision_of_the_same_field(dtype):
    assert solve_dtype(dtype) == (torch.complex128 if dtype.is_complex else torch.float64)


@pytest.mark.parametrize(
    ("dtype", "precision", "bits"),
    [
        (torch.float32, "ieee", 24),
        (torch.bfloat16, "ieee", 24),
        (torch.complex64, "ieee", 24),
        (torch.float64, "ieee", 53),
        (torch.float32, "tf32", 11),
        (torch.float16, "bf16", 8),
        (torch.float64, "tf32", 53),
        (torch.complex128, "bf16", 53),
    ],
)
def test_unit_roundoff_is_half_the_spacing_of_numbers_near_one(dtype, precision, bits):
    assert unit_roundoff(dtype, precision) == 2.0**-bits


def test_thresholds_scale_with_the_precision():
    # The formula's error in e^2 is a few eps; where it is trusted, that is a percent of e at most.
    for dtype in (torch.float32, torch.float64):
        eps = torch.finfo(dtype).eps
        e = explicit_residual_below(dtype)
        assert math.sqrt(e**2 + 2 * eps) / e - 1 < 0.011
        assert eps < precision_floor(dtype) < e
        assert pivot_tolerance(dtype, 20) == 2 * pivot_tolerance(dtype, 10) >= eps
    assert precision_floor(torch.float16) == precision_floor(torch.float32)
    assert explicit_residual_below(torch.bfloat16) == explicit_residual_below(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30], ids=str)
def test_an_extreme_scale_is_divided_out_exactly(dtype, size):
    x = torch.tensor([1.0, -3.0, 0.5]).to(dtype) * size
    squares = x.to(solve_dtype(dtype)).abs().square().sum()
    scale = safe_scale(x, float(squares))
    if dtype == torch.float64:
        assert scale == 1.0
    assert math.frexp(scale)[0] == 0.5
    scaled = x / scale
    assert torch.equal(scaled * scale, x)
    assert torch.isfinite(scaled.abs().square().sum())
    assert scaled.abs().square().sum() > 0


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float32, torch.finfo(torch.float32).max),
        (torch.float32, torch.finfo(torch.float32).smallest_normal),
        (torch.float64, torch.finfo(torch.float64).max),
        (torch.float64, torch.finfo(torch.float64).smallest_normal),
    ],
)
def test_the_ends_of_the_range_are_scaled_too(dtype, value):
    x = torch.tensor([value], dtype=dtype)
    square = float(x.double().square())
    assert 0.1 < float(x / safe_scale(x, square)) < 2.0


@pytest.mark.parametrize("value", [0.0, 1.0, math.inf, math.nan])
def test_ordinary_zero_and_non_finite_tensors_keep_their_scale(value):
    assert safe_scale(torch.tensor([value]), value**2) == 1.0


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("asked", ["ieee", "tf32", "bf16"])
def test_a_cpu_computes_every_explicit_precision_in_full(asked):
    with matmul_precision(asked, CPU):
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == "bf16"


@pytest.mark.usefixtures("medium")
def test_none_follows_torch():
    with matmul_precision(None, CPU):
        assert MATMUL.fp32_precision == "bf16"


def test_torchs_default_is_left_alone():
    before = MATMUL.fp32_precision
    with matmul_precision("ieee", CPU):
        assert MATMUL.fp32_precision == before


@pytest.mark.usefixtures("medium")
def test_the_setting_is_put_back_after_an_exception():
    with pytest.raises(ZeroDivisionError), matmul_precision("ieee", CPU):
        raise ZeroDivisionError
    assert MATMUL.fp32_precision == "bf16"


@pytest.mark.usefixtures("medium")
def test_blocks_that_overlap_do_not_end_each_other():
    # As two threads may: the first to enter is the first to leave.
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(matmul_precision("ieee", CPU))
    second.enter_context(matmul_precision("ieee", CPU))
    first.close()
    assert MATMUL.fp32_precision == "ieee"
    second.close()
    assert MATMUL.fp32_precision == "bf16"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("asked", "set_to"), [("ieee", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")]
)
def test_a_gpu_is_set_to_what_is_asked(asked, set_to):
    before = torch.backends.cuda.matmul.fp32_precision
    with matmul_precision(asked, torch.device("cuda")):
        inside = torch.backends.cuda.matmul.fp32_precision
        assert inside == set_to or (inside == "none" and set_to == "ieee")
    assert torch.backends.cuda.matmul.fp32_precision == before


class Products(TorchDispatchMode):
    """Note the precision in force at every matrix product."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().partition("::")[2].partition(".")[0]
        if name in ("mm", "bmm", "addmm", "addmm_", "baddbmm", "matmul"):
            self.seen.append(MATMUL.fp32_precision)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def products(monkeypatch):
    """Observe matrix products everywhere, also inside our operations, which hide theirs."""
    seen = []

    def observed(run):
        def wrapped(*args):
            with Products(seen):
                return run(*args)

        return wrapped

    for implementations in _dispatch._registry.values():
        for name, one in implementations.items():
            replaced = dataclasses.replace(one, run=observed(one.run))
            monkeypatch.setitem(implementations, name, replaced)
    with Products(seen):
        yield seen


X = torch.randn(30, 40, 20, generator=torch.Generator().manual_seed(0))
U = [torch.randn(n, 8, generator=torch.Generator().manual_seed(n)) for n in X.shape]
CALLS = {
    "mttkrp first": lambda x, u, **how: tf.mttkrp(x, u, 0, **how),
    "mttkrp middle": lambda x, u, **how: tf.mttkrp(x, u, 1, **how),
    "ttm": lambda x, u, **how: tf.ttm(x, u[1], 1, transpose=True, **how),
    "multi_ttm": lambda x, u, **how: tf.multi_ttm(x, u, transpose=True, **how),
    "gram": lambda x, u, **how: tf.gram(x, 1, **how),
}


TALL = tf.unfold(X, 1).t()
METHODS = {
    "cp_als svd": lambda: tf.cp_als(X, 3, n_iter_max=2, seed=0),
    "cp_als random": lambda: tf.cp_als(X, 3, n_iter_max=2, init="random", seed=0),
    "hooi sthosvd": lambda: tf.hooi(X, 3, n_iter_max=2, seed=0),
    "hooi random": lambda: tf.hooi(X, 3, n_iter_max=2, init="random", seed=0),
    "sthosvd rank": lambda: tf.sthosvd(X, 3),
    "sthosvd tol": lambda: tf.sthosvd(X, tol=0.5),
    "hosvd rank": lambda: tf.hosvd(X, 3),
    "hosvd tol": lambda: tf.hosvd(X, tol=0.5),
    "truncated_svd gram": lambda: tf.truncated_svd(TALL, 3, method="gram"),
    "truncated_svd randomized": lambda: tf.truncated_svd(TALL, 3, method="randomized", seed=0),
    "cp_to_tensor": lambda: tf.cp_to_tensor((None, U)),
    "tucker_to_tensor": lambda: tf.tucker_to_tensor((X[:8, :8, :8], U)),
    "factor_match_score": lambda: tf.factor_match_score((None, U), (None, U)),
    "relative_error cp": lambda: tf.relative_error(X, (None, U)),
    "relative_error tucker": lambda: tf.relative_error(X, (X[:8, :8, :8], U)),
    "core_consistency": lambda: tf.core_consistency(X, (None, [u[:, :2] for u in U])),
}


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("call", METHODS.values(), ids=METHODS.keys())
def test_methods_are_in_full_precision_whatever_torch_is_set_to(call, products):
    call()
    assert set(products) == {"ieee"}
    assert MATMUL.fp32_precision == "bf16"


@pytest.mark.usefixtures("medium")
def test_precision_none_follows_torch_in_cp_als(products):
    tf.cp_als(X, 3, n_iter_max=2, precision=None, seed=0)
    assert set(products) == {"bf16"}


def test_autocast_does_not_reach_cp_als():
    x, truth = planted((20, 25, 30), 3, noise=1e-4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = tf.cp_als(x, 3, seed=0)
        error = tf.relative_error(x, truth)
    assert result.info.rel_errors[-1] <= 1.01e-4
    assert tf.relative_error(x, result) == pytest.approx(result.info.rel_errors[-1], rel=0.02)
    assert error == pytest.approx(1e-4, rel=0.01)
    assert {t.dtype for t in (result.weights, *result.factors)} == {torch.float32}


@pytest.mark.parametrize("method", [tf.hooi, tf.sthosvd, tf.hosvd])
def test_autocast_does_not_reach_tucker(method):
    x, _ = planted((20, 25, 30), 3, noise=1e-4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = method(x, 3)
    assert {t.dtype for t in (result.core, *result.factors)} == {torch.float32}
    assert result.info.rel_errors[-1] <= 1.01e-4
    assert tf.relative_error(x, result) <= 1.01e-4


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_operations_are_in_full_precision_whatever_torch_is_set_to(call, products):
    out = call(X, U)
    assert set(products) == {"ieee"}
    assert torch.get_float32_matmul_precision() == "medium"
    exact = call(X.double(), [u.double() for u in U])
    scale = call(X.double().abs(), [u.double().abs() for u in U])
    assert_close(out, exact, scale, length=1200)


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_gradients_are_in_full_precision_too(call, products):
    leaves = [t.clone().requires_grad_() for t in (X, *U)]
    out = call(leaves[0], leaves[1:])
    products.clear()
    out.sum().backward()
    assert set(products) == {"ieee"}


@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_precision_none_follows_torch_in_every_operation(call, products):
    call(X, U, precision=None)
    assert set(products) == {"bf16"}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_threads_that_call_at_once_get_equal_results(call):
    expected = call(X, U)
    with ThreadPoolExecutor(4) as pool:
        for out in pool.map(lambda _: call(X, U), range(16)):
            assert torch.equal(out, expected)


@pytest.mark.usefixtures("medium")
def test_threads_do_not_take_the_precision_from_each_other(monkeypatch):
    both_inside, first_has_left = threading.Barrier(2, timeout=30), threading.Event()
    seen = {}

    def run(x, mode, dtype, precision):
        both_inside.wait()
        if x.shape[0] == 2:
            assert first_has_left.wait(timeout=30)
        seen[x.shape[0]] = MATMUL.fp32_precision
        return torch.zeros(x.shape[mode], x.shape[mode], dtype=dtype)

    replaced = _dispatch.Implementation("torch", run, cost=lambda p: _dispatch.Cost(0.0, 0.0, 0.0))
    monkeypatch.setitem(_dispatch._registry["gram"], "torch", replaced)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(tf.gram, torch.ones(n, n), 0) for n in (1, 2))
        first.result(timeout=30)
        first_has_left.set()
        second.result(timeout=30)
    assert seen == {1: "ieee", 2: "ieee"}
    assert MATMUL.fp32_precision == "bf16"
