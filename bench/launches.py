"""Every configuration that the kernels' heuristics can ask for, over a grid of problems.

The grid is walked on tensors without data, and launches are noted instead of made. Of each distinct
configuration (GPU, kernel, types, tile, arithmetic) two launches are kept to be compiled: the
simplest on data that admits 16-byte loads, and the one with the most indices to unravel. Besides,
one for every other structure of arguments (how many modes there are, which sizes are 1), as each is
a program of its own to Triton.
"""

import concurrent.futures
import itertools
import multiprocessing
import os
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from triton.compiler.errors import CompilationError

from bench import sass
from tensorfast.kernels import contraction, gram, khatri_rao, mttkrp, partial, slab, ttm
from tensorfast.kernels.devices import CHIPS

DTYPES = ("float32", "float64", "bfloat16", "float16")
PRECISIONS = ("ieee", "tf32", "bf16")

#: Shapes, and their modes as they lie in memory, the slowest first: multiples of 16 and others;
#: modes short, of length 1, and so long that rows or terms pass 2^31; orders 2 to 5.
LAYOUTS = [
    ((64, 64, 64), (0, 1, 2)),
    ((512, 512, 512), (0, 1, 2)),
    ((64, 48, 32, 80), (0, 1, 2, 3)),
    ((16, 32, 16, 32, 48), (2, 0, 4, 1, 3)),
    ((16, 2000, 304), (0, 1, 2)),
    ((2000, 16, 304), (0, 1, 2)),
    ((2000, 304, 16), (0, 1, 2)),
    ((401, 401, 401), (0, 1, 2)),
    ((8, 2000, 300), (0, 1, 2)),
    ((1000, 20, 5), (0, 2, 1)),
    ((30, 1, 20, 10), (3, 1, 0, 2)),
    ((50, 24), (0, 1)),
    ((65536, 4, 65536), (0, 1, 2)),
]

#: The block sizes of each kernel; for a matrix product rows, terms, columns.
SIDES = {
    "contraction_kernel": ("BLOCK_M", "BLOCK_K", "BLOCK_R"),
    "slab_kernel": ("BLOCK_J", "BLOCK_K", "BLOCK_R"),
    "gram_kernel": ("BLOCK_I", "BLOCK_K", "BLOCK_I"),
    "khatri_rao_kernel": ("BLOCK_M", "BLOCK_R"),
    "contract_partial_kernel": ("BLOCK_Q", "BLOCK_G"),
}

#: Of each block of columns a width that 16 divides, and one that it does not.
RANKS = (1, 5, 16, 17, 32, 50, 64, 500, 512)


#: Launches that are compiled before they are disassembled together.
TOGETHER = 16


class Case(NamedTuple):
    """One call of an operation, as plain data.

    Attributes
    ----------
    op : str
        One of `OPERATIONS`.
    shape, order : tuple of int
        As in `LAYOUTS`.
    modes : tuple of int
        What the operation is about.
    rank : int
        0 where there is none.
    dtype, precision : str
    """

    op: str
    shape: tuple
    order: tuple
    modes: tuple
    rank: int
    dtype: str
    precision: str

    @property
    def wide(self):
        """Whether the array that decides the time can be read, or written, 16 bytes at a time.

        Only where no other array can, so that what is found in the code is known to belong to it.
        """
        divisible = [n % 16 == 0 for n in self.shape]
        if self.op == "khatri_rao":
            return self.rank % 16 == 0
        if self.op in ("gram", "gram in double"):
            return all(divisible)
        if self.op == "contract_partial":
            divisible = divisible[self.modes[-1] + 1 :] or [False]
        if self.op == "slab_pass" and self.modes[0] == self.order[-1]:
            # What lies side by side belongs to different slabs.
            return False
        return self.rank > 1 and self.rank % 16 > 0 and all(divisible)

    def run(self, capability):
        """Make the call.

        Parameters
        ----------
        capability : int
            Of the GPU that it is made for.
        """
        x = _tensor([self.shape[n] for n in self.order], self.dtype)
        x = x.permute([self.order.index(n) for n in range(x.ndim)])
        factors = [_tensor((n, self.rank), _computing(self.dtype)) for n in self.shape]
        OPERATIONS[self.op](self, x, factors, CHIPS[capability])


