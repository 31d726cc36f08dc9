"""Which files in examples/ are examples."""

import pytest

from bench.example_pages import ROOT

FILES = [path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*.py")]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_what_begins_with_an_underscore_is_no_example_and_all_else_is(file):
    """As `make examples` takes them, and README.md names them."""
    text = (ROOT / "examples" / file).read_text(encoding="utf-8")
    example = not any(part.startswith("_") for part in file.parts)
    assert ('if __name__ == "__main__":' in text) == example
    if example:
        assert f"`{file}`" in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
