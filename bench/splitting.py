"""The accuracy of every precision of the kernels, by a model of each rounding that a GPU makes.

Triton's interpreter multiplies float32 tiles in float32, whatever the precision asked for: it shows
that a kernel is right but not how exact. Here operands are split as the compiled kernel splits
them, a tensor core adds as published models of it do, bit for bit, and what is left of float32 is
NumPy's. ``python -m bench.splitting`` writes the tables of ``docs/precision.md``; the page names
the sources.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from bench.tables import between, table
from tensorfast.kernels.configs import arithmetic
from tensorfast.kernels.devices import CHIPS
from tensorfast.precision import PRECISIONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "precision.md"
LENGTHS = (16, 64, 256, 1024, 4096, 16384, 65536)
KINDS = ("normal", "positive", "spread")

#: Draws of operands for sums of up to so many terms.
DRAWS, SHORT = 15, 64

#: Elements that the model holds at a time.
AT_ONCE = 1 << 22


def toward_zero(a, drop):
    """Cut the lowest ``drop`` bits of float32: 13 give TF32, what a tensor core reads of it."""
    return (a.view(np.uint32) >> drop << drop).view(np.float32)


def nearest_away(a, drop):
    """Round to nearest, ties away from zero, as ``cvt.rna.tf32.f32`` does for 13 bits."""
    return toward_zero((a.view(np.uint32) + (1 << drop - 1)).view(np.float32), drop)


def nearest_even(a, drop):
    """Round to nearest, ties to even, as the conversion to bfloat16 does for 16 bits."""
    bits = a.view(np.uint32)
    return toward_zero((bits + ((1 << drop - 1) - 1) + (bits >> drop & 1)).view(np.float32), drop)


def bfloat16_parts(a, count):
    """Split float32 into ``count`` bfloat16 parts, the largest first; three hold all of it."""
    parts = []
    for _ in range(count):
        parts.append(nearest_even(a, 16))
        a = a - parts[-1]
    return parts


@dataclass(frozen=True)
class Core:
    """A generation of tensor cores.

    Attributes
    ----------
    fraction : int
        Bits after the point to which addends are cut, counted from the largest exponent.
    pieces : int
        Sums into which one instruction cuts its terms.
    """

    fraction: int
    pieces: int


#: By compute capability; Blackwell's are as Hopper's in these formats.
CORES = {80: Core(24, 2), 90: Core(25, 1)}


@dataclass(frozen=True)
class Mode:
    """A ``PRECISION`` of the kernels.

    Attributes
    ----------
    split_x, split_w : callable
        From a float32 array to its parts.
    pairs : tuple of pairs of int
        Which parts are multiplied, in this order.
    terms : int
        Of one tensor-core instruction.
    bound : float
        What the products leave out of a term at most, relative to it.
    tile : int
        Terms of a tile, the largest `Tile.block_k`; what is longer is summed tile by tile.
    flushed : bool
        Whether a tile's product is added to the sum by a float32 addition, as every mode's is, or
        the tensor core goes on adding.
    """

    split_x: Callable
    split_w: Callable
    pairs: tuple
    terms: int
    bound: float
    tile: int = 64
    flushed: bool = True


_ONE, _TWO, _THREE = (partial(bfloat16_parts, count=count) for count in (1, 2, 3))
_SIX = ((2, 0), (0, 2), (1, 1), (1, 0), (0, 1), (0, 0))


def _tf32(a):
    return [nearest_away(a, 13)]


def _as_stored(a):
    return [a]


#: What `tensorfast.kernels.products.MODES` compute; ``ieee`` is `chain`.
MODES = {
    "bf16x6": Mode(_THREE, _THREE, _SIX, 16, 2.0**-24),
    "bf16x5": Mode(_TWO, _THREE, _SIX[1:], 16, 2.0**-25),
    "bf16w3": Mode(_ONE, _THREE, ((0, 2), (0, 1), (0, 0)), 16, 0.0),
    "bf16x3": Mode(_TWO, _TWO, _SIX[3:], 16, 2.0**-15),
    "half": Mode(_as_stored, _as_stored, _SIX[5:], 16, 0.0, tile=32),
    "tf32": Mode(_tf32, _tf32, _SIX[5:], 8, 2.0**-10),
    "bf16": Mode(_ONE, _ONE, _SIX[5:], 16, 2.0**-7),
}


def _exponent(a):
    # Of zero below that of every product.
    return np.where(a == 0, -450, np.frexp(a)[1] - 1).astype(np.int32)


def multiply_add(a, b, c, core):
    """Return ``c + a @ b`` of stacks of tiles as one tensor-core sum: cut, added, cut to float32.

    Parameters
    ----------
    a, b, c : numpy.ndarray
        float32, ``[..., M, K]``, ``[..., K, R]`` and ``[..., M, R]``.
    core : Core

    Returns
    -------
    numpy.ndarray
    """
    exponents = _exponent(a)[..., :, :, None] + _exponent(b)[..., None, :, :]
    top = np.maximum(exponents.max(-2), _exponent(c))
    scale = np.ldexp(1.0, core.fraction - top)
    products = a[..., :, :, None].astype(np.float64) * b[..., None, :, :]
    products *= scale[..., None, :]
    total = (np.trunc(products, out=products).sum(-2) + np.trunc(c * scale)) / scale
    # A float64 has 29 bits more than a float32.
    return (total.view(np.uint64) >> 29 << 29).view(np.float64).astype(np.float32)


def contract(x, w, mode, core=CORES[90]):
    """Return ``x [M, K] @ w [K, R]`` of float32 arrays as one program of a kernel computes it.

    Parameters
    ----------
    x, w : numpy.ndarray
        ``K`` a multiple of 16; of the mode's tile, where it is longer.
    mode : Mode
    core : Core

    Returns
    -------
    numpy.ndarray
    """
    (rows, length), columns = x.shape, w.shape[1]
    tile = min(mode.tile, length)
    xs = [p.reshape(rows, -1, tile).swapaxes(0, 1) for p in mode.split_x(x)]
    ws = [p.reshape(-1, tile, columns) for p in mode.split_w(w)]
    step = mode.terms // core.pieces

    def product(tiles, acc):
        for i, j in mode.pairs:
            for k in range(0, tile, step):
                a, b = xs[i][tiles, :, k : k + step], ws[j][tiles, k : k + step]
                acc = multiply_add(a, b, acc, core)
        return acc

    acc = np.zeros((rows, columns), np.float32)
    if not mode.flushed:
        for t in range(length // tile):
            acc = product(t, acc)
        return acc
    together = max(1, AT_ONCE // (rows * step * columns))
    for first in range(0, length // tile, together):
        tiles = slice(first, min(first + together, length // tile))
        for part in product(tiles, np.zeros((tiles.stop - first, rows, columns), np.float32)):
            acc = acc + part
    return acc


def chain(x, w):
    """Return ``x @ w`` as a float32 GEMM computes it: one fused multiply-add a term, in order.

    Rounded to float64 on the way, which changes one result in 2^29 by a unit in the last place.
    """
    acc = np.zeros((x.shape[0], w.shape[1]), np.float32)
    for column, row in zip(x.T.astype(np.float64), w.astype(np.float64), strict=True):
        acc = (column[:, None] * row + acc).astype(np.float32)
    return acc


@dataclass(frozen=True)
class Case:
    """One column of the tables: a mode on a storage type, for a Gram matrix ``w = x.T``."""

    storage: str
    mode: str
    gram: bool = False

    def __str__(self):
        """Name of the column."""
        return f"{self.storage} {'Gram ' * self.gram}`{self.mode}`"


#: What ``precision="ieee"`` may run on tensor cores, to be held to twice the error of `chain`.
IEEE = (
    Case("float32", "bf16x6"),
    Case("float16", "bf16x5"),
    Case("bfloat16", "bf16w3"),
    Case("float16", "half", gram=True),
    Case("bfloat16", "half", gram=True),
)


@cache
def operands(kind, length, storage, gram=False, seed=0):
    """Draw ``x`` as stored and ``w`` in float32, fewer rows and columns the longer the sum.

    Of ``kind`` ``"normal"``; ``"positive"``, uniform; or ``"spread"``, normal times powers of two
    from ``2^-20`` to ``2^20``, for a float16 from ``2^-10`` to ``2^10``.
    """
    side = int(min(128, max(16, 2048 // length**0.5 // 16 * 16)))
    generator = np.random.default_rng([seed, length])

    def draw(shape, reach):
        if kind == "positive":
            return generator.random(shape)
        values = generator.standard_normal(shape)
        if kind == "spread":
            values *= 2.0 ** generator.uniform(-reach, reach, shape)
        return values

    x = draw((side, length), 10 if storage == "float16" else 20)
    x = torch.from_numpy(x).to(getattr(torch, storage)).float().numpy()
    return x, x.T.copy() if gram else draw((length, side), 20).astype(np.float32)


def errors(found, x, w):
    """Return the largest error over the sum of the terms' sizes, and the error in the norm."""
    x, w = x.astype(np.float64), w.astype(np.float64)
    exact = x @ w
    error = found - exact
    largest = np.abs(error / (np.abs(x) @ np.abs(w))).max()
    return float(largest), float(np.linalg.norm(error) / np.linalg.norm(exact))


