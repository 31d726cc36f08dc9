"""The hardships of CP: that each happens, is noticed, and is as the page says."""

import itertools
import re

import pytest

from bench import example_pages
from tests.examples.common import PNG, rows

EXAMPLE = PAGE = "cp_hardships"


def test_components_diverge_and_the_fit_says_so(blocks, quick):
    plain = [cells for cells in rows(blocks["border"]) if cells[0] == "0"]
    assert [cells[1] for cells in plain] == ["10", "100", "1000"]
    errors, lengths, cosines = ([float(c[n]) for c in plain] for n in (2, 3, 4))
    assert errors == sorted(errors, reverse=True)
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[-1] < -0.9
    # "Every tenfold of sweeps makes the components about 1.75 times as long."
    for shorter, longer in itertools.pairwise(lengths):
        assert longer / shorter == pytest.approx(1.75, abs=0.03)
    assert plain[-1][5] == "degenerate"
    assert "no best approximation of this rank" in quick[0]


def test_a_ridge_bounds_the_components(blocks, page):
    bound = [[float(cells[n]) for n in (0, 2, 3)] for cells in rows(blocks["border"])[2:]]
    assert [ridge for ridge, _, _ in bound] == [0, 1e-4, 1e-3, 1e-2]
    assert [error for _, error, _ in bound] == sorted(error for _, error, _ in bound)
    lengths = [length for _, _, length in bound]
    assert lengths == sorted(lengths, reverse=True)
    # After ten times the sweeps the strongest ridge still holds, to every digit.
    assert rows(blocks["border"])[-1][2:5] == rows(page["border"])[-1][2:5]


def test_deflation_is_worse_than_a_joint_fit_but_for_a_matrix(blocks):
    found = {}
    for name, _, greedy, joint, factor, kept in rows(blocks["deflation"]):
        found.setdefault(name, []).append((float(greedy), float(joint), factor, kept))
    made, pines, matrix = found.values()
    assert all(float(factor) == 1 for _, _, factor, _ in matrix)
    for fits in (made, pines):
        assert float(fits[0][2]) == float(fits[0][3]) == 1
        # The best first component is no part of a better model.
        assert all(float(kept) < 0.9995 for *_, kept in fits[1:])
    factors = [float(factor) for _, _, factor, _ in made[:4]]
    assert factors == sorted(factors)
    assert factors[3] > 1.7
    assert made[4][1:3] == (0, "together exact")
    assert made[4][0] == pytest.approx(made[0][0] / 2, rel=0.02)
    assert all(float(factor) > 1.005 for _, _, factor, _ in pines[1:])


def test_sweeps_grow_with_collinearity_and_line_search_saves_some(blocks, page):
    for found in (rows(blocks["swamps"]), rows(page["swamps"])):
        plain, searched = ([int(cells[n].split()[0]) for cells in found] for n in (1, 2))
        assert plain == sorted(plain)
        assert searched == sorted(searched)
        gains = [float(cells[3]) for cells in found]
        assert gains == sorted(gains)
        assert gains[2] >= 2
    assert [float(cells[0]) for cells in rows(page["swamps"])] == [0.3, 0.5, 0.7, 0.8, 0.9, 0.95]


def test_random_starts_agree_on_components_in_any_order(blocks):
    said = re.search(
        r"(\d+) random starts end in (\d+) different orders .* match to ([\d.]+) or better",
        blocks["answers"],
    )
    assert int(said[1]) == 10
    assert int(said[2]) > 1
    assert float(said[3]) > 0.999


def test_a_rotation_changes_what_cp_describes_and_not_what_tucker_does(blocks):
    found = rows(blocks["turns"])
    assert {cells[1] for cells in found} == {"less than 1e-14"}
    matches, changes = ([float(cells[n]) for cells in found] for n in (2, 3))
    # Cosines of the angles, up to 45 degrees; then the mean of four columns' halves.
    assert matches == [0.996, 0.966, 0.866, 0.707, 0.5]
    assert changes == sorted(changes)
    assert changes[0] > 0.1


def test_cp_is_tucker_with_a_superdiagonal_core(blocks):
    for _, gap, consistency in rows(blocks["superdiagonal"]):
        assert gap == "less than 1e-14"
        assert consistency == "100.0000 %"


def test_the_page_says_what_the_example_says(blocks, page):
    """Whole tables that take little, and what a short run shares with a long one."""
    assert page.keys() == blocks.keys()
    for name in ("turns", "superdiagonal"):
        assert example_pages.agree(page[name], blocks[name]), name
    for name, count in (("border", 2), ("deflation", 5), ("swamps", 3)):
        long, short = ("\n".join(where[name].splitlines()[: 2 + count]) for where in (page, blocks))
        assert example_pages.agree(long, short), name


def test_two_pictures_and_the_blocks_are_written_and_nothing_else(quick):
    output, folder = quick
    pictures = {"cp_hardships_border.png", "cp_hardships_progress.png"}
    assert {path.name for path in folder.iterdir()} == {f"{PAGE}.md", *pictures}
    assert all((folder / name).read_bytes().startswith(PNG) for name in pictures)
    assert "Baumgardner" in output
    assert "CC BY 3.0" in output
