"""What holds our tensor algebra to TensorLy's own tests: it sees what is wrong, and only that."""

import sys
from collections import Counter

import pytest

from tests.backends.tensorly.suite import run as suite
from tests.backends.tensorly.suite.run import EVERY_SIZE, OURS, STOCK, Record

TESTS = """
import numpy as np
import pytest
import tensorly
from tensorly import tenalg

X = tensorly.tensor(np.ones((2, 3, 4)))


def test_that_calls():
    tenalg.mode_dot(X, X[0, 0], 2)
    assert isinstance(tenalg.mode_dot(X, X[:, 0], 2), type(X))


def test_that_changes_backends():
    tensorly.set_backend("pytorch")
    tenalg.set_backend("einsum")


def test_that_needs_what_was_chosen():
    assert (tensorly.get_backend(), tenalg.get_backend()) == ("numpy", "core")


def test_that_draws_numbers():
    assert np.random.rand() == 0


def test_that_breaks_off():
    pytest.skip("no need")


@pytest.mark.xfail
def test_that_is_known_to_fail():
    assert not "really"
"""


def record(*, calls=30_000, reused=1, handed_back=0, **outcomes):
    tests = {name: (outcome, f"{outcome} for a reason") for name, outcome in outcomes.items()}
    return Record(tests, {"mode_dot": calls}, {"mode_dot": handed_back}, reused, 1.0)


@pytest.fixture
def repeated(monkeypatch):
    """How often a test fails when it is repeated, by each algebra; those that were."""
    failures, asked = {}, []

    def counted(numeric, algebra, tests):
        asked.extend(tests)
        return Counter({test: failures.get((algebra, test), 0) for test in tests})

    monkeypatch.setattr(suite, "repeated", counted)
    return failures, asked


def faults(stock, ours, algebra=EVERY_SIZE):
    return suite.faults("numpy", algebra, stock, ours)


def test_nothing_is_wrong_with_what_ends_as_well(repeated):
    stock = record(a="passed", b="failed", c="skipped", d="xfailed")
    assert faults(stock, record(a="passed", b="failed", c="skipped", d="xfailed")) == []
    assert faults(stock, record(a="passed", b="passed", c="passed", d="xpassed", e="failed")) == []
    assert repeated[1] == []


@pytest.mark.parametrize(
    ("stock", "ours"),
    [
        ("passed", "failed"),
        ("passed", "skipped"),
        ("passed", "xfailed"),
        ("xfailed", "failed"),
        ("skipped", "failed"),
    ],
)
@pytest.mark.parametrize("algebra", [OURS, EVERY_SIZE])
def test_what_ends_worse_is_a_fault(repeated, stock, ours, algebra):
    (fault,) = faults(record(a="passed", b=stock), record(a="passed", b=ours), algebra)
    assert fault.startswith(f"numpy, {algebra}: b {ours}, 0 times of 5 when repeated\n")
    assert f"{ours} for a reason" in fault
    assert {*repeated[1]} == {"b"}


@pytest.mark.parametrize("stock", ["passed", "failed", "skipped"])
def test_what_is_missing_is_a_fault(repeated, stock):
    (fault,) = faults(record(a="passed", b=stock), record(a="passed"))
    assert fault == f"numpy, {EVERY_SIZE}: b is missing"


def test_nothing_at_all_is_a_fault(repeated):
    assert "no test has passed" in faults(record(), record())[0]


def test_what_fails_by_both_as_often_is_excused_aloud(repeated, capsys):
    repeated[0].update({(STOCK, "a"): 2, (EVERY_SIZE, "a"): 2})
    assert faults(record(a="passed"), record(a="failed", b="passed")) == []
    assert "excused: a fails 2 times of 5 when repeated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stock", "ours", "excused"), [(0, 0, False), (0, 1, False), (2, 3, False), (3, 2, True)]
)
def test_what_fails_by_ours_more_often_is_not(stock, ours, excused):
    assert bool(suite.excuse("a", stock, ours)) == excused