@cache
def measured(case, kind, length, core=CORES[90], seed=0):
    """Return `errors` of a mode by its model, of ``"ieee"`` by `chain`, of ``"torch"`` by torch."""
    x, w = operands(kind, length, case.storage, case.gram, seed)
    if case.mode == "torch":
        found = (torch.from_numpy(x) @ torch.from_numpy(w)).numpy()
    else:
        found = chain(x, w) if case.mode == "ieee" else contract(x, w, MODES[case.mode], core)
    return errors(found, x, w)


def ratios(case, kind, length, core=CORES[90]):
    """Return both errors of a case over those of a float32 GEMM of the same operands.

    Medians over several draws where sums are so short that a few entries decide.
    """
    drawn = []
    for seed in range(DRAWS if length <= SHORT else 1):
        reference = measured(replace(case, mode="ieee"), kind, length, seed=seed)
        pairs = zip(measured(case, kind, length, core, seed), reference, strict=True)
        drawn.append([error / of_gemm for error, of_gemm in pairs])
    return tuple(np.median(drawn, 0).tolist())


def chosen():
    """Tell what `arithmetic` takes, by storage type, the user's precision and the chip."""

    def cell(storage, precision, chip):
        modes = [arithmetic(storage, precision, chip, rows) for rows in (False, True)]
        return " or ".join(f"`{mode}`" for mode in dict.fromkeys(modes))

    return table(
        ["stored", "`precision`", *(f"sm_{capability}" for capability in CHIPS)],
        [
            [storage, f'`"{precision}"`', *(cell(storage, precision, c) for c in CHIPS.values())]
            for storage in ("float64", "float32", "float16", "bfloat16")
            for precision in PRECISIONS
        ],
    )


