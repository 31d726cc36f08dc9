"""What measures: problems, sweeps, the residual, the watch on others, the memory probe."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import (
    machine,
    memory_probe,
    problems,
    quiet,
    residual,
    rivals,
    rivals_batched,
    rivals_embeddings,
    rivals_tensorly,
    rivals_tucker,
    run,
)
from bench.measure import Session
from bench.rivals import Run


def test_another_number_of_sweeps_is_not_comparable():
    run = Run(lambda: 9, answer=None, sweeps_run=lambda result: result)
    assert Session(quick=True).rounds("nine", run, sweeps=9) >= 1
    with pytest.raises(RuntimeError, match="it ran 9 sweeps where 10 were asked for"):
        Session().rounds("ten", run, sweeps=10)


def test_tensorly_tells_the_sweeps_that_it_ran():
    """Each of its rows: the model and the number of sweeps come from what it returns."""
    cp = problems.Problem("p", "cp", (6, 7, 8), 2, sweeps=3)
    hooi = problems.Problem("p", "hooi", (6, 7, 8), (2, 2, 2), sweeps=3)
    for problem, adapters in ((cp, rivals.CP), (hooi, rivals_tucker.TUCKER)):
        data = problem.build()
        for name in [name for name in adapters if name.startswith("tensorly")]:
            (run,) = adapters[name](problem, data, sweeps=3)
            run.setup()
            result = run.call()
            assert run.sweeps_run(result) == 3
            assert residual.relative_error(data.x.numpy(), *run.answer(result)) < 0.9


@pytest.mark.parametrize("kind", rivals_tensorly.OPTIONS)
def test_tensorlys_functions_differ_by_rounding_on_our_backend(kind):
    """Each kind of problem, from its start, which stays as it was."""
    shape, rank = ((40, 41, 42), (4, 4, 4)) if kind == "tucker" else ((60, 61, 62), 24)
    problem = problems.Problem("p", kind, shape, rank, sweeps=3)
    data = problem.build()
    kept = [factor.clone() for factor in data.start]
    errors, reused = {}, {}
    for name, adapter in rivals_tensorly.TENSORLY.items():
        (run,) = adapter(problem, data, sweeps=3)
        for _ in range(2):
            run.setup()
            result = run.call()
        assert run.sweeps_run(result) == 3
        errors[name] = residual.relative_error(data.x, *run.answer(result))
        notes = run.notes(result)
        reused[name] = notes["reused_percent"]
        assert notes["distance"] < 1e-4
        assert notes["distance_float64"] < 1e-6
        wrong = [1.01 * factor for factor in run.answer(result)[1]]
        exact = rivals_tensorly.in_float64(rivals_tensorly.EXACT, problem, 3)
        assert rivals_tensorly.distance(wrong, exact) == pytest.approx(0.01, rel=0.05)
    assert max(errors.values()) - min(errors.values()) < 1e-5
    assert all(a.equal(b) for a, b in zip(kept, data.start, strict=True))
    assert (reused["tensorfast-torch"] > 0) == (kind != "tucker")
    assert reused["tensorly-numpy"] == reused["tensorly-torch"] == 0


def test_a_factor_that_is_not_finite_is_far():
    factors = [torch.ones(3, 2), torch.ones(4, 2)]
    broken = [factors[0], factors[1] * float("nan")]
    assert rivals_tensorly.distance(factors, factors) == 0
    assert math.isnan(rivals_tensorly.distance(broken, factors))
    assert math.isnan(rivals_tensorly.distance(broken[::-1], factors[::-1]))


@pytest.mark.parametrize("rank", [3, (3, 2, 3)], ids=str)
def test_all_fit_the_tensors_of_a_batch_alike(rank):
    """Tensor by tensor, and a loop over a part tells which part."""
    problem = problems.Problem("batch", "batched", (8, 7, 6), rank, sweeps=20, count=60)
    data = problem.build()
    assert data.x.shape == (60, 8, 7, 6)
    assert problem.nbytes == data.x.numel() * 4
    assert not torch.equal(data.x[0], data.x[1])
    found = {}
    for name, adapter in rivals_batched.BATCHED.items():
        (run,) = adapter(problem, data, sweeps=20)
        run.setup()
        result = run.call()
        assert run.sweeps_run(result) == 20
        assert run.share == (1.0 if name == "tensorfast" else 50 / 60)
        found[name] = rivals_batched.errors_of(data, run.answer(result))
        assert len(found[name]) == 50
        assert rivals_batched.error_of(data, run.answer(result)) < 0.5
    for name in ("tensorly-torch", "tensorly-numpy"):
        assert found[name] == pytest.approx(found["tensorfast"], abs=1e-5)


@pytest.mark.parametrize("name", rivals_embeddings.EMBEDDINGS)
def test_the_gradient_of_every_loss_of_embeddings_is_right(name):
    problem = problems.Problem("p", "spectrum", (40, 6), 6, sweeps=2)
    data = problem.build()
    (run,) = rivals_embeddings.EMBEDDINGS[name](problem, data, sweeps=2)
    gradient, exact = run.answer(run.call())
    assert exact.dtype == torch.float64
    assert rivals_embeddings.error_of(data, (gradient, exact)) < 1e-5
    assert rivals_embeddings.error_of(data, (1.01 * gradient, exact)) > 5e-3


@pytest.mark.parametrize("code", [0, 1])
def test_only_a_part_that_succeeded_is_recorded(tmp_path, monkeypatch, code):
    """Though pytest-benchmark writes its file whatever the outcome."""

    def pytest_run(command, **_):
        (option,) = [part for part in command if part.startswith("--benchmark-json=")]
        Path(option.partition("=")[2]).write_text("new")
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(run.subprocess, "run", pytest_run)
    (tmp_path / "cp.json").write_text("old")
    assert run.run_part("cp", tmp_path, quick=False) == (code == 0)
    assert (tmp_path / "cp.json").read_text() == ("old" if code else "new")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("AMD EPYC", "cpu-amd-epyc-2c"),
        ("AMD EPYC 9654 96-Core Processor", "cpu-amd-epyc-9654-2c"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "cpu-intel-xeon-platinum-8481c-2c"),
    ],
)
def test_machine_names_are_short(model, expected):
    assert machine.slug(model, 2) == expected


@pytest.mark.parametrize("slab", [1, 7, 2**22])
def test_the_residual_is_that_of_the_dense_model(monkeypatch, slab):
    monkeypatch.setattr(residual, "SLAB", slab)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 4, 3, 2)).astype(np.float32)
    factors = [rng.standard_normal((n, 3)) for n in x.shape]
    weights, core = rng.standard_normal(3), rng.standard_normal((3, 3, 3, 3))
    for head, formula in ((weights, "r,ir,jr,kr,lr->ijkl"), (core, "abcd,ia,jb,kc,ld->ijkl")):
        dense = np.einsum(formula, head, *factors)
        expected = np.linalg.norm(x - dense) / np.linalg.norm(x.astype(np.float64))
        assert residual.relative_error(x, head, factors) == pytest.approx(expected, rel=1e-12)
        changed = [factors[0] * 1.01, *factors[1:]]
        assert residual.relative_error(x, head, changed) != pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["cp", "hooi", "tucker", "constrained_parafac"])
def test_a_problem_is_its_seed(kind):
    rank = (3, 2, 2) if kind in ("hooi", "tucker") else 3
    problem = problems.Problem("p", kind, (8, 9, 10), rank, sweeps=1)
    x, start = problem.build()
    again, start_again = problem.build()
    assert x.equal(again)
    assert all(a.equal(b) for a, b in zip(start, start_again, strict=True))
    ranks = [rank] * 3 if rank == 3 else rank
    sizes = list(zip(problem.shape, ranks, strict=True))
    assert [tuple(f.shape) for f in start] == ([] if kind == "hooi" else sizes)
    if kind == "constrained_parafac":
        assert all((f > 0).all() for f in start)
    if kind == "tucker":
        assert all(torch.allclose(f.T @ f, torch.eye(f.shape[1]), atol=1e-6) for f in start)


def test_the_noise_is_a_tenth_of_the_model():
    quiet = problems.Problem("p", "cp", (20, 21, 22), 3, sweeps=1, noise=0.0)
    noisy = problems.Problem("p", "cp", (20, 21, 22), 3, sweeps=1)
    model = quiet.build().x
    assert ((noisy.build().x - model).norm() / model.norm()).item() == pytest.approx(0.1, rel=0.05)


def test_the_watch_does_not_count_our_own_work(monkeypatch):
    clocks = {"_all_seconds": [10.0, 14.0], "_own_seconds": [5.0, 8.0]}
    for name, ticks in clocks.items():
        monkeypatch.setattr(quiet, name, iter(ticks).__next__)
    monkeypatch.setattr(quiet.time, "perf_counter", iter([0.0, 2.5]).__next__)
    monkeypatch.setattr(quiet.threads, "cores", lambda: 2)
    with quiet.Watch() as watch:
        pass
    assert watch.others == 1.0
    assert watch.available == 5.0


@pytest.mark.skipif(not memory_probe.supported(), reason="no /proc/self/clear_refs to write to")
def test_the_probe_sees_what_a_call_allocates_even_if_it_frees_it():
    def call():
        return np.ones(2**23)[:8].copy()

    # The kernel counts pages in batches, a few dozen a core.
    found = memory_probe.extra_bytes(lambda: None, call)
    assert found == pytest.approx(2**26, abs=2**20)
    assert memory_probe.extra_bytes(lambda: None, lambda: None) < 2**20
