"""The report of the benchmark: its tables, and the bar, which wrong or doubtful results fail."""

import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import acceptance, problems, records, report, tables

RIVALS = {"tensorly-torch": 8.0, "tensorly-numpy": 10.0, "pyttb": 40.0}
BACKEND = {"tensorly-torch": 8.0, "tensorly-numpy": 10.0, "tensorfast-numpy": 1.1}
TUCKER_RIVALS = {**RIVALS, "tensorly-torch-randomized": 7.0, "tensorly-numpy-randomized": 8.0}
MACHINE = {
    "name": "cpu-test-2c",
    "kind": "cpu",
    "cpu": "Test",
    "simd": "none",
    "cores": 2,
    "threads": 2,
    "os": "Linux",
    "python": "3.11",
    "versions": {"torch": "2", "pygenten": None},
    "roofs": {"sgemm_gflops": 1, "dgemm_gflops": 1, "copy_gbs": 1, "read_gbs": 1},
}


def benchmark(problem, implementation, seconds, error, lap=0, **more):
    return {
        "stats": {"data": [s * problem.sweeps for s in seconds]},
        "extra_info": {
            "problem": problem.name,
            "kind": problem.kind,
            "implementation": implementation,
            "variant": "",
            "lap": lap,
            "sweeps": problem.sweeps,
            "error": error,
            "others_s": 3.0 if implementation == "pyttb" else 0.1,
            "available_s": 10.0,
            "flops_per_sweep": 1e9,
            "roof_ms_per_sweep": 0.5,
            **more,
        },
    }


def memory_entry(problem, implementation, share, variant=""):
    info = {
        "problem": problem.name,
        "kind": "memory",
        "implementation": implementation,
        "variant": variant,
        "tensor_bytes": problem.nbytes,
        "extra_bytes": int(problem.nbytes * share / 100),
        "share_percent": share,
    }
    return {"stats": {"data": [1.0]}, "extra_info": info}


@pytest.fixture
def results(tmp_path):
    """Write results in which tensorfast takes 1 ms a sweep and every answer is right."""

    def write(
        errors=None,
        ours=1e-3,
        share=20.0,
        quick=False,
        commit="0123456789abcdef",
        dirty=(),
        far=1e-6,
    ):
        parts = {part: [] for part in records.PARTS}
        for problem in (*problems.CP, *problems.TUCKER):
            part = parts["cp" if problem.kind == "cp" else "tucker"]
            error = (errors or {}).get(problem.name, 0.1)
            part.append(benchmark(problem, "tensorfast", [ours] * 3, error))
            for rival, ms in (RIVALS if problem.kind == "cp" else TUCKER_RIVALS).items():
                part.append(benchmark(problem, rival, [ms * 1e-3] * 3, 0.1))
        for problem in problems.BATCHED:
            error = (errors or {}).get(problem.name, 0.1)
            parts["batched"].append(benchmark(problem, "tensorfast", [ours] * 3, error))
            # A twentieth of the tensors, in 1.5 milliseconds a sweep.
            loop = benchmark(problem, "tensorly-torch", [1.5e-3] * 3, 0.1)
            loop["extra_info"]["share"] = 0.05
            parts["batched"].append(loop)
        for problem in problems.EMBEDDINGS:
            for name, ms in (("tensorfast", 1e3 * ours), ("torch-pca", 15.0)):
                # Of the gradient.
                error = (errors or {}).get(problem.name, 1e-7)
                error = error if name == "tensorfast" else 1e-7
                part = parts["embeddings"]
                part.append(benchmark(problem, name, [ms * 1e-3] * 3, error))
        for problem in problems.TENSORLY:
            error = (errors or {}).get(problem.name, 0.1)
            for name, ms in {"tensorfast-torch": 1e3 * ours, **BACKEND}.items():
                mine = name.startswith("tensorfast")
                more = {
                    "reused_percent": 47.0 if mine else 0.0,
                    "distance": far if mine else 1e-6,
                    "distance_float64": 1e-14,
                }
                entry = benchmark(problem, name, [ms * 1e-3] * 3, error if mine else 0.1, **more)
                parts["tensorly"].append(entry)
        for problem in problems.MEMORY:
            parts["memory"] += [
                memory_entry(problem, "tensorfast", 20.0),
                memory_entry(problem, "tensorfast-svd", share),
                memory_entry(problem, "pyttb", 30.0, "float64 tensor, float64 factors"),
            ]
        folder = tmp_path / "results" / "cpu-test-2c"
        folder.mkdir(parents=True, exist_ok=True)
        for part, benchmarks in parts.items():
            written = {
                "machine_info": MACHINE,
                "commit_info": {"id": commit, "dirty": part in dirty},
                "datetime": "2026-01-01T00:00:00",
                "benchmarks": benchmarks,
                "quick": quick,
                "not_run": [
                    {"problem": "p", "implementation": "pygenten", "reason": "offers no Tucker"}
                ],
            }
            (folder / f"{part}.json").write_text(json.dumps(written))
        return records.load(tmp_path / "results")

    return write


