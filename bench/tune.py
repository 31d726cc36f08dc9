"""Find the best tile of every setting on the GPU at hand: ``python bench/tune.py [--seconds 300]``.

Each setting stands for many problems; a typical one is timed with every tile that is valid and does
not spill, and the quickest goes to ``kernels/tuned/<gpu>.json``, from where `tiles_for` takes it. A
tile whose result is worse than the heuristic's is left out. The file is written after each setting,
and what it already has is measured again only with ``--again``.
"""

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import triton

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import sass  # noqa: E402 (the root comes first)
from tensorfast.kernels import configs, contraction, devices  # noqa: E402
from tensorfast.kernels.configs import Setting, Tile, arithmetic, invalid, tiles_for  # noqa: E402
from tensorfast.kernels.indexing import plain  # noqa: E402
from tensorfast.kernels.plan import Contraction, candidates  # noqa: E402

#: What is tuned, the most used first: storage type, precision, order, rank.
PROBLEMS = [
    *itertools.product(["float32"], ["ieee"], [3, 4], [64, 32, 16]),
    *itertools.product(["float32"], ["tf32"], [3], [64, 32, 16]),
    *itertools.product(["bfloat16", "float16"], ["ieee"], [3], [64, 32, 16]),
    *itertools.product(["float64"], ["ieee"], [3], [64, 32, 16]),
    *itertools.product(["float32"], ["ieee"], [5], [64, 32, 16]),
    *itertools.product(["float32", "bfloat16", "float16"], ["bf16"], [3], [64, 32, 16]),
]

#: Shapes of a typical problem by order: about 2^27 elements, and the same with few rows.
SHAPES = {3: (512, 512, 512), 4: (104, 108, 112, 108), 5: (40, 44, 40, 44, 44)}

#: What a tile may differ by in its error from the heuristic's: another order of additions.
WORSE = 1.5

_SIDES = ([16, 32, 64, 128], [16, 32, 64, 128], [16, 32, 64, 128])


