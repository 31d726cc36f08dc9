"""The best formulation in plain torch: the CPU fallback, and the honest rival on a GPU.

Everything here is built from one idea. A tensor in C order seen as ``[L, G, T]`` (the modes left of
a group, the group, the modes right of it) is contracted with a matrix ``K [G, R]``, either once for
all columns (`contract_data`, matrix products, R is new) or column by column (`contract_partial`,
for partial results ``[L, G, T, R]`` that already have R). An MTTKRP is one of the first and at most
one of the second; no mode needs a copy of ``x``, and no Khatri-Rao product spans more than one side
of a mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .blocks import SLAB, boxes, by_stride, cut, grain, rows_in
from .matmul import BLOCK, NARROW, SHORT, TINY, by_columns, product, products, wants_columns
from .precision import common_dtype, compute_dtype, in_precision_of, solve_dtype

__all__ = [
    "contract_data",
    "contract_partial",
    "contract_sides",
    "cross",
    "gram",
    "gram_of_columns",
    "khatri_rao",
    "khatri_rao_operand",
    "mttkrp",
    "ranges",
    "sum_of_squares",
    "ttm",
]


def khatri_rao(factors: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """Columnwise Kronecker product, the first index slowest; one write of the result.

    All may have the axes of a batch before.
    """
    out = factors[0] if weights is None else factors[0] * weights[..., None, :]
    for factor in factors[1:]:
        out = (out[..., :, None, :] * factor[..., None, :, :]).flatten(-3, -2)
    return out


def khatri_rao_operand(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Khatri-Rao product as a matrix product with all of ``x`` wants it: some by columns."""
    if len(factors) == 1 or not wants_columns(x, factors[0].shape[1]):
        return khatri_rao(factors)
    rows = [factor.t().contiguous() for factor in factors]
    out = rows[0]
    for row in rows[1:]:
        out = (out[:, :, None] * row[:, None, :]).flatten(1)
    return out.t()


def conjugate(a: Tensor) -> Tensor:
    """Complex conjugate, not lazily: compiled graphs call this code where lazy ones are ignored."""
    return torch.conj_physical(a) if a.is_complex() else a


def is_ready(x: Tensor) -> bool:
    """Whether ``x`` can be handed to matrix products as it lies: C order and a computing type."""
    return x.is_contiguous() and x.dtype == compute_dtype(x.dtype)


def contract_data(x: Tensor, lo: int, hi: int, k: Tensor, room: Tensor | None = None) -> Tensor:
    """Contract modes ``lo ... hi-1`` of ``x`` with ``k [prod of those, R]``; R comes last.

    2 numel(x) R flops; reads ``x`` once. Data that matrix products cannot take as it lies (strided
    slices, half precision) is converted box by box. The result lies in ``room``, one axis of memory
    in use already, where that is given and large enough: fresh memory comes page by page (400^3, R
    64, float32: 60 to 66 ms instead of 87 to 101).
    """
    if is_ready(x):
        return _contract_ready(x, lo, hi, k, room)
    out = k.new_zeros([*x.shape[:lo], *x.shape[hi:], k.shape[1]])
    for box in boxes(x.shape, grain(SLAB, x)):
        rows = rows_in(k, x.shape[lo:hi], box[lo:hi])
        part = _contract_ready(_ready(x[box], k), lo, hi, rows)
        out[(*box[:lo], *box[hi:])].add_(part)
    return out


def _ready(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype).contiguous()


def _contract_ready(x: Tensor, lo: int, hi: int, k: Tensor, room: Tensor | None = None) -> Tensor:
    group, rank = k.shape
    left, right = math.prod(x.shape[:lo]), math.prod(x.shape[hi:])
    kept = [*x.shape[:lo], *x.shape[hi:], rank]
    if hi == x.ndim:
        return product(x.view(left, group), k, _in(room, left, rank)).view(kept)
    if lo == 0:
        return product(x.view(group, right).t(), k, _in(room, right, rank)).view(kept)
    flat = x.view(left, group, right)
    if group * right <= TINY and not x.is_cuda:
        out = _in(room, left, right, rank)
        out = k.new_empty(left, right, rank) if out is None else out
        for a, b in ranges(left, right * max(group, rank), BLOCK):
            rows = flat[a:b].transpose(1, 2).reshape((b - a) * right, group)
            out[a:b] = product(rows, k).view(b - a, right, rank)
        return out.view(kept)
    if by_columns(x, rank):
        columns = products(k.t().contiguous().expand(left, rank, group), flat)
        return columns.transpose(1, 2).contiguous().view(kept)
    out = _in(room, left, right, rank)
    return products(flat.transpose(1, 2), k.expand(left, group, rank), out).view(kept)


