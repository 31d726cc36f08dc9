"""Matrix products of one wide and one narrow operand: which library, which layout, which parts.

A contraction of a tensor is such a product: a million entries times a factor of a few dozen
columns. On CUDA torch's own product is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = [
    "BLOCK",
    "LONG",
    "NARROW",
    "SHORT",
    "TINY",
    "by_columns",
    "product",
    "products",
    "sum_of_parts",
    "wants_columns",
]

Matrix = TypeVar("Matrix", Tensor, Any)

#: Elements of a block that is produced and consumed while in cache: 1 MiB of float32, the L2 of one
#: core. On 400^3, R 64, a mul-and-sum of a 41 MB partial in one go took 15 ms, in such blocks 1.3
#: ms.
BLOCK = 1 << 18

#: Elements of each matrix of a batch up to which one product of a copy is quicker. Float32, one
#: core, half a million elements by 16 rows: 22.5 ms as 3 x 3 and 0.6 as one, 1.2 and 0.4 as 8 x 8,
#: 0.32 and 0.29 as 16 x 16, 0.22 and 0.27 as 32 x 32.
TINY = 256

#: Rows of the Khatri-Rao product of both sides of a mode up to which one product of a copy is
#: quicker than one by a side, where that has more columns than either has rows. Float32, one core,
#: 20 x 2000 x 20: R 32 in 0.46 ms instead of 0.68, R 64 in 0.7 instead of 1.5; 40 x 400 x 40, R 64:
#: in 0.98 instead of 0.64.
SHORT = 512

#: Terms that one matrix product may sum in a row. GEMMs with a short side add them one after
#: another: 5 x K x 5, float32, positive data: relative error 3e-6 at K = 16,384 but 2.5e-5 at
#: 210,000.
LONG = 1 << 13

#: The same for oneDNN's inner product, which adds in blocks: at most 18 roundings at 262,144
#: positive terms, 60 at a million.
LONG_INNER = 1 << 18

#: Columns below which MKL wants its narrow operand stored by columns. Float32, (40000 x 200) @ (200
#: x R): R = 3 in 0.9 ms by columns and 3.6 by rows, R = 8 in 2.3 and 4.3, from R = 16 on no
#: difference; a transposed left operand is best transposed as a whole. Batches of such operands
#: are copied and made one: 40 rows times 200 of 200 x 8 in 0.28 ms instead of 1.3.
NARROW = 16

#: Elements of the wide operand from which that pays for the calls it takes.
NARROW_FROM = 1 << 14


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply two matrices; rounding does not grow with the length of the sums."""
    if _for_onednn(a, b):
        return _by_onednn(a, b, out)
    if by_columns(a, b.shape[1]):
        narrow = b.t().contiguous()
        if a.stride(1) != 1:
            return sum_of_parts(torch.mm, narrow, a.t()).t().contiguous()
        b = narrow.t()
    return sum_of_parts(torch.mm, a, b, out)


def products(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply two batches of matrices, long sums in parts."""
    return sum_of_parts(torch.bmm, a, b, out)


def by_columns(wide: Tensor, columns: int) -> bool:
    """Whether a narrow operand of so many columns is best stored by columns."""
    return columns < NARROW and wide.numel() >= NARROW_FROM and wide.device.type == "cpu"


def sum_of_parts(
    multiply: Callable[..., Matrix], a: Matrix, b: Matrix, out: Matrix | None = None
) -> Matrix:
    """Add the parts here: a product that accumulates into its output may go on term by term.

    ``multiply`` is torch's or NumPy's, and the operands likewise.
    """
    length = b.shape[-2]
    if length <= LONG:
        return multiply(a, b, out=out)
    total = multiply(a[..., :LONG], b[..., :LONG, :], out=out)
    for start in range(LONG, length, LONG):
        total += multiply(a[..., start : start + LONG], b[..., start : start + LONG, :])
    return total


@cache
def _onednn() -> Any:
    """Return oneDNN's inner product with dense operands, or None where it is no gain.

    ``(a [m, k], b [n, k]) -> a b^T``; ``b`` may lie transposed, and is not copied. It uses AVX-512
    on every CPU that has it, where MKL keeps to AVX2 on other vendors' CPUs: AMD Zen 5, two cores,
    float32, 4096 x 4096 times 64 columns at 354 GFLOP/s against 141, transposed 222 against 124.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def wants_columns(wide: Tensor, columns: int) -> bool:
    """Whether the narrow operand of a product with all of ``wide`` is best formed by columns."""
    return by_columns(wide, columns) or _is_work_for_onednn(wide, columns)


def _for_onednn(a: Tensor, b: Tensor) -> bool:
    """Whether the operands lie as oneDNN takes them, or the one that does not is small.

    A wide operand may be row-major or column-major; other views run a thousand times slower.
    """
    if len(b) > LONG_INNER or not _is_work_for_onednn(a, b.shape[1]):
        return False
    wide, narrow = (a, b.t()) if a.numel() >= b.numel() else (b, a)
    dense = wide.is_contiguous() or wide.t().is_contiguous()
    return dense and (narrow.is_contiguous() or 4 * narrow.numel() <= wide.numel())


def _is_work_for_onednn(wide: Tensor, columns: int) -> bool:
    """Whether a product is of a kind and a size for which oneDNN's call is quicker than MKL's.

    Measured over 64 to 160,000 rows, sums of 20 to 100,000 terms and 1 to 300 columns: 1.1 to 8
    times faster inside these limits, down to a third as fast below them, where calls are what
    costs.
    """
    return (
        wide.numel() * columns >= (1 << 20 if columns < NARROW else 1 << 22)
        and wide.dtype == torch.float32
        and wide.device.type == "cpu"
        and _onednn() is not None
    )


def _by_onednn(a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    """Copy nothing but the narrow operand, and a result where it comes out by columns."""
    if a.numel() < b.numel():
        result = _inner(a.contiguous(), b.t())
    elif not a.is_contiguous():
        result = _inner(b.t().contiguous(), a).t()
    elif out is None:
        result = _inner(a, b.t().contiguous())
    else:
        # It cannot write into memory that is given: in blocks, copied while in cache.
        narrow, rows = b.t().contiguous(), max(1, BLOCK // b.shape[1])
        for start in range(0, a.shape[0], rows):
            stretch = slice(start, start + rows)
            out[stretch] = _inner(a[stretch], narrow)
        return out
    return result.contiguous() if out is None else out.copy_(result)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    result: Tensor = _onednn()(a, b, None, "none", [], "")
    return result