def described():
    """Tell what each mode multiplies, in which order, and how the sum goes on."""
    rows = []
    for name, mode in MODES.items():
        kind = {"tf32": "TF32", "half": "as stored"}.get(name, "bfloat16")
        counts = [len(split(np.ones(1, np.float32))) for split in (mode.split_x, mode.split_w)]
        products = ", ".join(f"x{i + 1} w{j + 1}" for i, j in mode.pairs)
        bound = f"2^{math.log2(mode.bound):.0f}" if mode.bound else "nothing"
        rows.append([f"`{name}`", *(f"{n} {kind}" for n in counts), products, bound])
    head = ["mode", "parts of `x`", "of `w`", "products, in order", "left out"]
    return table(head, rows)


def _ratio(value):
    text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return f"**{text}**" if value > 2 else text


def worst():
    """Tell the largest ratio of either error over all lengths, by core and kind of data."""

    def cell(case, core, kind):
        return _ratio(max(max(ratios(case, kind, length, core)) for length in LENGTHS))

    return table(
        ["", *(f"sm_{capability} {kind}" for capability in CORES for kind in KINDS)],
        [
            [str(case), *(cell(case, core, kind) for core in CORES.values() for kind in KINDS)]
            for case in IEEE
        ],
    )


def by_length(cases, values, form):
    """Tell both values of each case, a row for every kind and length."""
    return table(
        ["data", "terms", *map(str, cases)],
        [
            [kind, str(n), *(" / ".join(map(form, values(case, kind, n))) for case in cases)]
            for kind in KINDS
            for n in LENGTHS
        ],
    )


def main():
    """Write the tables of the page."""
    float32 = [
        Case("float32", mode)
        for mode in ("ieee", "torch", *MODES)
        if mode not in ("bf16w3", "bf16x5", "half")
    ]
    text = PAGE.read_text(encoding="utf-8")
    for name, content in {
        "chosen": chosen(),
        "modes": described(),
        "worst": worst(),
        "ratios": by_length(IEEE, ratios, _ratio),
        "errors": by_length(float32, measured, "{:.1e}".format),
    }.items():
        text = between(text, name, content)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
