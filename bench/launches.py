"""Every configuration that the kernels' heuristics ask for over a grid of problems, compiled.

The problems are walked on tensors without data, and launches are noted instead of made. Of each
distinct configuration (GPU, kernel, types, tile, arithmetic) the launch with the most indices to
unravel is kept to be compiled, on data that admit only narrow loads if there are any: it takes the
most registers. The loads are read off the simplest launch on data that admit 16-byte ones, and
besides there is one with 64-bit offsets, and one with 64-bit indices where there are any. These are
not wanted for every arithmetic or number of columns: see `_walk`. At last, whatever an argument can
look like (how many modes there are, what lies side by side) occurs in some launch.
"""

import concurrent.futures
import itertools
import multiprocessing
import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from triton.compiler.errors import CompilationError

from bench import sass
from bench.cases import Case, cases
from tensorfast.kernels.devices import CHIPS

#: The block sizes of each kernel, first the two of the tile that is read, or written, most.
SIDES = {
    "contraction_kernel": ("BLOCK_M", "BLOCK_K", "BLOCK_R"),
    "slab_kernel": ("BLOCK_M", "BLOCK_K", "BLOCK_R"),
    "gram_kernel": ("BLOCK_I", "BLOCK_K", "BLOCK_I"),
    "khatri_rao_kernel": ("BLOCK_M", "BLOCK_R"),
    "contract_partial_kernel": ("BLOCK_Q", "BLOCK_G"),
    "factor_kernel": ("BLOCK_R", "BLOCK_K", "BLOCK_C"),
    "solve_kernel": ("BLOCK_I", "BLOCK_K", "BLOCK_R"),
    "add_grams_kernel": ("BLOCK_Q", "BLOCK_P"),
    "sums_kernel": ("BLOCK_Q",),
    "judge_kernel": ("BLOCK_Q",),
    "eigenvectors_kernel": ("BLOCK_N", "BLOCK_G"),
    "residual_kernel": ("BLOCK_M", "BLOCK_N", "BLOCK_R"),
    "squared_norm_kernel": ("BLOCK_M", "BLOCK_N"),
}

#: Rows, terms and columns of a product, where these are not the `SIDES`.
PRODUCT = {"residual_kernel": ("BLOCK_M", "BLOCK_R", "BLOCK_N")}

#: What a heuristic decides besides block sizes.
DECIDED = ("PRECISION", "SWEEP", "GRAM", "ALONE", "HELD", "num_warps", "num_stages", "maxnreg")

#: Launches that are compiled before they are disassembled together.
TOGETHER = 16


@dataclass(frozen=True)
class Configuration:
    """What the heuristics decide.

    Attributes
    ----------
    capability : int
    kernel : str
    dtypes : tuple of str
        Of the data, and what is computed in.
    options : tuple of (str, object)
        Block sizes, arithmetic, warps, stages.
    """

    capability: int
    kernel: str
    dtypes: tuple
    options: tuple

    def __str__(self):
        """Describe the configuration."""
        tile = " x ".join(map(str, self.sides))
        others = [f"{k} {v}" for k, v in self.options if not k.startswith("BLOCK")]
        types = " to ".join(dict.fromkeys(self.dtypes))
        return f"sm_{self.capability} {self.kernel}, {types}, tile {tile}, {', '.join(others)}"

    def get(self, option):
        """Return an option, None where the kernel has none of that name."""
        return dict(self.options).get(option)

    def without(self, *options):
        """Return the same configuration but for some options."""
        return replace(self, options=tuple(o for o in self.options if o[0] not in options))

    @property
    def mode(self):
        """The arithmetic; None where there is no matrix product."""
        return self.get("PRECISION")

    @property
    def sides(self):
        """The block sizes, as in `SIDES`."""
        return tuple(self.get(name) for name in SIDES[self.kernel])

    @property
    def product(self):
        """Rows, terms and columns of a product of tiles."""
        return tuple(self.get(name) for name in PRODUCT.get(self.kernel, SIDES[self.kernel]))


class Launch(NamedTuple):
    """A launch that may be compiled.

    Attributes
    ----------
    configuration : Configuration
    case : Case
        Which makes the launch.
    structure : tuple
        The arguments, as far as Triton makes another program of others.
    known : tuple of (str, object)
        What the kernel is told of sizes and strides as constants.
    """

    configuration: Configuration
    case: Case
    structure: tuple
    known: tuple

    def __str__(self):
        """Name the configuration and the call."""
        return f"{self.configuration}; {self.case}"

    @property
    def indices(self):
        """Numbers that take part in unravelling indices."""
        return sum(len(part) for part in self.structure if isinstance(part, tuple))

    def told(self, constant, default):
        """Return what the kernel is told of the data."""
        return dict(self.known).get(constant, default)