def _tensor(shape, dtype):
    """Return a tensor without data."""
    return torch.empty(shape, dtype=getattr(torch, dtype), device="meta")


def _computing(dtype):
    return "float64" if dtype == "float64" else "float32"


def _mttkrp(case, x, factors, chip):
    others = [f for n, f in enumerate(factors) if n not in case.modes]
    mttkrp.mttkrp(x, others, case.modes[0], None, case.precision, chip)


def _ttm(case, x, factors, chip):
    (mode,) = case.modes
    ttm.ttm(x, factors[mode], mode, True, case.precision, chip)


def _contract(case, x, factors, chip):
    out = factors[0].new_empty(*(case.shape[n] for n in case.modes), case.rank)
    given = {n: f for n, f in enumerate(factors) if n not in case.modes}
    contraction.contract(x, given, out, case.precision, chip)


def _gram(case, x, factors, chip):
    gram.gram(x, case.modes[0], factors[0].dtype, case.precision, chip)


def _gram_in_double(case, x, factors, chip):
    gram.gram(x, case.modes[0], torch.float64, case.precision, chip)


def _khatri_rao(case, x, factors, chip):
    khatri_rao.khatri_rao([factors[n] for n in case.modes], None, case.precision, chip)


def _contract_partial(case, x, factors, chip):
    p = factors[0].new_empty(*case.shape, case.rank)
    lo, hi = case.modes[0], case.modes[-1] + 1
    partial.contract_partial(p, lo, hi, factors[lo:hi], chip)


def _slab_pass(case, x, factors, chip):
    mode, *group = case.modes
    inverse = _tensor((case.rank, case.rank), "float64")
    slab.slab_pass(x, factors, mode, group, inverse, None, case.precision, chip)


OPERATIONS = {
    "mttkrp": _mttkrp,
    "ttm": _ttm,
    "contract": _contract,
    "slab_pass": _slab_pass,
    "gram": _gram,
    "gram in double": _gram_in_double,
    "khatri_rao": _khatri_rao,
    "contract_partial": _contract_partial,
}


def _modes(op, ndim):
    """Yield every choice of modes that an operation takes."""
    every = range(ndim)
    if op in ("mttkrp", "ttm", "gram", "gram in double"):
        yield from itertools.combinations(every, 1)
    elif op == "contract" and ndim > 2:
        yield from itertools.combinations(every, 2)
    elif op == "slab_pass" and ndim > 2:
        for mode, first in itertools.permutations(every, 2):
            # Groups of neighbours that leave something to contract.
            yield (mode, first)
            if {mode, first + 1} < set(every) and mode != first + 1 and ndim > 3:
                yield (mode, first, first + 1)
    elif op == "khatri_rao":
        yield from itertools.combinations(every, ndim - 1)
    elif op == "contract_partial":
        yield from (tuple(range(lo, hi)) for lo, hi in itertools.combinations(every, 2))


def cases():
    """Yield every problem of the grid.

    Yields
    ------
    Case
    """
    for (shape, order), dtype, op in itertools.product(LAYOUTS, DTYPES, OPERATIONS):
        streaming = op in ("khatri_rao", "contract_partial")
        if streaming and (dtype != _computing(dtype) or order != tuple(range(len(shape)))):
            # Made by our own kernels, in the computing type and in C order.
            continue
        ranks = (0,) if op.startswith("gram") else RANKS
        precisions = ("ieee",) if streaming or dtype == "float64" else PRECISIONS
        for modes, rank, precision in itertools.product(_modes(op, len(shape)), ranks, precisions):
            yield Case(op, shape, order, modes, rank, dtype, precision)