def test_laps_count_once_each_and_the_worst_error_stands():
    row = records.Row([0.1, 0.2, 0.6], [0.1, 0.3, 0.2], info={"sweeps": 10})
    assert row.ms == pytest.approx(20.0)
    assert row.spread == pytest.approx((0.4 - 0.15) / 0.2)
    assert row.error == 0.3
    assert math.isnan(records.Row([0.1], [0.1, math.nan, 0.2]).error)
    assert records.Row([0.1]).spread == 0.0


def test_a_lap_of_many_rounds_does_not_outvote_the_others():
    machine, problem = records.Machine(Path("m")), problems.CP[0]
    laps = [[1.0] * 9, [2.0], [3.0, 9.0, 3.0]]
    recorded = {
        "machine_info": MACHINE,
        "commit_info": {"id": None, "dirty": False},
        "datetime": "2026-01-01T00:00:00",
        "benchmarks": [benchmark(problem, "tensorfast", lap, 0.1) for lap in laps],
    }
    records._add(machine, "cp", recorded)
    assert machine.row(problem.name, "tensorfast").ms == pytest.approx(2000.0)


def test_good_results_pass_the_bar(results):
    assert all(check.passed for check in acceptance.checks(results()[0]))


def test_the_rival_is_the_faster_backend_of_tensorly(results):
    found = results()[0]
    assert found.fastest_tensorly("200^3-R16") == "tensorly-torch"
    assert acceptance.against_tensorly(found, problems.CP[0]).speedup == pytest.approx(8.0)


def failed(found):
    return {check.what.partition(":")[0] for check in acceptance.checks(found) if not check.passed}


def test_one_wrong_answer_fails_its_row_and_the_mean(results):
    found = results(errors={"200^3-R64": 0.1 + 1e-3})[0]
    assert failed(found) == {"200^3-R64", "geometric mean of the large, cp"}
    assert acceptance.large_mean(found) is None


def test_slow_results_fail_the_bar(results):
    # The bar of HOOI of a batch is lower than that of CP.
    batched = [p for p in problems.BATCHED if isinstance(p.rank, int)]
    slow = {p.name for p in (*problems.TUCKER, *batched)} | {"spectrum-4096x256"}
    assert failed(results(ours=2e-3)[0]) == slow
    slow |= {"spectrum-1024x64", "geometric mean of the large, cp"}
    assert failed(results(ours=4e-3)[0]) == slow
    assert {p.name for p in problems.CP} <= failed(results(ours=9e-3)[0])


def test_the_bar_of_tucker_is_over_tensorly_as_it_comes(results):
    """The fastest of its rows has the randomised SVD, and no bar."""
    found = results(ours=1.5e-3)[0]
    (check,) = [check for check in acceptance.checks(found) if check.what.startswith("HOOI")]
    assert check.passed
    assert check.found == "5.33x (over tensorly-torch)"
    assert found.fastest_tensorly(problems.TUCKER[0].name) == "tensorly-torch-randomized"
    (line,) = [
        line for line in tables.speedups(found, problems.TUCKER).splitlines() if "HOOI" in line
    ]
    assert "| 5.33x | 4.67x | tensorly-torch-randomized |" in line


