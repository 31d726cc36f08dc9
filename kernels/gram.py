"""Gram matrix of an unfolding, ``G[i, j] = sum_k x(i, k) x(j, k)``, without the unfolding.

Only what is on and below the diagonal is computed; the small matrix is mirrored at the end. Flops
``numel(x) (I + BLOCK)``, half of a full product; bytes: ``x`` about ``I / BLOCK`` times, from the
L2 cache for all but one of them when the programs of one split run together, and the partial
results.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import Tile, arithmetic, rate
from .devices import ITEMSIZE, LAUNCH, REACHED, Chip, chip_of
from .indexing import alignment, merged, multiple, offset, plain, span, wide
from .products import product

__all__ = [
    "cost",
    "gram",
    "gram_kernel",
    "mode_for",
    "partial_grams",
    "splits_for",
    "tile_for",
    "workspace_in_double",
]


@triton.jit(
    do_not_specialize=["stride_x_i", "term_sizes", "term_strides", "rows", "terms", "per_split"]
)
def gram_kernel(
    x_ptr,
    out_ptr,
    stride_x_i,
    term_sizes,
    term_strides,
    rows,
    terms,
    per_split,
    CONTIGUOUS: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One block ``[BLOCK_I, BLOCK_I]`` of one partial result, what is below the diagonal.

    ``CONTIGUOUS`` is what lies side by side, ``"rows"`` or ``"terms"``, and ``UNIT`` its
    `alignment`. A split is ``per_split`` blocks of terms.
    """
    if CONTIGUOUS == "rows":
        rows, stride_x_i = multiple(rows, UNIT), 1
    else:
        stride_x_i = multiple(stride_x_i, UNIT)
    if CONTIGUOUS == "terms":
        terms = multiple(terms, UNIT)
    pid_i, pid_j, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if WIDE:
        split = split.to(tl.int64)
    if pid_j <= pid_i:
        i = pid_i * BLOCK_I + tl.arange(0, BLOCK_I)
        j = pid_j * BLOCK_I + tl.arange(0, BLOCK_I)
        if WIDE:
            i, j = i.to(tl.int64), j.to(tl.int64)
        left, right = x_ptr + i[:, None] * stride_x_i, x_ptr + j[None, :] * stride_x_i
        acc = tl.zeros([BLOCK_I, BLOCK_I], out_ptr.dtype.element_ty)
        first = split * per_split * BLOCK_K
        last = tl.minimum(first + per_split * BLOCK_K, terms)
        for start in range(first, last, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            at = offset(k, term_sizes, term_strides, UNIT, CONTIGUOUS == "terms", WIDE)
            a = tl.load(left + at[None, :], (i < rows)[:, None] & (k < terms)[None, :], 0.0)
            b = tl.load(right + at[:, None], (j < rows)[None, :] & (k < terms)[:, None], 0.0)
            if PRECISION != "half":
                b = b.to(out_ptr.dtype.element_ty)
            acc += product(a, b, PRECISION)
        i, j = i[:, None], j[None, :]
        tl.store(out_ptr + (split * rows + i) * rows + j, acc, (i < rows) & (j <= i))


def mode_for(dtype: str, out_dtype: str, precision: str, chip: Chip) -> str:
    """Arithmetic: half precision has exact products in a single pass."""
    if out_dtype == "float64":
        return "ieee"
    if dtype in ("bfloat16", "float16"):
        return "half"
    return arithmetic(dtype, precision, chip)


def tile_for(rows: int, mode: str, dtype: str, simple: bool, chip: Chip) -> Tile:
    """Square blocks, as large as registers allow; ``simple`` if `plain`.

    ``dtype`` is that of the result.
    """
    if dtype == "float64" and not chip.double_cores and not simple:
        # A thread holds all terms of its rows and columns.
        return Tile(16, 32, 16, 4, 3)
    # Operands in parts do not fit beside the sum of a larger block.
    largest = (128 if mode == "half" else 64) if simple else 32
    side = min(largest, max(32, 1 << (rows - 1).bit_length()))
    if mode == "ieee":
        return Tile(side, 16, side, 8 if side == 64 and not chip.double_cores else 4, 3)
    return Tile(side, 32, side, 8 if side == 128 else 4, 3)


def splits_for(rows: int, terms: int, tile: Tile, multiprocessors: int) -> int:
    """Parts of each sum, for enough programs; at least 16 steps each."""
    side = -(-rows // tile.block_m)
    wanted = -(-4 * multiprocessors // (side * (side + 1) // 2))
    return max(1, min(wanted, terms // (16 * tile.block_k)))


def gram(
    x: Tensor,
    mode: int,
    dtype: torch.dtype,
    precision: str = "ieee",
    chip: Chip | None = None,
) -> Tensor:
    """``unfold(x, n) @ unfold(x, n)^T`` computed and returned in ``dtype``, any strides."""
    parts = partial_grams(x, mode, dtype, precision, chip)
    lower = (parts[0] if len(parts) == 1 else parts.sum(0)).tril()
    return lower + lower.tril(-1).t()


def partial_grams(
    x: Tensor,
    mode: int,
    dtype: torch.dtype,
    precision: str = "ieee",
    chip: Chip | None = None,
) -> Tensor:
    """Return what adds up to `gram`, on and below the diagonal; nothing is written above it."""
    chip = chip_of(x.device) if chip is None else chip
    if dtype == torch.float64 and x.element_size() < 4:
        # Triton does not compile products of float64 right after half precision.
        x = x.float()
    names = [str(t).removeprefix("torch.") for t in (x.dtype, dtype)]
    how = mode_for(names[0], names[1], precision, chip)
    rows = x.shape[mode]
    others = sorted((n for n in range(x.ndim) if n != mode), key=lambda n: -x.stride()[n])
    sizes, strides = merged(tuple(x.shape[n] for n in others), tuple(x.stride(n) for n in others))
    terms = math.prod(sizes)
    along = ((rows,), (x.stride(mode),))
    unit, at = alignment(x.element_size(), [along, (sizes, strides)])
    tile = tile_for(rows, how, names[1], plain(tuple(x.shape), x.stride(), x.element_size()), chip)
    parts, per_split = _parts(rows, terms, tile, chip)
    out = x.new_empty(parts, rows, rows, dtype=dtype)
    side = -(-rows // tile.block_m)
    with torch.cuda.device_of(x):
        gram_kernel[(side, side, parts)](
            x,
            out,
            x.stride(mode),
            sizes,
            strides,
            rows,
            terms,
            per_split,
            CONTIGUOUS="" if at is None else ("rows", "terms")[at],
            UNIT=unit,
            WIDE=wide(parts * per_split * tile.block_k, span(x.shape, x.stride()), out.numel()),
            BLOCK_I=tile.block_m,
            BLOCK_K=tile.block_k,
            PRECISION=how,
            num_warps=tile.warps,
            num_stages=tile.stages,
            maxnreg=tile.registers,
        )
    return out


def _parts(rows: int, terms: int, tile: Tile, chip: Chip) -> tuple[int, int]:
    """Return how many partial results there are, and the blocks of terms of each."""
    parts = splits_for(rows, terms, tile, chip.multiprocessors)
    per_split = -(-terms // (parts * tile.block_k))
    return -(-terms // (per_split * tile.block_k)), per_split


def workspace_in_double(shape: tuple[int, int], dtype: str, chip: Chip) -> int:
    """Bytes of the `partial_grams`, float64, of the columns of a C-ordered matrix."""
    terms, rows = shape
    simple = plain(shape, (rows, 1), ITEMSIZE[dtype])
    tile = tile_for(rows, mode_for(dtype, "float64", "ieee", chip), "float64", simple, chip)
    return _parts(rows, terms, tile, chip)[0] * rows * rows * ITEMSIZE["float64"]


def cost(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    mode: int,
    dtype: str,
    double: bool,
    precision: str,
    chip: Chip,
) -> tuple[float, float, float]:
    """Flops, bytes and seconds that are expected of a Gram matrix."""
    rows, size = shape[mode], math.prod(shape)
    wide = "float64" if double or dtype == "float64" else "float32"
    how = mode_for(dtype, wide, precision, chip)
    tile = tile_for(rows, how, wide, plain(shape, strides, ITEMSIZE[dtype]), chip)
    parts = splits_for(rows, size // rows, tile, chip.multiprocessors)
    flops = float(size * (rows + tile.block_m))
    nbytes = float(size * ITEMSIZE[dtype] + 2 * parts * rows * rows * ITEMSIZE[wide])
    seconds = max(flops / rate(tile, how, wide, chip), nbytes / (REACHED * chip.bandwidth))
    return flops, nbytes, seconds + 2 * LAUNCH
