"""The pages of docs/ whose numbers and pictures are those of an example.

``make examples`` runs the examples in ``build/examples``; ``python -m bench.example_pages`` then
brings tables and pictures up to date, and with ``--check`` fails if a table is not.
"""

import math
import re
import shutil
import sys
from functools import partial
from pathlib import Path

from bench.tables import between, keep

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "examples"
BLOCK = re.compile(r"<!-- ([\w-]+):start -->\n\n(.*?)\n\n<!-- \1:end -->", re.DOTALL)
PICTURE = re.compile(r"\]\((images/\S+?)\)")
#: A number and what says that it is a time, or a ratio of times, which no two runs share.
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)( m?s\b|x)?")
#: What another processor's rounding may do to a fit of many sweeps, and to a count of them.
TOLERANCE = 0.02


def blocks(text):
    """Return what stands between markers, by name."""
    return dict(BLOCK.findall(text))


def agree(old, new, tolerance=TOLERANCE):
    """Whether two blocks say the same, but for times, and for numbers that differ by little.

    Numbers may also differ by one in the last of their digits.
    """
    if NUMBER.sub("#", old) != NUMBER.sub("#", new):
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    return all(
        unit or math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=1.01 * _digit(a))
        for (a, unit), (b, _) in pairs
    )


def _digit(number):
    """Return what one in the last digit is worth; nothing for a count."""
    return 10.0 ** -len(number.partition(".")[2]) if "." in number and "e" not in number else 0.0


def written(page, folder=FOLDER, *, lenient=False):
    """Return a page with the blocks of an example; if lenient, each old one that agrees stays."""
    text = page.read_text(encoding="utf-8")
    old = blocks(text)
    for name, content in blocks((folder / page.name).read_text(encoding="utf-8")).items():
        if not (lenient and agree(old.get(name, ""), content)):
            text = between(text, name, content)
    return text


def main():
    """Write or check every page of which an example has written the blocks."""
    pages = [ROOT / "docs" / found.name for found in sorted(FOLDER.glob("*.md"))]
    if not pages:
        sys.exit(f"nothing in {FOLDER}: make examples")
    check = "--check" in sys.argv
    for page in pages:
        keep(page, partial(written, page, lenient=check), __doc__, "bench.example_pages")
        if not check:
            for picture in PICTURE.findall(page.read_text(encoding="utf-8")):
                shutil.copy(FOLDER / Path(picture).name, page.parent / picture)


if __name__ == "__main__":
    main()