def note(case, capability):
    """Return the launch of a case, without compiling it.

    Parameters
    ----------
    case : Case
    capability : int

    Returns
    -------
    Launch
    """
    seen = []
    with sass.launching(lambda *launch: seen.append(launch)):
        case.run(capability)
    ((kernel, args, options),) = seen
    dtypes = [str(a.dtype).removeprefix("torch.") for a in _tensors(args)]
    decided, known = [], []
    for option in sorted(options.items()):
        if option[0] in DECIDED or option[0].startswith("BLOCK_"):
            decided.append(option)
        else:
            known.append(option)
    configuration = Configuration(capability, kernel.__name__, tuple(dtypes[:2]), tuple(decided))
    structure = [
        _structure(value, not parameter.do_not_specialize)
        for value, parameter in zip(args, kernel.params, strict=False)
    ]
    return Launch(configuration, case, tuple(structure), tuple(known))


def _tensors(args):
    """Yield the tensors among arguments, and among parts of these."""
    for value in args:
        if isinstance(value, tuple):
            yield from _tensors(value)
        elif isinstance(value, torch.Tensor):
            yield value


def _structure(value, special):
    """Return what Triton makes a difference of when it turns a kernel into a program."""
    if isinstance(value, tuple):
        return tuple(_structure(part, special) for part in value)
    if value is None:
        return "none"
    if isinstance(value, torch.Tensor):
        return "n"
    return "1" if special and value == 1 else "n" if abs(value) < 2**31 else "long"


def chosen(capabilities=tuple(CHIPS), processes=None):
    """Walk all problems, and choose what to compile.

    Parameters
    ----------
    capabilities : tuple of int
    processes : int, optional
        One a core if not given.

    Returns
    -------
    launches : list of Launch
    walked : int
        How many problems there are, over all GPUs.
    """
    launches, looks, walked = [], {}, 0
    with _pool(processes) as pool:
        for kept, others, count in pool.map(_walk, capabilities):
            launches += kept
            looks = others | looks
            walked += count
    seen = {look for launch in launches for look in _looks(launch)}
    launches += dict.fromkeys(launch for key, launch in looks.items() if key not in seen)
    return launches, walked


def _walk(capability):
    """Choose what to compile for one GPU: by configuration, and by the looks of arguments."""
    walked, hardest, simplest, longest, looks = 0, {}, {}, {}, {}
    for case in cases():
        launch = note(case, capability)
        walked += 1
        key, long = launch.configuration, launch.told("WIDE", False)
        _keep(hardest, key, launch, (not long, launch.indices, -launch.told("UNIT", 1)))
        if case.wide and (case.precision == "ieee" or capability == 90):
            # How many columns are multiplied has no part in how the data are loaded; nor has the
            # arithmetic, but where the matrix unit takes an operand in a layout of its own.
            _keep(simplest, key.without("BLOCK_R"), launch, (not long, -launch.indices))
        if long and case.precision == "ieee":
            # Of all arithmetics that which holds the most parts.
            _keep(longest, (key, launch.told("LONG", False)), launch, launch.indices)
        for look in _looks(launch):
            looks.setdefault(look, launch)
    best = itertools.chain.from_iterable(map(dict.values, (hardest, simplest, longest)))
    return list(dict.fromkeys(launch for _, launch in best)), looks, walked


def _keep(best, key, launch, score):
    if key not in best or best[key][0] < score:
        best[key] = score, launch


def _looks(launch):
    """Yield how each argument looks to Triton."""
    key = launch.configuration
    for part in (*enumerate(launch.structure), *launch.known):
        yield key.kernel, key.get("SWEEP"), part


def compiled(launches, processes=None):
    """Compile launches in parallel and read them; what was compiled before comes from the cache.

    Parameters
    ----------
    launches : list of Launch
    processes : int, optional
        One a core if not given.

    Returns
    -------
    dict of Launch to Report
        Where Triton refused, its words.
    """
    by_chip = sorted(launches, key=lambda launch: launch.configuration.capability)
    parts = [
        part[start : start + TOGETHER]
        for _, part in itertools.groupby(by_chip, lambda launch: launch.configuration.capability)
        for part in [list(part)]
        for start in range(0, len(part), TOGETHER)
    ]
    with _pool(processes) as pool:
        return dict(itertools.chain.from_iterable(pool.map(_compile, parts)))


def _pool(processes):
    # Forked, so that what the tests replaced is replaced there, too.
    context = multiprocessing.get_context("fork")
    processes = processes or len(os.sched_getaffinity(0))
    return concurrent.futures.ProcessPoolExecutor(processes, context)


def _compile(launches):
    """Compile and read launches for one GPU, in this process."""
    kernels, refused = {}, {}
    for launch in launches:
        with sass.compiling_for(launch.configuration.capability) as got, _standard_error() as said:
            try:
                launch.case.run(launch.configuration.capability)
            except (CompilationError, RuntimeError) as error:
                refused[launch] = "; ".join([_root(error), *said()])
                continue
        (kernels[launch],) = got
    reports = sass.read(list(kernels.values()))
    return [*zip(kernels, reports, strict=True), *refused.items()]


def _root(error):
    """Return the last line of an exception's first cause."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}"


@contextmanager
def _standard_error():
    """Keep what the compiler prints, the whole program where it fails; yield its errors."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)

        def errors():
            file.seek(0)
            return re.findall(r"^.*(?:Assertion|error:) ?(.+)$", file.read().decode(), re.MULTILINE)

        try:
            yield errors
        finally:
            os.dup2(before, 2)
            os.close(before)
