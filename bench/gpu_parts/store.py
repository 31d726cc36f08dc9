"""Records on disk, and what is kept of failures."""

import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Lines kept of a failure.
LINES = 12

#: Where packages are installed, up to their names.
_INSTALLED = re.compile(
    r"(?:/[^\s:\"']*)?/(?:site|dist)-packages/|(?:/[^\s:\"']*)?/lib/python3[.0-9]*/"
)


def last_lines(text, lines=LINES):
    """Return the end of what a process said, without the places where things lie on a machine.

    Parameters
    ----------
    text : str
    lines : int

    Returns
    -------
    str
    """
    end = "\n".join(text.strip().splitlines()[-lines:])
    return _INSTALLED.sub("", end.replace(f"{ROOT}/", ""))


def read(path):
    """Return a record; where there is none, or half of one, an empty one.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
    """
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        found = {}
    return {"entries": [], "not_run": [], "failures": [], **found}


def write(path, record):
    """Write a record, whole or not at all.

    Parameters
    ----------
    path : Path
    record : dict
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(fresh, path)
