"""The example of the backend for TensorLy runs, and finds the same models with it."""

import re

import pytest

EXAMPLE = "tensorly_backend"
# In float64 nothing but the last digits may differ.
OPTIONS = ("--double", "--sweeps", "4", "--rank", "40")
ROW = re.compile(
    r"(?P<function>\w+) +(?P<library>numpy|pytorch) +(?P<own_error>[\d.]+) +[\d.]+ s +"
    r"(?P<error>[\d.]+) +[\d.]+ s +(?P<speedup>[\d.]+ x|-) +(?P<match>[\d.]+) +(?P<shared>\d+)/12"
)


@pytest.fixture(scope="module")
def found(quick):
    return [row.groupdict() for row in map(ROW.fullmatch, quick[0].splitlines()) if row]


def test_there_is_a_row_for_each_function_and_library(found):
    functions = ("parafac", "non_negative_parafac_hals")
    rows = [(row["library"], row["function"]) for row in found]
    assert rows == [(library, name) for library in ("numpy", "pytorch") for name in functions]


def test_the_models_are_the_same_and_a_speedup_is_told(found):
    for row in found:
        assert row["error"] == row["own_error"]
        assert float(row["error"]) < 0.1
        assert float(row["match"]) == 1
        assert row["speedup"] != "-"


def test_the_data_and_their_licence_are_named_and_nothing_is_left(quick):
    assert "Baumgardner" in quick[0]
    assert "CC BY 3.0" in quick[0]
    assert not list(quick[1].iterdir())