def test_the_bar_of_embeddings_is_over_the_pca_at_no_larger_error(results):
    found = results()[0]
    checks = [check for check in acceptance.checks(found) if check.what.startswith("spectrum-")]
    assert [check.what.partition(": ")[2] for check in checks] == [
        f"at least {bar}x torch-pca" for bar in (2.0, 5.0, 10.0)
    ]
    assert {check.found for check in checks} == {"15.0x (over torch-pca)"}
    assert "| spectrum-128x10 | 1 | 15 | 15.0x | 1.0e-07 | 1.0e-07 |" in report.document([found])
    wrong = results(errors={"spectrum-128x10": 1e-3})[0]
    assert failed(wrong) == {"spectrum-128x10"}
    assert "| spectrum-128x10 | 1 | 15 | error larger |" in report.document([wrong])


def test_the_time_of_a_loop_is_extrapolated(results):
    found = results()[0]
    (check,) = [c for c in acceptance.checks(found) if c.what.startswith("1000x16^3-R8")]
    assert check.what.endswith("at least 20.0x TensorLy")
    assert check.found == "30.0x (over tensorly-torch)"
    text = "| 1000x16^3-R8 | 1 | 30 | 30.0x | 0.1000000 | 0.1000000 |"
    assert text in report.document([found])
    assert failed(results(errors={"1000x16^3-R8": 0.11})[0]) == {"1000x16^3-R8"}
    del found.parts["batched"]
    assert "Not measured yet: `python bench/run.py --only batched`." in report.document([found])


def test_embeddings_that_were_not_measured_are_told(results):
    found = results()[0]
    for problem in problems.EMBEDDINGS:
        del found.rows[problem.name]
    del found.parts["embeddings"]
    assert failed(found) == {p.name for p in problems.EMBEDDINGS}
    assert "Not measured yet: `python bench/run.py --only embeddings`." in report.document([found])


def test_the_bar_of_the_backend_is_the_faster_of_ours_over_the_faster_of_tensorlys(results):
    names = {p.name for p in problems.TENSORLY}
    found = results()[0]
    checks = [check for check in acceptance.checks(found) if check.what.split(":")[0] in names]
    assert len(checks) == 2 * len(names)
    told = {check.found for check in checks if check.what.endswith("x TensorLy")}
    assert told == {"8.00x (over tensorly-torch)"}
    # Ours on NumPy stays at 1.1 ms.
    told = acceptance.against_tensorly(results(ours=9e-3)[0], problems.TENSORLY[0])
    assert told.text == "7.27x"
    assert acceptance.large_mean(results(ours=9e-3)[0], "parafac") == pytest.approx(8 / 1.1)


def test_the_backend_is_not_faster_on_a_wrong_answer(results):
    found = results(errors={"parafac 64^4-R64": 0.2, "tucker 200^3-20^3": 0.2})[0]
    mean = "geometric mean of the large, parafac"
    assert failed(found) == {"parafac 64^4-R64", "tucker 200^3-20^3", mean}
    lines = tables.tensorly(found).splitlines()
    wrong = " | ".join(["error larger"] * 3)
    assert f"| parafac 64^4-R64 | 10 | 8 | 1.1 | 1 | {wrong} | 47 % |" in lines
    assert "| tucker 64^4-10^4 | 10 | 8 | 1.1 | 1 | 9.09x | 8.00x | 8.00x | - |" in lines
    told = "not stated on NumPy, not stated on PyTorch, not stated at best."
    assert told in report.backend_snippet([found])


@pytest.mark.parametrize("far", [5e-6, math.nan])
def test_factors_that_are_far_from_the_float64_ones_fail(results, far):
    assert not failed(results(far=3e-6)[0])
    assert failed(results(far=far)[0]) == {p.name for p in problems.TENSORLY}


