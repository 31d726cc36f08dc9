"""The distance of a tensor to a CP model, ``||x - [[factors]]||^2``, in one read of the tensor.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .indexing import khatri_rao_rows, multiple, offset
from .products import product

__all__ = ["residual_kernel", "squared_norm_kernel"]


@triton.jit(
    do_not_specialize=[
        "row_sizes",
        "row_strides",
        "column_sizes",
        "column_strides",
        "row_modes",
        "column_modes",
        "rows",
        "columns",
        "rank",
        "row_span",
        "column_span",
        "across",
    ]
)
def residual_kernel(
    x_ptr,
    row_factors,
    column_factors,
    out_ptr,
    row_sizes,
    row_strides,
    column_sizes,
    column_strides,
    row_modes,
    column_modes,
    rows,
    columns,
    rank,
    row_span,
    column_span,
    across,
    CONTIGUOUS: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    LONG: tl.constexpr,
    HELD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rank = BLOCK_R if HELD else multiple(rank, BLOCK_R)
    if CONTIGUOUS:
        columns = multiple(columns, UNIT)
    pid = tl.program_id(0)
    if LONG:
        pid = pid.to(tl.int64)
    n_first = (pid % across) * column_span * BLOCK_N
    m_first = (pid // across) * row_span * BLOCK_M
    n_last = tl.minimum(n_first + column_span * BLOCK_N, columns)
    m_last = tl.minimum(m_first + row_span * BLOCK_M, rows)
    total = tl.zeros([BLOCK_M], tl.float64)
    for n_start in range(n_first, n_last, BLOCK_N):
        n = n_start + tl.arange(0, BLOCK_N)
        column = offset(n, column_sizes, column_strides, UNIT, CONTIGUOUS, WIDE)[None, :]
        n, n_inside = n[None, :], (n < columns)[None, :]
        r = tl.arange(0, BLOCK_R)
        if HELD:
            right = khatri_rao_rows(
                column_factors, column_modes, n, r[:, None], rank, n_inside, LONG
            )
        for m_start in range(m_first, m_last, BLOCK_M):
            m = m_start + tl.arange(0, BLOCK_M)
            m_inside = (m < rows)[:, None]
            if HELD:
                row = offset(m, row_sizes, row_strides, UNIT, False, WIDE)[:, None]
                x = tl.load(x_ptr + (row + column), m_inside & n_inside, 0.0)
                left = khatri_rao_rows(
                    row_factors, row_modes, m[:, None], r[None, :], rank, m_inside, LONG
                )
                model = product(left, right, PRECISION)
            else:
                model = tl.zeros([BLOCK_M, BLOCK_N], row_factors[0].dtype.element_ty)
                for r_start in range(0, rank, BLOCK_R):
                    left = khatri_rao_rows(
                        row_factors, row_modes, m[:, None], r_start + r[None, :], rank, m_inside, LONG
                    )
                    right = khatri_rao_rows(
                        column_factors, column_modes, n, r_start + r[:, None], rank, n_inside, LONG
                    )
                    model += product(left, right, PRECISION)
                row = offset(m, row_sizes, row_strides, UNIT, False, WIDE)[:, None]
                x = tl.load(x_ptr + (row + column), m_inside & n_inside, 0.0)
            difference = (x.to(model.dtype) - model).to(tl.float64)
            total += tl.sum(difference * difference, 1)
    tl.store(out_ptr + pid, tl.sum(total))
