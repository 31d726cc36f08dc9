"""The problems over which the kernels' heuristics are walked, as plain data: a grid, and others.

Tensors are on torch's meta device: a call computes shapes, strides and what to launch, no number.
"""

import itertools
import random
from typing import NamedTuple

import torch

from tensorfast.kernels import (
    cholesky,
    contraction,
    gram,
    jacobi,
    judge,
    khatri_rao,
    mttkrp,
    norm,
    partial,
    residual,
    slab,
    solve,
    ttm,
)
from tensorfast.kernels.devices import CHIPS, ITEMSIZE

DTYPES = ("float32", "float64", "bfloat16", "float16")
PRECISIONS = ("ieee", "tf32", "bf16")

#: Shapes, and their modes as they lie in memory, the slowest first: orders 2 to 5; multiples of 16
#: and others, the fifth order, whose indices are the hardest, among these; modes short, of length
#: 1, and so long that rows or terms pass 2^31.
LAYOUTS = [
    ((64, 64, 64), (0, 1, 2)),
    ((512, 512, 512), (0, 1, 2)),
    ((64, 48, 32, 80), (0, 1, 2, 3)),
    ((15, 33, 17, 31, 45), (2, 0, 4, 1, 3)),
    ((16, 2000, 304), (0, 1, 2)),
    ((2000, 16, 304), (0, 1, 2)),
    ((2000, 304, 16), (0, 1, 2)),
    ((401, 401, 401), (0, 1, 2)),
    ((8, 2000, 300), (0, 1, 2)),
    ((1000, 20, 5), (0, 2, 1)),
    ((160, 123, 160), (2, 1, 0)),
    ((91, 258, 228), (1, 0, 2)),
    ((30, 1, 20, 10), (3, 1, 0, 2)),
    ((50, 24), (0, 1)),
    ((16, 304), (0, 1)),
    ((12, 500), (1, 0)),
    ((65536, 4, 65536), (0, 1, 2)),
]

#: Besides, of residuals, which unravel the indices of all modes: as many modes as there may be, not
#: aligned, with offsets in 32 and 64 bits, and with a factor, too, that takes 64.
CROWDED = [
    ((5, 7, 3, 7, 5, 3, 5, 3), (3, 5, 0, 7, 2, 6, 1, 4)),
    ((15, 15, 21, 15, 21, 19, 21, 15), (3, 5, 0, 7, 2, 6, 1, 4)),
    ((3, (1 << 27) + 1, 5, 3, 7, 3, 3, 5), (3, 5, 0, 7, 2, 6, 1, 4)),
]

#: A width for every block of columns, and beyond the widest; multiples of 16 and others.
RANKS = (1, 5, 17, 32, 50, 512)

#: Besides, of Khatri-Rao products, whose blocks are no wider than they are.
FEW = (2, 3, 4, 8)

#: Besides, of what takes a matrix of that side and nothing else: the tile that the others miss.
SIDE = (100,)

