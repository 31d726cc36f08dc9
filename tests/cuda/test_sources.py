"""The text of the CUDA C++ sources, as the compiler and the cache see it."""

import re
from pathlib import Path

import pytest

from tensorfast.cuda import sources

FOLDER = Path(__file__).resolve().parents[2] / "csrc" / "cuda"


@pytest.fixture
def given(monkeypatch):
    """Put files of the test in the place of the library's."""

    def give(**files):
        texts = {f"{name}.cuh" if name != "main" else "main.cu": t for name, t in files.items()}
        monkeypatch.setattr(sources, "read", texts.__getitem__)
        sources.expanded.cache_clear()
        return sources.expanded("main.cu")

    yield give
    sources.expanded.cache_clear()


def test_each_header_is_put_in_once(given):
    text = given(
        main='#include "a.cuh"\n#include "b.cuh"\nint main;\n',
        a='#pragma once\n#include "b.cuh"\nint a;\n',
        b="#pragma once\nint b;\n",
    )
    assert re.findall(r"int (\w);", text) == ["b", "a"]
    assert text.endswith("int main;\n")
    assert "#pragma once" not in text
    assert "#include" not in text


def test_lines_keep_their_numbers(given):
    text = given(main='// one\n#include "a.cuh"\nint main;\n', a="#pragma once\n\nint a;\n")
    lines = text.splitlines()

    def told(line):
        """Return the file and the number of a line by the directive before it."""
        at = lines.index(line)
        start = max(n for n in range(at) if lines[n].startswith("#line"))
        _, number, name = lines[start].split()
        return name, int(number) + at - start - 1

    assert told("int a;") == ('"a.cuh"', 3)
    assert told("int main;") == ('"main.cu"', 3)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.cu*")), ids=lambda path: path.name)
def test_a_file_includes_none_but_ours(path):
    text = path.read_text(encoding="utf-8")
    assert sources.read(path.name) == text
    for name in re.findall(r"#\s*include\s+(\S+)", text):
        assert (FOLDER / name.strip('"')).exists(), name
    assert path.suffix == ".cu" or text.startswith("#pragma once\n")
