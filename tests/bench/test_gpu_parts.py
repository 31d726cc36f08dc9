"""The parts of ``make gpu`` rehearsed on a CPU, and the report of what they leave behind."""

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import gpu, gpu_problems, gpu_records, gpu_rivals, gpu_tables, plots, report
from bench.gate import rounding_tolerance
from bench.gpu_parts import PARTS, machine, sanitizer, small_calls
from bench.gpu_parts.calls import Call, Maker, calls
from bench.gpu_parts.context import Context
from bench.gpu_parts.store import read, write
from bench.gpu_parts.sweep import few_of
from bench.problems import Data, Problem
from tensorfast.cp.operand import schedule_of
from tensorfast.ops.fused import Fused

ROOT, CPU = Path(__file__).resolve().parents[2], torch.device("cpu")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """Run every part with tiny sizes, in this process; return the folder of results."""
    folder = tmp_path_factory.mktemp("results") / "nvidia-rehearsal"
    for part in PARTS:
        path = folder / f"{part.name}.json"
        write(path, {"part": part.name, "rehearsal": True, "date": "2026-01-01"})
        context = Context(path, 60, rehearse=True)
        importlib.import_module(f"bench.gpu_parts.{part.name}").run(context)
        write(path, {**read(path), "status": "done", "seconds": 1.0})
    return folder


def test_every_part_has_results_and_none_fails(rehearsed):
    for part in PARTS:
        record = read(rehearsed / f"{part.name}.json")
        assert record["entries"], part.name
        assert not record["failures"], part.name
    absent = read(rehearsed / "sanitizer.json")["not_run"]
    assert [told["what"] for told in absent] in ([], list(sanitizer.TOOLS))


def test_all_libraries_run_the_same_sweeps(rehearsed):
    for part, problems in (
        ("sweep", gpu_problems.TINY_CP),
        ("tucker", gpu_problems.TINY_TUCKER),
        ("fit", [gpu_problems.TINY_FIT]),
    ):
        entries = read(rehearsed / f"{part}.json")["entries"]
        for problem in problems:
            own = {t["implementation"]: t for t in entries if t["problem"] == problem.name}
            allowed = rounding_tolerance(problem.shape)
            # Tucker's starts differ.
            allowed = max(allowed, 1e-4) if part == "tucker" else allowed
            errors = [told["error"] for told in own.values()]
            assert max(errors) - min(errors) < allowed
            if part == "sweep":
                assert set(own) == set(gpu_rivals.CP)


def test_the_report_renders_a_rehearsal_and_says_that_it_is_none(rehearsed):
    results = rehearsed.parent
    report.write(results)
    text = (results / "RESULTS.md").read_text()
    assert "A rehearsal on a CPU: a check of the code, not a measurement." in text
    assert "Never run on any GPU: machine, tests, kernels" in text
    assert "Not yet run on a GPU." not in text
    for title in ("Targets", "CP-ALS", "Tucker", "Time to", "Kernels", "Where the host waits"):
        assert f"#### {title}" in text
    for name in plots.GPU:
        assert (rehearsed / name).stat().st_size > 1000
        assert f"(nvidia-rehearsal/{name})" in text


def test_without_results_the_report_says_so():
    assert "Not yet run on a GPU." in report.document([], [])


def test_a_part_runs_in_a_process_of_its_own(tmp_path):
    status = gpu.main(["--rehearse", "--only", "machine", "--out", str(tmp_path)])
    record = read(tmp_path / "machine.json")
    assert status == 0
    assert record["status"] == "done"
    assert record["rehearsal"]
    assert set(record["roofs"]) == {"copy_gbs", *machine.RATES}
    assert "commit" in record


def named(problem, implementation, ms, error=0.1, **more):
    about = {"problem": problem, "implementation": implementation, "ms": ms, "error": error}
    return {**about, "spread": 0.0, **more}


def measured(**changes):
    """Results that meet every target, but for the changes: problem -> (ms, error)."""
    sweep, tucker = [], []
    for problem, times in gpu_records.FASTER.items():
        ms, error = changes.get(problem, (1.0, 0.1))
        part = sweep if gpu_problems.BY_NAME[problem].kind == "cp" else tucker
        part += [named(problem, "tensorfast", ms, error, ideal_ms=0.7)]
        part += [named(problem, "tensorly", times)]
    other = {"call": "hooi", "mode": "error", "passed": False, "first": "somewhere"}
    sync = [other, {"call": "cp_als", "mode": "error", "passed": True, "first": None}]
    entries = {"sweep": sweep, "tucker": tucker, "sync": sync}
    found = {name: {"entries": own, "not_run": []} for name, own in entries.items()}
    return gpu_records.GpuMachine(Path("nvidia-x"), found)


