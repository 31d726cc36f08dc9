"""The Python in README.md and docs/ runs as it stands, the blocks of a page in one namespace."""

import doctest
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(page: Path) -> int:
    """Run the blocks of a page, ``python`` as a program and ``pycon`` as a doctest; count them."""
    namespace: dict[str, object] = {"__name__": "__docs__"}
    text = page.read_text(encoding="utf-8")
    count = 0
    for match in BLOCK.finditer(text):
        language, source = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        count += language in ("python", "pycon")
        if language == "python":
            # Padded, so that a traceback names the line of the page.
            exec(compile("\n" * line + source, str(page), "exec"), namespace)
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(
                source, namespace, page.name, str(page), line
            )
            said: list[str] = []
            runner = doctest.DocTestRunner(optionflags=OPTIONS)
            runner.run(test, out=said.append, clear_globs=False)
            namespace.update(test.globs)
            assert runner.summarize(verbose=False).failed == 0, "".join(said)
    return count


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = torch.random.get_rng_state()
    assert run(page) > 0
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "ARCHITECTURE.md"], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_block_that_fails_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nassert 1 == 1\n```\n\n```pycon\n>>> 1 + 1\n2\n```\n")
    assert run(page) == 2
    page.write_text("```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError):
        run(page)
    page.write_text("```pycon\n>>> 1 + 1\n3\n```\n")
    with pytest.raises(AssertionError, match="Expected"):
        run(page)
