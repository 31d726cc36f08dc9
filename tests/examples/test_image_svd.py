"""The photograph by its singular values: what the example measures, and what its page says."""

import re

import numpy as np
import pytest

from bench import example_pages
from tests.examples.common import PNG, rows

pytest.importorskip("sklearn")

EXAMPLE = PAGE = "image_svd"
PICTURES = {f"image_svd_{name}.png" for name in ("ranks", "spectrum", "colour")}


def numbers(cells):
    """Return what stands in cells, without its unit."""
    return [float(re.sub(r"(?<=\d) ?(%|dB|s|x)$", "", cell)) for cell in cells]


@pytest.fixture(scope="module")
def spectrum():
    """Singular values of the grey photograph by NumPy, without the example."""
    from sklearn.datasets import load_sample_image

    grey = load_sample_image("china.jpg") @ np.array([0.299, 0.587, 0.114])
    return grey.shape, np.linalg.svd(grey, compute_uv=False)


def test_error_and_storage_are_those_of_numpys_svd(blocks, spectrum, quick):
    (m, n), s = spectrum
    found = [numbers(cells) for cells in rows(blocks["ranks"])]
    assert [row[0] for row in found] == [1, 10, 20, 30, 40, 50, 100, 200]
    for rank, stored, share, error, psnr, _, ratio, squares, _ in found:
        k = int(rank)
        least = np.linalg.norm(s[k:]) / np.linalg.norm(s)
        assert stored == k * (m + n + 1)
        assert share == pytest.approx(100 * stored / (m * n), abs=0.051)
        assert error == pytest.approx(least, abs=0.51e-4)
        assert ratio == pytest.approx(s[k - 1] / s[0], abs=0.51e-4)
        assert squares == pytest.approx(100 * (1 - least**2), abs=0.0051)
        noise = np.linalg.norm(s[k:]) / np.sqrt(m * n)
        assert psnr == pytest.approx(20 * np.log10(255 / noise), abs=0.051)
    # The table has four digits; this is what lies beyond them.
    worst = float(re.search(r"same error at every rank, to (\S+)", quick[0])[1])
    assert worst < 1e-6


def test_likeness_rises_with_the_rank_and_the_default_is_near_the_best(blocks):
    found = [numbers(cells) for cells in rows(blocks["ranks"])]
    likeness = [row[5] for row in found]
    assert likeness == sorted(likeness)
    assert 0 < likeness[0] < 0.5 < 0.85 < likeness[-1] < 1
    assert all(0 <= row[8] <= 1 for row in found)


def test_at_equal_storage_cp_is_nearest_and_channels_apart_are_furthest(blocks, page):
    for block, count in ((blocks["colour"], 2), (page["colour"], 4)):
        errors = [re.findall(r"(\d\.\d+) \(rank", line) for line in block.splitlines()[2:]]
        assert len(errors) == count
        for row in errors:
            channels, unfolding, tucker, cp = map(float, row)
            assert cp < tucker < unfolding < channels
    leads = [float(unfolding) / float(cp) for _, unfolding, _, cp in errors]
    assert leads == sorted(leads)


def test_the_randomised_svd_of_a_larger_image_is_as_good_as_the_full_one(blocks):
    found = [numbers(cells[1:]) for cells in rows(blocks["large"])]
    ours, full = found[0], found[-1]
    assert full[0] <= ours[0] <= 1.01 * full[0]
    assert ours[1] <= 1


def test_the_page_says_what_the_example_says(blocks, page):
    """What is made whole in little time; the other tables take minutes."""
    assert page.keys() == blocks.keys()
    for name in ("ranks", "answers"):
        assert example_pages.agree(page[name], blocks[name]), name


def test_the_page_keeps_what_was_asked_of_the_large_image(page):
    """At least eight times faster than NumPy's full SVD, with an error at most 1 % larger."""
    ours = next(cells for cells in rows(page["large"]) if "tensorfast" in cells[0])
    error, larger, seconds, faster = numbers(ours[1:])
    assert 0 < error < 1
    assert larger <= 1
    assert seconds > 0
    assert faster >= 8


def test_three_pictures_and_the_blocks_are_written_and_nothing_else(quick):
    output, folder = quick
    assert {path.name for path in folder.iterdir()} == {f"{PAGE}.md", *PICTURES}
    assert all((folder / name).read_bytes().startswith(PNG) for name in PICTURES)
    assert "danielbuechele" in output
    assert "CC BY 2.0" in output
