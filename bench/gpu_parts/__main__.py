"""Run one part: ``python -m bench.gpu_parts NAME RECORD --seconds S [--rehearse]``."""

import argparse
import importlib
import signal
import sys
from pathlib import Path

from bench.gpu_parts import named
from bench.gpu_parts.context import Context


def main(arguments=None):
    """Run the part; 1 is the exit status where something of ours failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("record", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args(arguments)
    # So that what it started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    (part,) = named([options.name])
    context = Context(options.record, options.seconds, options.rehearse)
    importlib.import_module(f"bench.gpu_parts.{part.name}").run(context)
    context.write()
    return 1 if context.record["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
