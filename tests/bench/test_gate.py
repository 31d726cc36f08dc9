"""The gate of the benchmark: no speed-up is stated on a wrong answer."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.gate import Timing, compare, geometric_mean, rounding_tolerance


def test_tolerance_is_that_of_the_longest_contraction():
    assert rounding_tolerance((400, 400, 400)) == 4 * 2**-24 * 400
    assert rounding_tolerance((1000, 200, 50)) == pytest.approx(4 * 2**-24 * math.sqrt(200_000))
    assert rounding_tolerance((9, 9, 9), itemsize=8) == 4 * 2**-53 * 9


def test_equal_answers_give_the_ratio_of_the_times():
    assert compare(Timing(1.0, 0.1), Timing(3.0, 0.1), 0.0).speedup == 3.0


def test_a_better_answer_is_not_refused():
    assert compare(Timing(1.0, 0.05), Timing(3.0, 0.1), 0.0).speedup == 3.0


def test_a_wrong_answer_gets_no_speedup_however_fast():
    refused = compare(Timing(1e-9, 0.11), Timing(3.0, 0.1), 1e-5)
    assert refused.speedup is None
    assert refused.text == "error larger"


def test_the_gate_stands_at_the_tolerance():
    tolerance = 2.0**-10
    assert compare(Timing(1, 0.5 + tolerance), Timing(2, 0.5), tolerance).speedup == 2
    assert compare(Timing(1, 0.5 + 1.01 * tolerance), Timing(2, 0.5), tolerance).speedup is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_error_gets_no_speedup(bad):
    assert compare(Timing(1.0, bad), Timing(3.0, 0.1), 1.0).text == "error not finite"
    assert compare(Timing(1.0, 0.1), Timing(3.0, bad), 1.0).text == "rival's error not finite"


def test_a_tilde_where_the_spreads_allow_either_to_be_the_faster():
    ours, rival = Timing(1.0, 0.1, spread=0.2), Timing(1.2, 0.1, spread=0.2)
    assert compare(ours, rival, 0.0).text == "~1.20x"
    assert compare(rival, ours, 0.0).text == "~0.83x"
    assert compare(ours, Timing(1.3, 0.1, spread=0.2), 0.0).text == "1.30x"
    assert compare(ours, Timing(1.2, 0.1), 0.0).text == "1.20x"


def test_what_was_not_run_gets_no_speedup():
    assert compare(None, Timing(1.0, 0.1), 0.0).text == "not run"
    assert compare(Timing(1.0, 0.1), None, 0.0).text == "not run"


def test_geometric_mean():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("ratios", [[], [2.0, None], [2.0, 0.0], [2.0, -1.0], [2.0, math.nan]])
def test_geometric_mean_refuses_to_skip_what_is_missing(ratios):
    with pytest.raises(ValueError, match="positive ratios, all of them"):
        geometric_mean(ratios)
