"""The demo runs, and says and draws what it promises."""

import re

import pytest

from tests.examples.common import PNG

EXAMPLE = "indian_pines"
OPTIONS = ("--sweeps", "5", "--ranks", "6", "3", "--output", "picture.png")
ROW = re.compile(
    r"(?P<method>cp_als|sthosvd|hooi) +(?P<rank>\d+(?: x \d+)*) +(?P<compression>[\d.]+) x +"
    r"(?P<error>[\d.]+) +(?P<seconds>[\d.]+) s +(?P<rival_error>[\d.]+) +[\d.]+ s +"
    r"(?P<speedup>[\d.]+ x|-)"
)


def test_indian_pines_prints_a_row_for_each_decomposition(quick):
    rows = [match.groupdict() for match in map(ROW.fullmatch, quick[0].splitlines()) if match]
    methods = [row["method"] for row in rows]
    assert methods == ["cp_als"] * 2 + ["sthosvd", "hooi"] * 2
    assert [row["rank"] for row in rows[:2]] == ["3", "6"]


def test_indian_pines_errors_are_what_they_should_be(quick):
    rows = [match.groupdict() for match in map(ROW.fullmatch, quick[0].splitlines()) if match]
    errors = {
        method: [float(r["error"]) for r in rows if r["method"] == method]
        for method in ("cp_als", "sthosvd", "hooi")
    }
    assert errors["cp_als"][1] < errors["cp_als"][0] < 0.2
    assert all(error <= tol for error, tol in zip(errors["sthosvd"], (0.05, 0.02), strict=True))
    # Iterating from a model does not make it worse; the last printed digit may be rounded.
    assert all(
        after <= before + 1e-5
        for before, after in zip(errors["sthosvd"], errors["hooi"], strict=True)
    )
    for row in rows:
        if row["method"] != "sthosvd":
            # The same sweeps from the same start: the same error, but for rounding.
            assert float(row["error"]) == pytest.approx(float(row["rival_error"]), rel=1e-3)


def test_indian_pines_draws_one_picture_and_leaves_nothing_else(quick):
    output, folder = quick
    (picture,) = folder.iterdir()
    assert picture.name == "picture.png"
    assert picture.read_bytes().startswith(PNG)
    assert picture.stat().st_size > 50_000
    assert "picture.png" in output


def test_indian_pines_names_the_data_and_their_licence(quick):
    assert "Baumgardner" in quick[0]
    assert "CC BY 3.0" in quick[0]
