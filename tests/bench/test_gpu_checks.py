"""What the parts of ``make gpu`` are made of: failures, waits, tests cut short, the sanitizer."""

import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.gpu_parts import clock, outcomes, sanitizer, sync, tests, waits
from bench.gpu_parts.context import Context
from bench.gpu_parts.store import read

ROOT, CPU = Path(__file__).resolve().parents[2], torch.device("cpu")


def test_a_failure_is_recorded_and_the_part_goes_on(tmp_path):
    context = Context(tmp_path / "a.json", 60, rehearse=True)
    with context.guard("ours"):
        raise ValueError("wrong")
    with context.guard("theirs", ours=False):
        raise ValueError("not our fault\nat all")
    assert not context.enough("long", 100)
    record = read(context.path)
    assert [told["what"] for told in record["failures"]] == ["ours"]
    assert record["failures"][0]["error"].endswith("ValueError: wrong")
    assert record["not_run"][0] == {"what": "theirs", "reason": "failed: ValueError: not our fault"}
    assert record["not_run"][1]["reason"].startswith("no time left")


def test_what_is_attempted_runs_if_there_is_time_and_may_fail(tmp_path):
    context, ran = Context(tmp_path / "a.json", 60, rehearse=True), []
    context.attempt("first", 1, lambda: ran.append("first"))
    context.attempt("wrong", 1, lambda: ran.append(1 / 0), ours=False)
    context.attempt("long", 100, lambda: ran.append("long"))
    assert ran == ["first"]
    record = read(context.path)
    assert [told["what"] for told in record["not_run"]] == ["wrong", "long"]


@pytest.mark.parametrize("waits", [False, True])
def test_the_waits_of_any_engine_are_forbidden(tmp_path, waits):
    def engine(x):
        return float(x.sum()) if waits else x.sum()

    module = ModuleType("engines")
    module.quick = engine

    def fit(sweeps):
        # Before and after, the call may wait.
        return float(module.quick(torch.ones(sweeps)))

    context = Context(tmp_path / "a.json", 60, rehearse=True)
    sync.forbid(fit, module, ("plain", "quick"), context)
    (told,) = read(context.path)["entries"]
    assert (told["call"], told["passed"], told["first"] is None) == ("fit", not waits, not waits)
    assert module.quick is engine
    with pytest.raises(RuntimeError, match="fit called no engine of the names"):
        sync.forbid(fit, module, ("plain",), context)


def test_the_precision_of_torch_is_set_and_put_back():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    seen = []

    def fails():
        with clock.products_in("tf32"):
            seen.append(matmul.fp32_precision)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fails()
    assert seen == ["tf32"]
    assert matmul.fp32_precision == before


def test_every_wait_is_counted_where_it_is():
    def waiting():
        return float(torch.ones(1)) + torch.ones(1).item() + int(torch.ones(1))

    with waits.counted(CPU) as found:
        waiting()
        warnings.warn("of something else", stacklevel=1)
    assert found == {"elsewhere": 3}
    with waits.refused(CPU), pytest.raises(RuntimeError, match=waits.WORDS):
        waiting()
    waiting()
    own = traceback.FrameSummary(str(ROOT / "tensorfast" / "cp" / "als.py"), 7, "als")
    other = traceback.FrameSummary("/lib/torch.py", 1, "item")
    assert waits.place([other, own, other]) == "tensorfast/cp/als.py:7 als"


SUITE = """
import time
import pytest

@pytest.mark.{mark}
@pytest.mark.parametrize("n", range(3))
def test_passes(n): pass

@pytest.mark.{mark}
def test_fails(): assert 1 == 2

@pytest.mark.{mark}
def test_skips(): pytest.skip("why")

@pytest.mark.{mark}
def test_hangs(): time.sleep(600)

@pytest.mark.{mark}
def test_never_begins(): pass

def test_of_no_interest(): assert False
"""


class UntilItHangs(Context):
    """A context whose time is over once five tests have ended, or after a minute."""

    @property
    def left(self):
        if super().left <= 0:
            return 0.0
        try:
            ended = self.path.with_suffix(".jsonl").read_text().count('"outcome"')
        except FileNotFoundError:
            ended = 0
        return 60.0 if ended < 5 else 0.0


def test_a_run_of_tests_that_is_cut_short_tells_what_passed(tmp_path, monkeypatch):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: a mark\n")
    (tmp_path / "test_it.py").write_text(SUITE.format(mark="gpu"))
    monkeypatch.setattr(tests, "REHEARSED", (str(tmp_path / "test_it.py"),))
    context = UntilItHangs(tmp_path / "tests.json", 60, rehearse=True)
    tests.run(context)
    record = read(context.path)
    assert {name: record[name] for name in tests.COUNTS} == {
        "passed": 3,
        "failed": 1,
        "skipped": 1,
        "never_ran": 2,
    }
    failed, late = record["failures"]
    assert failed["what"].endswith("test_it.py::test_fails")
    assert "assert 1 == 2" in failed["error"]
    assert late["error"] == "2 tests never ran: the time was over"


def test_the_tests_that_need_a_gpu_are_found():
    found = tests.marked(ROOT)
    assert found[:2] == list(tests.FIRST)
    assert "tests/kernels/interpret/test_slab.py" in found
    assert "tests/cp/test_cp_als.py" not in found


def test_a_process_without_a_fault_goes_on():
    assert not outcomes.unusable()


@pytest.mark.parametrize(
    ("code", "said", "outcome", "failed", "missing"),
    [
        (0, "a: error 1e-8\n==== ERROR SUMMARY: 0 errors", "passed", 0, 0),
        (9, "Invalid write\n==== ERROR SUMMARY: 3 errors", "found errors", 1, 0),
        (9, "==== RACECHECK SUMMARY: 2 hazards displayed", "found errors", 1, 0),
        (1, "==== Error: Device not supported", "did not get through", 0, 1),
        (None, "a: error 1e-8", "the time was over", 0, 1),
    ],
)
def test_what_the_sanitizer_says(tmp_path, code, said, outcome, failed, missing):
    context = Context(tmp_path / "s.json", 60, rehearse=True)
    sanitizer.record(context, "memcheck", (code, said))
    record = read(context.path)
    assert record["entries"][0]["outcome"] == outcome
    assert len(record["failures"]) == failed
    assert len(record["not_run"]) == missing


def test_a_command_that_hangs_is_ended():
    assert sanitizer.watched(["sh", "-c", "echo begun; sleep 600"], 0.5) == (None, "begun\n")