def _in(room: Tensor | None, *shape: int) -> Tensor | None:
    size = math.prod(shape)
    return None if room is None or room.numel() < size else room[:size].view(shape)


def contract_partial(p: Tensor, lo: int, hi: int, k: Tensor) -> Tensor:
    """Contract modes ``lo ... hi-1`` of a partial result ``p [..., R]``, column by column.

    2 numel(p) flops; reads ``p`` once. Products are formed and summed in blocks that stay in cache.
    """
    if p.numel() <= grain(BLOCK, p) and hi == lo + 1:
        # One mode and one block: the shapes broadcast as they are.
        return (p * (k if hi == p.ndim - 1 else _rows(k, p.ndim - hi))).sum(lo)
    kept = [*p.shape[:lo], *p.shape[hi:]]
    left, right = math.prod(p.shape[:lo]), math.prod(p.shape[hi:-1])
    group, rank = k.shape
    blocks, rows = p.view(left, group, right, rank), k.view(group, 1, rank)
    if left == 1:
        return _sum_leading(blocks[0], rows).view(kept)
    if right == 1:
        blocks, rows = blocks.view(left, group, rank), k
    out = p.new_empty([left, *blocks.shape[2:]])
    for a, b in ranges(left, p.numel() // left, grain(BLOCK, p)):
        torch.sum(blocks[a:b] * rows, 1, out=out[a:b])
    return out.view(kept)


def _rows(k: Tensor, axes: int) -> Tensor:
    """Give ``k [G, R]`` the shape ``[G, 1, ..., R]`` of ``axes + 1`` axes."""
    return k.view(k.shape[0], *[1] * (axes - 1), k.shape[1])


def _sum_leading(blocks: Tensor, rows: Tensor) -> Tensor:
    """Sum ``blocks[g] * rows[g]`` over g, of ``[G, T, R]`` and ``[G, 1, R]``."""
    group, right, rank = blocks.shape
    out = blocks.new_empty(right, rank)
    elements = grain(BLOCK, blocks)
    for a, b in ranges(right, rank, elements):
        # As many partial sums as fit; products are added to them without being formed.
        depth = max(1, elements // ((b - a) * rank))
        sums = blocks[:depth, a:b] * rows[:depth]
        for g in range(depth, group, depth):
            more = slice(g, g + depth)
            part = blocks[more, a:b]
            sums[: len(part)].addcmul_(part, rows[more])
        torch.sum(sums, 0, out=out[a:b])
    return out


def ranges(length: int, each: int, elements: int) -> Iterator[tuple[int, int]]:
    """Cut ``0 ... length`` so that a part has ``elements`` elements, of ``each`` an index."""
    step = max(1, elements // max(1, each))
    for start in range(0, length, step):
        yield start, min(start + step, length)


def contract_sides(x: Tensor, lo: int, hi: int, k_left: Tensor, k_right: Tensor) -> Tensor:
    """Contract all modes but ``lo ... hi-1``, which have neighbours on both sides.

    The longer side goes first, by matrix products, in slabs whose result is used up while in cache:
    the whole intermediate, which can be larger than ``x``, never exists. Where both are short, of
    many columns, slabs are unfolded instead. Data that matrix products cannot take as it lies is
    converted box by box.
    """
    left, right, rank = k_left.shape[0], k_right.shape[0], k_left.shape[1]
    kept = x.shape[lo:hi]
    middle = math.prod(kept)
    if not is_ready(x):
        out = k_left.new_zeros(*kept, rank)
        for box in boxes(x.shape, grain(SLAB, x)):
            before = rows_in(k_left, x.shape[:lo], box[:lo])
            after = rows_in(k_right, x.shape[hi:], box[hi:])
            out[box[lo:hi]].add_(contract_sides(_ready(x[box], k_left), lo, hi, before, after))
        return out
    if left * right <= SHORT and rank > max(left, right) and not x.is_cuda:
        # A copy is shorter than what comes of either side.
        both, out = khatri_rao([k_left, k_right]), k_left.new_empty(middle, rank)
        for a, b in ranges(middle, left * right, BLOCK):
            rows = x.view(left, middle, right)[:, a:b].transpose(0, 1).reshape(b - a, left * right)
            out[a:b] = product(rows, both)
        return out.view(*kept, rank)
    if right >= left:
        flat = x.view(left, middle, right)
        out = k_left.new_zeros(middle, rank)
        for a, b in ranges(left, middle * rank, grain(BLOCK, x)):
            y = product(flat[a:b].reshape((b - a) * middle, right), k_right).view(
                b - a, middle, rank
            )
            out += (y * k_left[a:b, None, :]).sum(0)
        return out.view(*kept, rank)
    columns = x.view(left, middle * right)
    out = k_left.new_empty(middle, rank)
    for a, b in ranges(middle, right * rank, grain(BLOCK, x)):
        y = product(columns[:, a * right : b * right].t(), k_left).view(b - a, right, rank)
        torch.sum(y * k_right, 1, out=out[a:b])
    return out.view(*kept, rank)


def mttkrp(x: Tensor, others: Sequence[Tensor], mode: int, weights: Tensor | None = None) -> Tensor:
    """Matricised tensor times Khatri-Rao product; see `tensorfast.mttkrp`.

    ``others`` are the factors of all modes but ``mode``. 2 numel(x) R flops, one read of ``x``; the
    Khatri-Rao product of each side of the mode is formed, for the slowest and the fastest mode that
    of all others.
    """
    order = by_stride(x)
    x, at = x.permute(order), order.index(mode)
    dtype = common_dtype(x, *others)
    given = [conjugate(factor.to(dtype)) for factor in others]
    given.insert(mode, given[0])
    ordered = [given[n] for n in order]
    if at == 0:
        m = contract_data(_promoted(x, dtype), 1, x.ndim, khatri_rao_operand(ordered[1:], x))
    elif at == x.ndim - 1:
        m = contract_data(_promoted(x, dtype), 0, at, khatri_rao_operand(ordered[:at], x))
    else:
        left, right = khatri_rao(ordered[:at]), khatri_rao(ordered[at + 1 :])
        m = contract_sides(_promoted(x, dtype), at, at + 1, left, right)
    return m if weights is None else m * conjugate(in_precision_of(weights, dtype))


def _promoted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Give ``x`` the type of wider factors, unless it is going to be lifted box by box anyway."""
    return x.to(dtype) if is_ready(x) else x


def ttm(x: Tensor, matrix: Tensor, mode: int, transpose: bool = False) -> Tensor:
    """N-mode product; see `tensorfast.ttm`. 2 numel(x) J flops, no unfolding copied whole."""
    dtype = common_dtype(x, matrix)
    a = (conjugate(matrix).t() if transpose else matrix).to(dtype)
    if not x.is_contiguous():
        order = by_stride(x)
        inverse = sorted(range(x.ndim), key=order.__getitem__)
        if x.permute(order).is_contiguous():
            return ttm(x.permute(order), a, order.index(mode)).permute(inverse)
    if not is_ready(x) or x.dtype != dtype:
        out = a.new_zeros([*x.shape[:mode], a.shape[0], *x.shape[mode + 1 :]])
        for box in boxes(x.shape, grain(SLAB, x)):
            # Of a box cut along the mode itself the product is a part of a sum.
            part = _ttm_ready(_ready(x[box], a), a[:, box[mode]], mode)
            out[(*box[:mode], slice(None), *box[mode + 1 :])].add_(part)
        return out
    return _ttm_ready(x, a, mode)


def _ttm_ready(x: Tensor, a: Tensor, mode: int) -> Tensor:
    left, size, right = math.prod(x.shape[:mode]), x.shape[mode], math.prod(x.shape[mode + 1 :])
    shape = [*x.shape[:mode], a.shape[0], *x.shape[mode + 1 :]]
    if right == 1:
        return product(x.view(left, size), a.t()).view(shape)
    if left == 1:
        return product(a, x.view(size, right)).view(shape)
    if (size * right <= TINY or right < NARROW <= len(a)) and not x.is_cuda:
        flat, out = x.view(left, size, right), x.new_empty(len(a), left * right)
        for lo, hi in ranges(left, size * right, BLOCK):
            rows = flat[lo:hi].transpose(0, 1).reshape(size, (hi - lo) * right)
            out[:, lo * right : hi * right] = product(a, rows)
        return out.view(len(a), left, right).transpose(0, 1).reshape(shape)
    return products(a.expand(left, *a.shape), x.view(left, size, right)).view(shape)


def gram(x: Tensor, mode: int, dtype: torch.dtype | None = None) -> Tensor:
    """``unfold(x, n) @ unfold(x, n)^H``; see `tensorfast.gram`. 2 numel(x) I_n flops."""
    dtype = compute_dtype(x.dtype) if dtype is None else dtype
    order = by_stride(x)
    x, at = x.permute(order), order.index(mode)
    out = torch.zeros(x.shape[at], x.shape[at], dtype=dtype, device=x.device)
    for block in _blocks_across(x, at, whole=x.is_contiguous() and x.dtype == dtype):
        rows = (
            block.movedim(at, 0)
            .to(dtype)
            .reshape(x.shape[at], block.numel() // max(1, x.shape[at]))
        )
        out += product(rows, conjugate(rows).t())
    return out


def cross(x: Tensor, y: Tensor, mode: int) -> Tensor:
    """``unfold(x, n) @ unfold(y, n)^H`` of tensors that differ in mode ``n`` only.

    2 numel(x) J_n flops; reads both once.
    """
    order = by_stride(x)
    x, y, at = x.permute(order), y.permute(order), order.index(mode)
    rows, columns = x.shape[at], y.shape[at]
    if is_ready(x) and is_ready(y) and at in (0, x.ndim - 1):
        if at == 0:
            return product(x.view(rows, -1), conjugate(y).view(columns, -1).t())
        return product(x.view(-1, rows).t(), conjugate(y).view(-1, columns))
    out = y.new_zeros(rows, columns)
    axis, step = cut(x, grain(SLAB, x), keep=at)
    for blocks in zip(x.split(step, axis), y.split(step, axis), strict=True):
        left, right = (block.movedim(at, 0).to(y.dtype).flatten(1) for block in blocks)
        out += product(left, conjugate(right).t())
    return out


def _blocks_across(x: Tensor, mode: int, whole: bool) -> Iterator[Tensor]:
    """Cut ``x`` along a mode other than ``mode``, unless it can be taken whole."""
    if x.ndim == 1 or (whole and mode in (0, x.ndim - 1)):
        yield x
        return
    axis, step = cut(x, grain(SLAB, x), keep=mode)
    yield from x.split(step, axis)


def gram_of_columns(factor: Tensor) -> Tensor:
    """``A^H A`` in double precision, whatever the type of ``A``; long factors in blocks."""
    dtype = solve_dtype(factor.dtype)
    elements = grain(SLAB, factor)
    if factor.numel() <= elements:
        wide = factor.to(dtype)
        return torch.mm(conjugate(wide).t(), wide)
    out = torch.zeros(factor.shape[1], factor.shape[1], dtype=dtype, device=factor.device)
    for rows in factor.split(max(1, elements // factor.shape[1])):
        wide = rows.to(dtype)
        out += conjugate(wide).t() @ wide
    return out


def sum_of_squares(x: Tensor) -> Tensor:
    """``||x||^2`` accumulated in float64 in one read of ``x``; a 0-d float64 tensor.

    A block is widened and multiplied by itself while in cache: 256 MB of float32 in 13
    milliseconds, where squares that are formed and then summed take 36.
    """
    x = x.permute(by_stride(x))
    wholes = [x] if x.is_contiguous() else (x[box] for box in boxes(x.shape, grain(SLAB, x)))
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for part in (part for whole in wholes for part in whole.reshape(-1).split(grain(BLOCK, x))):
        wide = part.to(solve_dtype(part.dtype))
        flat = torch.view_as_real(wide).view(-1) if wide.is_complex() else wide
        total += torch.dot(flat, flat)
    return total