def shapes(order):
    """Return the shapes of a typical problem: with many rows, and with few."""
    many = SHAPES[order]
    return [many, (configs.FEW, many[0] * many[1] // configs.FEW, *many[2:])]


def every_tile(setting, chip):
    """Return all tiles that are worth a try, the heuristic's first.

    Parameters
    ----------
    setting : Setting
    chip : Chip

    Returns
    -------
    list of Tile
    """
    grid = itertools.product(*_SIDES, [4, 8], [2, 3, 4, 5])
    tiles = [
        tile
        for m, k, r, warps, stages in grid
        for tile in [Tile(m, k, r, warps, stages)]
        # No narrower than the rank, so that x is loaded once; rows for which there is use.
        if r == setting.columns
        and (m == configs.FEW) == (setting.rows == configs.FEW)
        and not invalid(tile, setting, chip)
    ]
    return list(dict.fromkeys([*tiles_for(setting, chip), *tiles]))


def best(tiles, seconds_and_error):
    """Return the quickest tile whose error is not worse than the first one's, and all figures.

    Parameters
    ----------
    tiles : list of Tile
        The heuristic's choice first.
    seconds_and_error : callable
        Of a tile.

    Returns
    -------
    tile : Tile
    figures : dict of Tile to (float, float)
    """
    figures = {tile: seconds_and_error(tile) for tile in tiles}
    allowed = WORSE * figures[tiles[0]][1]
    good = {tile: seconds for tile, (seconds, error) in figures.items() if error <= allowed}
    return min(good, key=good.get), figures


def settings_of(dtype, precision, order, rank, chip):
    """Yield each setting of a problem, and the shape of a tensor in C order that has it."""
    mode, itemsize = arithmetic(dtype, precision, chip), devices.ITEMSIZE[dtype]
    for shape, sweep in itertools.product(shapes(order), ("outer", "inner")):
        strides = torch.empty(shape, device="meta").stride()
        simple = plain(shape, strides, itemsize)
        yield Setting.of(shape[0], rank, mode, itemsize, sweep, order, simple), shape


@dataclass(frozen=True)
class Trial:
    """The contraction to the first mode of a tensor in C order, by which tiles are compared.

    Attributes
    ----------
    setting : Setting
    shape : tuple of int
    dtype, precision : str
    rank : int
    chip : Chip
    """

    setting: Setting
    shape: tuple
    dtype: str
    precision: str
    rank: int
    chip: devices.Chip

    def operands(self, device):
        """Return tensor, factors and result; random where the device holds data."""
        wide = torch.float64 if self.dtype == "float64" else torch.float32
        x = torch.empty(self.shape, dtype=getattr(torch, self.dtype), device=device).normal_()
        sizes = enumerate(self.shape[1:], 1)
        factors = {
            n: torch.empty(size, self.rank, dtype=wide, device=device).normal_()
            for n, size in sizes
        }
        return x, factors, x.new_empty(self.shape[0], self.rank, dtype=wide)

    def way(self, tile):
        """Return the best plan with a tile, None where there is none."""
        strides = torch.empty(self.shape, device="meta").stride()
        about = self.shape, strides, (0,), self.rank, self.dtype, self.precision, self.chip
        ways = candidates(Contraction(*about), tiles=lambda *_: (tile,))
        ways = [way for way in ways if way.sweep == self.setting.sweep]
        return min(ways, key=lambda p: p.seconds, default=None)

    def run(self, tile, x, factors, out):
        """Contract."""
        return contraction.contract(x, factors, out, self.precision, self.chip, self.way(tile))

    def usable(self, tile):
        """Compile with a tile, and tell whether all fits into registers."""
        if self.way(tile) is None:
            return False
        with sass.compiling_for(self.chip.capability) as compiled:
            self.run(tile, *self.operands("meta"))
        (report,) = sass.read(compiled)
        return not report.spilled and report.shared <= self.chip.shared_memory

    def clock(self, repeats=7):
        """Return a function that gives seconds and error of a tile, on the GPU.

        The error is that of the first rows in the norm, against float64.
        """
        x, factors, out = self.operands("cuda")
        rows = slice(0, 4)
        letters = "abcdefgh"[: x.ndim]
        terms = ",".join([letters, *(letters[n] + "r" for n in factors)])
        wide = (f.double() for f in factors.values())
        exact = torch.einsum(f"{terms}->ar", x[rows].double(), *wide)

        def seconds_and_error(tile):
            self.run(tile, x, factors, out)
            error = torch.linalg.norm(out[rows].double() - exact) / torch.linalg.norm(exact)
            laps = []
            for _ in range(repeats):
                start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                self.run(tile, x, factors, out)
                stop.record()
                stop.synchronize()
                laps.append(start.elapsed_time(stop) / 1000)
            return statistics.median(laps), error.item()

        return seconds_and_error


def write(path, chip, found):
    """Write what was found so far.

    Parameters
    ----------
    path : Path
    chip : Chip
    found : dict of Setting to Tile
    """
    record = {
        "capability": chip.capability,
        "shared_memory": chip.shared_memory,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "tiles": [{"setting": asdict(s), "tile": asdict(t)} for s, t in found.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def search(chip, usable, clock, stop, known=(), problems=PROBLEMS):
    """Find the best tile, setting after setting, until the time is over.

    Parameters
    ----------
    chip : Chip
    usable : callable
        Of a trial and tiles: which of them can be used.
    clock : callable
        Of a trial: what gives seconds and error of a tile.
    stop : float
        When the time is over, by `time.monotonic`; a setting that is under way is given up.
    known : collection of Setting
        What is passed over.
    problems : iterable
        As `PROBLEMS`.

    Yields
    ------
    setting : Setting
    tile : Tile
    gain : float
        How many times faster it is than the heuristic's.
    """
    for dtype, precision, order, rank in problems:
        for setting, shape in settings_of(dtype, precision, order, rank, chip):
            if setting in known:
                continue
            trial = Trial(setting, shape, dtype, precision, rank, chip)
            every, tiles = every_tile(setting, chip), []
            for tile, use in zip(every, usable(trial, every), strict=True):
                if time.monotonic() > stop:
                    return
                if use:
                    tiles.append(tile)
            if tiles:
                tile, figures = best(tiles, clock(trial))
                yield setting, tile, figures[tiles[0]][0] / figures[tile][0]


def main(arguments=None):
    """Tune until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--again", action="store_true", help="measure what is known, too")
    parser.add_argument("--out", type=Path, default=configs.TUNED)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.exit(1, "tune: torch sees no CUDA GPU\n")
    chip = devices.chip_of(torch.device("cuda"))
    path, stop = options.out / f"{chip.name}.json", time.monotonic() + options.seconds
    known = dict(configs.tuned(chip.name))
    passed_over = () if options.again else tuple(known)
    # Processes of their own, since compiling without a launch replaces Triton's driver.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:

        def usable(trial, tiles):
            return pool.map(trial.usable, tiles)

        for setting, tile, gain in search(chip, usable, Trial.clock, stop, passed_over):
            known[setting] = tile
            print(f"{setting}: {tile}, {gain:.2f}x the heuristic", flush=True)
            write(path, chip, known)
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
