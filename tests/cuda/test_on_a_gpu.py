"""The small fits on a GPU; nothing here has run on one."""

import pytest
import torch

import tensorfast
from tensorfast.cuda import compiler, cp_plan
from tensorfast.cuda.cp_als import STATUSES, cp_als_small
from tensorfast.kernels.devices import chip_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(compiler.missing()), reason="; ".join(compiler.missing())),
]


def problem(shape, rank, dtype, batch):
    """Return noise and starts, on the GPU."""
    rng = torch.Generator("cuda").manual_seed(0)

    def normal(*sizes):
        return torch.randn(sizes, dtype=dtype, device="cuda", generator=rng)

    return normal(batch, *shape), [normal(batch, size, rank) for size in shape]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("rank", [1, 5, 9, 17, 32])
@pytest.mark.parametrize("shape", [(9, 8), (7, 1, 12), (5, 4, 3, 6), (3, 2, 4, 2, 3)], ids=str)
def test_errors_are_those_of_the_library(shape, rank, dtype):
    x, start = problem(shape, rank, dtype, 300)
    fits = cp_als_small(x, start, n_iter_max=4, tol=0)
    assert {STATUSES[code] for code in fits.status.tolist()} <= {"max_iter"}
    for at in (0, 150, 299):
        model = torch.ones(rank, dtype=torch.float64), [f[at].cpu().double() for f in start]
        own = tensorfast.cp_als(x[at].cpu().double(), rank, init=model, n_iter_max=4, tol=0)
        expected = torch.tensor(own.info.rel_errors, dtype=torch.float64)
        digits = 1e-3 if dtype is torch.float32 else 1e-8
        torch.testing.assert_close(fits.errors[at].cpu(), expected, rtol=0, atol=digits)


def test_results_repeat_to_the_bit():
    x, start = problem((16, 16, 16), 8, torch.float32, 1000)
    one, other = (cp_als_small(x, start, n_iter_max=50, tol=1e-6) for _ in range(2))
    assert torch.equal(one.errors.nan_to_num(), other.errors.nan_to_num())
    assert all(map(torch.equal, one.factors, other.factors))


@pytest.mark.parametrize("blocks", [2, 8])
def test_a_cluster_of_blocks_gives_the_same(blocks):
    if chip_of(torch.device("cuda", 0)).capability not in cp_plan.CLUSTERS:
        pytest.skip("has no clusters")
    for shape in ((17, 30, 12), (5, 4, 3, 6), (3, 2, 4, 2, 3)):
        x, start = problem(shape, 8, torch.float64, 100)
        one, several = (cp_als_small(x, start, n_iter_max=6, tol=0, blocks=n) for n in (1, blocks))
        torch.testing.assert_close(several.errors, one.errors, rtol=0, atol=1e-9)


def test_the_largest_that_fits_and_one_that_does_not():
    chip = chip_of(torch.device("cuda", 0))
    sides = [n for n in range(8, 99) if not reasons_of(n, chip)]
    x, start = problem((sides[-1],) * 3, 8, torch.float32, 2)
    fits = cp_als_small(x, start, n_iter_max=2, tol=0)
    assert fits.errors.isfinite().all()
    x, start = problem((sides[-1] + 1,) * 3, 8, torch.float32, 1)
    with pytest.raises(ValueError, match="a block may use"):
        cp_als_small(x, start)


def reasons_of(side, chip):
    return cp_plan.reasons((side,) * 3, 8, "float32", "cuda", chip)


def test_it_runs_on_the_current_stream_and_waits_for_nothing():
    x, start = problem((16, 16, 16), 8, torch.float32, 100)
    cp_als_small(x, start, n_iter_max=2)
    expected = cp_als_small(2 * x, start, n_iter_max=5, tol=0).errors.cpu()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(stream):
            late = x.clone()
            torch.cuda._sleep(10_000_000)
            late *= 2
            fits = cp_als_small(late, start, n_iter_max=5, tol=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    assert torch.equal(fits.errors.cpu(), expected)
