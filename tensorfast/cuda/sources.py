"""The text of the CUDA C++ sources, each with its headers put in."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

__all__ = ["expanded", "read"]

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


def read(name: str) -> str:
    """Return a file of ``csrc/cuda/`` as it is."""
    return (files(__package__) / "sources" / name).read_text(encoding="utf-8")


@cache
def expanded(name: str) -> str:
    """Return a source with the text of every ``#include "..."`` in its place, each but once.

    One text is all that the compiler needs and all that the cache has to know: no folder of headers
    has to exist, as where the package is imported from an archive.
    """
    return _expanded(name, set())


def _expanded(name: str, seen: set[str]) -> str:
    seen.add(name)

    def instead(match: re.Match[str]) -> str:
        header = match[1]
        line = match.string.count("\n", 0, match.start()) + 2
        inner = "" if header in seen else _expanded(header, seen)
        # So that what the compiler has to say names the file at hand.
        return f'{inner}\n#line {line} "{name}"'

    text = _INCLUDE.sub(instead, read(name).replace("#pragma once\n", "\n"))
    return f'#line 1 "{name}"\n{text}'
