"""Better tiles for the kernels, by ``bench/tune.py``, in the time that is left.

What it finds goes to ``tuned/`` beside the records: into ``kernels/tuned/`` it is moved by hand.
"""

import json
import time
from dataclasses import replace

from bench import tune
from tensorfast.kernels.devices import CHIPS

#: Seconds that it takes to give up a setting that is under way.
ENDING = 5.0


def run(context):
    """Tune until the time is over, and tell how many settings were."""
    folder = context.path.with_name("tuned")
    if context.rehearse:
        rehearse(folder)
    else:
        tune.main([f"--seconds={max(1.0, context.left - ENDING):.0f}", f"--out={folder}"])
    for path in sorted(folder.glob("*.json")):
        tuned = len(json.loads(path.read_text())["tiles"])
        context.entry(gpu=path.stem, settings=tuned)
        print(f"{path.stem}: {tuned} settings")
    if not context.record["entries"]:
        context.missing("tune", "there was not enough time for one setting")


def rehearse(folder):
    """Tune two settings of a GPU that is not there, by a clock that favours the last tile.

    Parameters
    ----------
    folder : Path
    """
    chip, found = replace(CHIPS[90], name="rehearsal"), {}

    def usable(_, tiles):
        return [n < 3 for n in range(len(tiles))]

    def clock(_):
        seconds = iter((3.0, 2.0, 1.0))
        return lambda tile: (next(seconds), 1e-7)

    stop = time.monotonic() + 60
    for setting, tile, _ in tune.search(chip, usable, clock, stop, problems=tune.PROBLEMS[:1]):
        found[setting] = tile
        tune.write(folder / f"{chip.name}.json", chip, found)
