"""Bringing the pages of examples up to date: what counts as the same, and what is replaced."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import example_pages
from bench.example_pages import agree, blocks, written
from bench.tables import between

BLOCK = "| fit | 0.1234 | 2250 | 1.50 s | 16 ms (15 ms to 17 ms) | 8.2x | -0.979 | 1e-14 |"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("0.1234", "0.1235"),
        ("2250", "2260"),
        ("1.50 s", "9.99 s"),
        ("16 ms (15 ms to 17 ms)", "31 ms (29 ms to 40 ms)"),
        ("8.2x", "64x"),
    ],
)
def test_small_changes_and_times_are_no_changes(old, new):
    assert agree(BLOCK, BLOCK.replace(old, new) if old else BLOCK)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1234", "0.1284"),
        ("2250", "2300"),
        ("fit", "fits"),
        ("-0.979", "0.979"),
        ("1e-14", "1e-13"),
        (" | 1.50 s", ""),
        ("0.1234", "0.1234 | 0.1234"),
    ],
)
def test_other_changes_are(old, new):
    assert not agree(BLOCK, BLOCK.replace(old, new))


def test_only_what_stands_between_the_markers_is_replaced():
    text = "a\n<!-- t:start -->\nold\n<!-- t:end -->\nb\n"
    new = between(text, "t", "new")
    assert new == "a\n<!-- t:start -->\n\nnew\n\n<!-- t:end -->\nb\n"
    assert between(new, "t", "new") == new
    with pytest.raises(ValueError, match="unpack"):
        between("no markers", "t", "new")


def test_a_check_is_content_with_blocks_that_agree_and_else_all_are_taken(tmp_path):
    page, folder = tmp_path / "page.md", tmp_path / "made"
    folder.mkdir()

    def block(name, content):
        return f"<!-- {name}:start -->\n\n{content}\n\n<!-- {name}:end -->\n"

    def filled(one, two):
        return f"a\n{block('one', one)}b\n{block('the-other', two)}c\n"

    page.write_text(filled("1.000", "2.000"))
    (folder / "page.md").write_text(block("one", "1.001") + "\n" + block("the-other", "3.000"))
    assert written(page, folder) == filled("1.001", "3.000")
    assert written(page, folder, lenient=True) == filled("1.000", "3.000")
    assert blocks(page.read_text()) == {"one": "1.000", "the-other": "2.000"}


def test_pictures_of_the_pages_are_small_and_all_are_shown():
    folder = example_pages.ROOT / "docs" / "images"
    shown = {
        picture
        for page in folder.parent.glob("*.md")
        for picture in example_pages.PICTURE.findall(page.read_text(encoding="utf-8"))
    }
    assert {f"images/{path.name}" for path in folder.iterdir()} == shown
    assert all(path.stat().st_size < 300_000 for path in folder.iterdir())