#: Problems at random. They find 0 to 5 configurations a GPU more than the grid; as many again find
#: at most one more. As many for each operation as when there were 8 of them, and 8000 in all.
DRAWN = 13000


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

    def __str__(self):
        """Describe the call."""
        shape = " x ".join(map(str, self.shape))
        order = "" if self.order == tuple(sorted(self.order)) else f" in the order {self.order}"
        rank = f", rank {self.rank}" if self.rank else ""
        return f"{self.op} {self.modes} of {self.dtype} {shape}{order}{rank}, {self.precision!r}"

    @property
    def wide(self):
        """Whether the array that decides the time can be read, or written, 16 bytes at a time.

        Only where no other array can, so that what is found in the code is known to belong to it;
        but for what is streamed, a multiple of the rank as all others are, and for the slab pass,
        which has its right side in tiles.
        """
        unit = 16 // ITEMSIZE[self.dtype]
        if self.op == "sums":
            return self.shape[self.modes[0]] * self.rank % unit == 0
        if self.op in SMALL:
            return False
        if self.op in STREAMING:
            return self.rank % unit == 0
        aligned = all(n % unit == 0 for n in self.shape)
        if self.op in ("gram", "gram in double", *RESIDUALS):
            # The residual has its factors filled up, and reads them so whatever the rank.
            return aligned
        if self.op == "slab_pass":
            # What lies side by side must neither belong to different slabs, nor be walked by a
            # group in another order.
            mode, *group = self.modes
            aligned &= self.order[-1] != mode and self.order[-1] not in group[:-1]
        return aligned and self.rank % (16 // ITEMSIZE[_computing(self.dtype)]) > 0

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
    # Programs with and without a shift differ.
    shift = _tensor((case.rank,), "float64") if case.rank % 16 else None
    slab.slab_pass(x, factors, mode, group, inverse, shift, case.precision, chip)


def _factorize(case, x, factors, chip):
    grams = [_square(case) for n in range(x.ndim) if n not in case.modes]
    cholesky.factorize(grams, 0.0, 1e-15, _tensor((1,), "float64"), _tensor((), "bool"), chip)


def _solve(case, x, factors, chip):
    factor, inverse = factors[case.modes[0]], _square(case)
    shift, active = _tensor((case.rank,), "float64"), _tensor((1,), "bool")
    solve.solve(factor, factor, inverse, shift, active, factor, _square(case), chip)


def _add_grams(case, x, factors, chip):
    parts = _tensor((case.shape[case.modes[0]], case.rank, case.rank), "float64")
    solve.add_grams(parts, _square(case), _tensor((1,), "bool"))


def _judge(case, x, factors, chip):
    factor, grams = factors[case.modes[0]], [_square(case) for _ in factors]
    small = [_tensor((1,), dtype) for dtype in ("bool", "int64", "float64")]
    log, limits = _tensor((8, 3), "float64"), _tensor((4,), "float64")
    programs = judge.programs_for(factor.numel(), case.rank, chip)
    parts = _tensor((3, programs), "float64") if programs > 1 else None
    judge.verdict(grams, factor, factor, parts, log, judge.State(*small), limits)


def _sums(case, x, factors, chip):
    factor, grams = factors[case.modes[0]], [_square(case) for _ in factors]
    judge.sums(grams, factor, factor, judge.programs_for(factor.numel(), case.rank, chip))


def _eigenvectors(case, x, factors, chip):
    jacobi.eigenvectors(_square(case._replace(rank=min(case.rank, jacobi.LARGEST))))


def _square(case):
    return _tensor((case.rank, case.rank), "float64")


def _residual(case, x, factors, chip):
    residual.residual(x, factors, chip=chip)


def _residual_in_double(case, x, factors, chip):
    residual.residual(x, factors, double=True, chip=chip)


def _squared_norm(case, x, factors, chip):
    norm.squared_norm(x, chip)


OPERATIONS = {
    "mttkrp": _mttkrp,
    "ttm": _ttm,
    "contract": _contract,
    "slab_pass": _slab_pass,
    "gram": _gram,
    "gram in double": _gram_in_double,
    "khatri_rao": _khatri_rao,
    "contract_partial": _contract_partial,
    "factorize": _factorize,
    "solve": _solve,
    "add_grams": _add_grams,
    "sums": _sums,
    "judge": _judge,
    "eigenvectors": _eigenvectors,
    "residual": _residual,
    "residual in double": _residual_in_double,
    "squared_norm": _squared_norm,
}

#: What takes all modes, and is as exact as it is whatever the ``precision``.
RESIDUALS = ("residual", "residual in double", "squared_norm")

#: What works on matrices of the size of the rank, and on one factor.
SMALL = ("factorize", "solve", "add_grams", "sums", "judge", "eigenvectors")

#: What takes a matrix of the size of the rank alone, of which the grid has every tile.
ONE_SIDE = ("eigenvectors",)

#: What has no columns.
NO_RANK = ("gram", "gram in double", "squared_norm")

#: What reads results of the kernels, or factors, in the computing type and in C order.
STREAMING = ("khatri_rao", "contract_partial", *SMALL)


def modes_of(op, ndim):
    """Yield every choice of modes that an operation takes.

    Parameters
    ----------
    op : str
    ndim : int

    Yields
    ------
    tuple of int
    """
    every = range(ndim)
    if op in ("mttkrp", "ttm", "gram", "gram in double", *SMALL):
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
    elif op in RESIDUALS:
        yield tuple(every)
    elif op == "contract_partial":
        yield from (tuple(range(lo, hi)) for lo, hi in itertools.combinations(every, 2))


def cases():
    """Yield every problem of the grid, and some at random for what it is too coarse for.

    Yields
    ------
    Case
    """
    of_all = itertools.product(LAYOUTS, DTYPES, OPERATIONS)
    of_some = itertools.product(CROWDED, DTYPES, RESIDUALS)
    for (shape, order), dtype, op in itertools.chain(of_all, of_some):
        streaming = op in STREAMING
        if streaming and (dtype != _computing(dtype) or order != tuple(range(len(shape)))):
            continue
        ranks = (0,) if op in NO_RANK else RANKS + FEW * (op == "khatri_rao")
        ranks += SIDE * (op in ONE_SIDE)
        one = streaming or op in RESIDUALS or dtype == "float64"
        precisions = ("ieee",) if one else PRECISIONS
        for modes, rank, precision in itertools.product(
            modes_of(op, len(shape)), ranks, precisions
        ):
            yield Case(op, shape, order, modes, rank, dtype, precision)
    yield from drawn(DRAWN, seed=0)


def drawn(count, seed):
    """Yield problems at random: orders 2 to 5, lengths from 1, any rank up to 512.

    Parameters
    ----------
    count, seed : int

    Yields
    ------
    Case
    """
    draw = random.Random(seed)
    for _ in range(count):
        ndim = draw.randint(2, 5)
        order = tuple(draw.sample(range(ndim), ndim))
        shape = tuple(int(2 ** draw.uniform(0, 26 / ndim)) for _ in order)
        drawable = [op for op in OPERATIONS if op not in ONE_SIDE and any(modes_of(op, ndim))]
        op = draw.choice(drawable)
        dtype, precision = draw.choice(DTYPES), draw.choice(PRECISIONS)
        if op in STREAMING:
            order, dtype = tuple(range(ndim)), _computing(dtype)
        modes = draw.choice(list(modes_of(op, ndim)))
        rank = 0 if op in NO_RANK else draw.randint(1, 512)
        yield Case(op, shape, order, modes, rank, dtype, precision)