def test_targets_are_met_or_not():
    assert all(target.met for target in gpu_records.targets(measured()))
    slow = gpu_records.targets(measured(**{"512^3-R32": (1.2, 0.1)}))
    assert [t.what.partition(":")[0] for t in slow if not t.met] == ["512^3-R32"] * 2
    wrong = gpu_records.targets(measured(**{"64^3-R16": (1.0, 0.2)}))
    assert [(t.found, t.met) for t in wrong if not t.met] == [("error larger", False)]
    none = gpu_records.targets(gpu_records.GpuMachine(Path("nvidia-x")))
    assert {target.met for target in none} == {None}


def test_what_failed_or_never_ran_is_in_the_document():
    found = measured()
    found.parts = {
        "tests": {
            "entries": [],
            "failures": [{"what": "test_a", "error": "x\nAssertionError: y"}],
            "not_run": [{"what": "b", "reason": "no time left"}],
            "status": "ended after 9 s",
            "last_lines": "the end",
        }
    }
    text = gpu_tables.section(found, "folder")
    assert "- tests, test_a: failed: AssertionError: y" in text
    assert "- tests, b: no time left" in text
    assert "- tests: ended after 9 s: the end" in text
    assert "Never run on this GPU: machine, tests, kernels" in text


@pytest.mark.parametrize("call", small_calls.CALLS, ids=str)
def test_a_wrong_result_of_a_kernel_shows(call):
    made = Maker(CPU).make(call)
    right = made.ours()
    assert made.error(right) < 1e-5
    if call.op == "slab":
        for at in range(3):
            wrong = [part * (1.01 if n == at else 1) for n, part in enumerate(right)]
            assert 1e-3 < made.error(wrong) < 0.1
    else:
        assert made.error(right * 1.01) == pytest.approx(0.01, rel=1e-3)
        assert math.isnan(made.error(right * math.nan))
    assert made.flops > 0
    assert made.bytes > 0


def test_every_kernel_is_measured_in_every_mode():
    chosen = calls()
    assert len(set(chosen)) == len(chosen)
    for precision in ("ieee", "tf32"):
        for dtype in ("float32", "bfloat16"):
            for rank in (16, 32, 64, 128, 256):
                for mode in range(3):
                    assert Call("mttkrp", (512,) * 3, mode, rank, dtype, precision) in chosen
    whole = {call.op for call in small_calls.CALLS} - small_calls.PARTS_OF_A_FIT
    assert {call.op for call in chosen} == whole
    # What matters most comes first.
    assert chosen[0] == Call("mttkrp", (512,) * 3, 0, 32)


@pytest.mark.parametrize("shape", [(5, 4), (6, 5, 4), (3, 7, 2, 4), (3, 2, 4, 2, 3)], ids=str)
@pytest.mark.parametrize("products", [gpu_rivals.tree, gpu_rivals.einsum])
def test_the_rivals_in_plain_torch_are_plain_als(products, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    start = [torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in shape]
    found, errors = gpu_rivals.als(products, x, start, sweeps=3)
    problem = Problem("p", "cp", shape, 2, 3)
    (run,) = gpu_rivals.torch_baseline(problem, Data(x, start), 3)
    expected, info = run.call()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert [float(e) for e in errors] == pytest.approx(info.rel_errors, abs=1e-7)


def test_all_graphs_are_recorded_within_the_few_sweeps():
    for problem in gpu_problems.CP:
        with FakeTensorMode():
            x = torch.empty(*problem.shape, device="cuda")
        cycle = schedule_of(x, problem.rank, tuple(range(x.ndim)), Fused("ieee")).sweeps
        assert 2 * cycle <= few_of(problem.sweeps) < problem.sweeps


def test_the_rate_of_products_of_parts_is_that_of_the_parts():
    roofs = {"copy_gbs": 1.0, "fp64": 1.0, "fp32": 2.0, "tf32": 6.0, "bf16": 60.0, "fp16": 60.0}
    assert machine.rate(roofs, "bf16x6") == 10e12
    assert machine.rate(roofs, "ieee") == 2e12
    assert machine.rate(roofs, "ieee", "float64") == 1e12
    assert machine.best_rate(roofs, "ieee") == 10e12
    assert machine.best_rate(roofs, "tf32") == 20e12