def test_a_backend_that_was_not_measured_is_told(results):
    found = results()[0]
    for problem in problems.TENSORLY:
        del found.rows[problem.name]
    del found.parts["tensorly"]
    names = {p.name for p in problems.TENSORLY}
    assert failed(found) == {*names, "geometric mean of the large, parafac"}
    assert "Not measured yet: `python bench/run.py --only tensorly`." in report.document([found])
    assert report.backend_snippet([found]) == "Not yet measured."


def test_much_memory_fails_the_bar_from_either_start(results):
    assert failed(results(share=40.0)[0]) == {"400^3-R16"}
    found = results()[0]
    del found.memory["400^3-R16"]["tensorfast-svd"]
    assert failed(found) == {"400^3-R16"}


def test_a_quick_run_or_none_never_passes(results):
    assert report.check(results())
    assert not report.check(results(quick=True))
    assert not report.check([])


def test_what_is_no_commit_never_passes(results):
    assert failed(results(dirty=("tucker",))[0]) == {"tucker"}
    assert failed(results(commit=None)[0]) == set(records.PARTS)


@pytest.mark.parametrize("disturbed", ["tensorfast", "tensorly-torch"])
def test_what_was_disturbed_never_passes_and_is_named(results, disturbed):
    found = results()[0]
    found.rows["64^4-R16"][disturbed].others = 3.0
    (check,) = [check for check in acceptance.checks(found) if not check.passed]
    assert check.what.startswith("64^4-R16")
    assert f"{disturbed} was disturbed" in check.found
    # Nothing is compared with this one.
    found = results()[0]
    found.rows["64^4-R16"]["tensorly-numpy"].others = 3.0
    assert not failed(found)


def test_the_document_states_no_speedup_on_a_wrong_answer(results):
    text = report.document(results(errors={"400^3-R16": 0.2}))
    assert "generated" in text.splitlines()[0]
    (line,) = [line for line in text.splitlines() if line.startswith("| 400^3-R16 | error larger")]
    assert "x |" not in line
    assert "not stated" in text
    assert "pygenten on p: offers no Tucker" in text
    assert "pyttb on 400^3-R16 (30 %)" in text
    assert "Not yet run on a GPU." in text


def test_the_readme_states_no_speedup_on_a_wrong_answer(results):
    text = report.snippet(results(errors={"400^3-R16": 0.2}))
    (line,) = [line for line in text.splitlines() if line.startswith("| 400^3-R16")]
    assert "error larger" in line
    assert "x |" not in line
    assert report.snippet([]) == "Not yet measured."


def test_the_readme_tells_what_was_measured_and_how(results):
    text = report.snippet(results(dirty=("tucker",)))
    assert "commit 0123456789ab, commit 0123456789ab with uncommitted changes." in text
    lines = {line.split(" |")[0].removeprefix("| "): line for line in text.splitlines()}
    # pyttb was disturbed everywhere.
    assert lines["24^5-R16"] == r"| 24^5-R16 | 1 | 8.00x | 40.0x\* | not run |"
    assert lines["HOOI-200^3-20^3 †"].startswith("| HOOI-200^3-20^3 † | 10 | 7.00x |")
    assert r"\* Other processes" in text
    assert "† Each library has its own start." in text
    assert "tensorfast-svd makes its own start" in text
    told = "9.09x on NumPy, 8.00x on PyTorch, 8.00x at best."
    assert f"`parafac` on [our backend](docs/tensorly.md): {told}" in text
    assert "float64 copy of it, twice its size, that pyttb each worked on" in text


def test_the_pages_have_a_place_for_their_tables():
    for page in report.PAGES:
        text = page.read_text(encoding="utf-8")
        assert "new" in report.replace_between(text, "new").split(report.START)[1][:10]


def test_only_what_stands_between_the_markers_is_replaced():
    text = f"a\n{report.START}\nold\n{report.END}\nb\n"
    new = report.replace_between(text, "new")
    assert new == f"a\n{report.START}\nnew\n{report.END}\nb\n"
    assert report.replace_between(new, "new") == new
    assert report.replace_between("no markers", "new") == "no markers"
