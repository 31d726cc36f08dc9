"""Nothing in a sweep of HOOI on a GPU waits for the device: run without data, and read."""

from types import SimpleNamespace

import pytest
import torch

from bench import sass
from tensorfast.kernels.gram import gram
from tensorfast.kernels.ttm import ttm
from tensorfast.ops import small
from tensorfast.precision import compute_dtype
from tensorfast.tucker import ahead, shared, sweep
from tests.cp.test_no_sync import ROOT, waits

#: What a sweep runs through besides the path of CP.
PATH = [
    "tensorfast/tucker/sweep.py",
    "tensorfast/ops/direct.py",
    "tensorfast/ops/small.py",
    "kernels/jacobi.py",
    "kernels/ttm.py",
]


@pytest.mark.parametrize("path", PATH)
def test_no_line_of_a_sweep_waits(path):
    assert waits((ROOT / path).read_text()) == []


@pytest.fixture
def launches(monkeypatch):
    """Note launches on tensors without data, of which nothing can be read."""
    kernels = SimpleNamespace(
        ttm=lambda x, u, n, transpose: ttm(x, u, n, transpose, "ieee"),
        gram=lambda x, n, dtype: gram(x, n, dtype, "ieee"),
    )
    for module in (ahead, sweep, shared):
        monkeypatch.setattr(module, "direct", kernels)
    monkeypatch.setattr(small, "by_kernels", lambda a: True)
    names = []
    with sass.launching(lambda kernel, args, options: names.append(kernel.__name__)):
        yield names


def launched(shape, rank, dtype):
    x = torch.empty(shape, dtype=dtype, device="meta")
    wide = compute_dtype(dtype)
    start = [torch.empty(n, r, dtype=wide, device="meta") for n, r in zip(shape, rank, strict=True)]
    fit = ahead.room_for(start, rows=1)
    fit.begin(start)
    fit.standing.begin(1.0, dtype, 1e-6)
    sweeps = ahead.sweeps_of(x, fit, ahead.judge)
    for _ in range(len(shape)):
        sweeps.launch()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "rank"),
    [
        ((256, 256, 256), (32, 32, 32)),
        ((40, 30), (3, 15)),
        ((20, 16, 12, 9), (3, 16, 2, 2)),
        ((8, 8, 8, 8, 8), (2, 2, 2, 2, 2)),
    ],
    ids=str,
)
def test_a_sweep_runs_without_data(launches, shape, rank, dtype):
    launched(shape, rank, dtype)
    assert launches.count("judge_kernel") == len(shape)
    improved = sum(n != r for n, r in zip(shape, rank, strict=True)) * len(shape)
    assert launches.count("eigenvectors_kernel") == improved


def test_a_sweep_that_waits_does_not_run_without_data(launches, monkeypatch):
    monkeypatch.setattr(sweep, "eigenvectors", lambda s: torch.linalg.eigh(s * float(s.sum())))
    with pytest.raises((RuntimeError, NotImplementedError)):
        launched((20, 16, 12), (3, 4, 2), torch.float32)