@pytest.mark.parametrize(("ours", "excused"), [(0, True), (1, False)])
def test_what_goes_by_the_clock_has_to_pass_when_repeated(ours, excused):
    (timed,) = suite.TIMED
    assert bool(suite.excuse(timed, 0, ours)) == excused


@pytest.mark.parametrize("bypassed", [{"calls": 19_999}, {"handed_back": 10_001}])
def test_functions_that_were_not_called_are_a_fault(bypassed):
    stock, ours = record(a="passed"), record(a="passed", **bypassed)
    (fault,) = faults(stock, ours)
    assert "have served 19999 calls; 20000 are expected" in fault
    # Else small tensors are left to TensorLy's.
    assert faults(stock, ours, OURS) == []


def test_partial_results_that_were_not_used_are_a_fault():
    (fault,) = faults(record(a="passed"), record(a="passed", reused=0))
    assert "no MTTKRP came from a partial result" in fault


@pytest.fixture(scope="module")
def tests(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "test_few.py"
    path.write_text(TESTS)
    return [str(path)]


@pytest.fixture(scope="module")
def stock(tests):
    return suite.run("numpy", STOCK, tests)


def ended(record):
    return {name.rpartition("test_that_")[2]: how for name, (how, _) in record.tests.items()}


def drawn(record):
    """Return what is said of the test that draws a number: the number is in it."""
    return next(why for name, (_, why) in record.tests.items() if name.endswith("draws_numbers"))


def test_a_run_records_how_tests_end_and_what_they_call(tests, stock):
    ours, every = (suite.run("numpy", algebra, tests) for algebra in (OURS, EVERY_SIZE))
    expected = {
        "calls": "passed",
        "changes_backends": "passed",
        "needs_what_was_chosen": "passed",
        "draws_numbers": "failed",
        "breaks_off": "skipped",
        "is_known_to_fail": "xfailed",
    }
    assert ended(stock) == expected
    assert ended(ours) == ended(every) == {**expected, "needs_what_was_chosen": "failed"}
    assert drawn(stock) == drawn(ours) == drawn(every)
    assert ["skipped", "no need"] in stock.tests.values()
    assert stock.calls == {}
    assert (ours.calls["mode_dot"], ours.served()["mode_dot"]) == (2, 0)
    assert (every.calls["mode_dot"], every.served()["mode_dot"]) == (2, 2)


def test_another_seed_draws_other_numbers(tests, stock):
    assert drawn(suite.run("numpy", STOCK, tests, seed=1)) != drawn(stock)


def test_tests_that_cannot_run_are_no_record(tmp_path):
    with pytest.raises(RuntimeError, match="not found"):
        suite.run("numpy", STOCK, [str(tmp_path / "test_absent.py")])


def test_the_table_has_a_line_for_each_run():
    records = {("numpy", name): record(a="passed", b="xfailed") for name in suite.ALGEBRAS}
    text = suite.table(records)
    for algebra in suite.ALGEBRAS:
        (line,) = (line for line in text.split("\n\n")[0].splitlines() if f", {algebra} " in line)
        assert line.split()[-6:] == ["1", "0", "1", "0", "0", "1"]
    assert "mode_dot" in text
    assert "0, 30000" in text


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_quick_or_not_the_verdict_is_the_same(monkeypatch, capsys, repeated, quick, outcome):
    asked = []

    def run(numeric, algebra, tests=()):
        asked.append((algebra, *tests))
        how = {"a": "passed", "b": "passed" if algebra == STOCK else outcome, "c": "skipped"}
        return record(**{name: end for name, end in how.items() if name in (tests or how)})

    monkeypatch.setattr(suite, "run", run)
    monkeypatch.setattr(sys, "argv", ["run.py", "--numeric", "numpy", *["--quick"] * quick])
    assert suite.main() == (outcome == "failed")
    left = ["b", "c"] if outcome == "failed" else ["c"]
    every = [(EVERY_SIZE,), (STOCK, *left)] if quick else [(name,) for name in suite.ALGEBRAS]
    assert sorted(asked) == sorted(every)
    printed = capsys.readouterr()
    assert "numpy: c: skipped, " in printed.out
    assert (f"numpy, {EVERY_SIZE}: b failed" in printed.err) == (outcome == "failed")