@dataclass(frozen=True)
class Configuration:
    """What decides over machine code, but for the structure of a launch's indices.

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

    def get(self, option):
        """Return an option, None where the kernel has none of that name."""
        return dict(self.options).get(option)

    def without(self, option):
        """Return the same configuration but for an option."""
        return replace(self, options=tuple(o for o in self.options if o[0] != option))

    @property
    def mode(self):
        """The arithmetic; None where there is no matrix product."""
        return self.get("PRECISION")

    @property
    def sides(self):
        """The block sizes, for a matrix product in the order M, K, N."""
        return tuple(self.get(name) for name in SIDES[self.kernel])


class Launch(NamedTuple):
    """A launch that may be compiled.

    Attributes
    ----------
    configuration : Configuration
    case : Case
        Which makes the launch.
    structure : tuple
        The arguments, as far as Triton makes another program of others.
    """

    configuration: Configuration
    case: Case
    structure: tuple

    @property
    def indices(self):
        """Numbers that take part in unravelling indices."""
        return sum(len(part) for part in self.structure if isinstance(part, tuple))


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
    dtypes = [str(a.dtype).removeprefix("torch.") for a in args if isinstance(a, torch.Tensor)]
    # How many slabs a program takes at a time is only a number in its loops.
    options = tuple(sorted((k, v) for k, v in options.items() if k != "TOGETHER"))
    configuration = Configuration(capability, kernel.__name__, tuple(dtypes[:2]), options)
    return Launch(configuration, case, _structure(args))


def _structure(value):
    """Return what Triton makes a difference of when it turns a kernel into a program."""
    if isinstance(value, tuple):
        return tuple(_structure(part) for part in value)
    return "1" if not isinstance(value, torch.Tensor) and value == 1 else "n"


def chosen(capabilities=tuple(CHIPS)):
    """Walk the grid, and choose what to compile.

    Parameters
    ----------
    capabilities : tuple of int

    Returns
    -------
    launches : list of Launch
    walked : int
        Launches that the grid makes.
    """
    walked, hardest, simplest, structures = 0, {}, {}, {}
    for capability, case in itertools.product(capabilities, cases()):
        launch = note(case, capability)
        walked += 1
        key = launch.configuration
        _keep(hardest, key, launch, launch.indices)
        if case.wide:
            # Whatever the arithmetic, the data are loaded in the same way.
            _keep(simplest, key.without("PRECISION"), launch, -launch.indices)
        structures.setdefault((key.kernel, key.get("SWEEP"), launch.structure), launch)
    launches = dict.fromkeys(launch for _, launch in [*hardest.values(), *simplest.values()])
    seen = {(k.kernel, k.get("SWEEP"), structure) for k, _, structure in launches}
    launches |= dict.fromkeys(launch for key, launch in structures.items() if key not in seen)
    return list(launches), walked


def _keep(best, key, launch, score):
    if key not in best or best[key][0] < score:
        best[key] = score, launch


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
    processes = processes or len(os.sched_getaffinity(0))
    by_chip = sorted(launches, key=lambda launch: launch.configuration.capability)
    parts = [
        part[start : start + TOGETHER]
        for _, part in itertools.groupby(by_chip, lambda launch: launch.configuration.capability)
        for part in [list(part)]
        for start in range(0, len(part), TOGETHER)
    ]
    # Forked, so that what the tests replaced is replaced there, too.
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
        return dict(itertools.chain.from_iterable(pool.map(_compile, parts)))


def _compile(launches):
    """Compile and read launches for one GPU, in this process."""
    kernels, refused = {}, {}
    for launch in launches:
        with sass.compiling_for(launch.configuration.capability) as got:
            try:
                launch.case.run(launch.configuration.capability)
            except (CompilationError, RuntimeError) as error:
                refused[launch] = _root(error)
                continue
        (kernels[launch],) = got
    reports = sass.read(list(kernels.values()))
    return [*zip(kernels, reports, strict=True), *refused.items()]


def _root(error):
    """Return the last line of an exception's first cause."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}"
