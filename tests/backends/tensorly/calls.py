"""A call of each of the eleven functions, drawn by Hypothesis, and what core gets wrong."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis
import torch

from .common import FUNCTIONS
from .operands import Operands


@dataclass
class Call:
    """A function of TensorLy's, its arguments in order, and what is known of the answer.

    ``terms`` bounds how many roundings an entry sees; ``mended`` is the answer where core's is
    wrong, in torch and double precision; ``refused``: core answers with nonsense, we do not.
    """

    name: str
    kwargs: dict[str, Any]
    terms: int
    mended: Callable[..., torch.Tensor] | None = None
    refused: bool = False


def mode_dot(o: Operands) -> Call:
    shape = o.sizes(1, 5)
    mode = o.integer(-len(shape) - o.bad, len(shape) - 1 + o.bad)
    size = shape[mode] if -len(shape) <= mode < len(shape) else 3
    other, transpose = multiplier(o, size)
    kwargs = {
        "tensor": o.array(*shape),
        "matrix_or_vector": other,
        "mode": mode,
        "transpose": transpose,
    }
    return Call("mode_dot", kwargs, size + 1)


def multiplier(o: Operands, size: int, transpose: bool | None = None) -> tuple[Any, bool]:
    """Draw a matrix or vector for a mode of that size, and whether it is to be transposed."""
    transpose = o.flag() if transpose is None else transpose
    if o.flag():
        return o.array(size), transpose
    rows = o.integer(o.smallest, 6)
    return o.array(*((size, rows) if transpose else (rows, size))), transpose


def multi_mode_dot(o: Operands) -> Call:
    shape = o.sizes(1, 5, 5)
    n = len(shape)
    modes = o.order(range(n))[: o.integer(1, n)]
    kind = o.pick(("none", "subset", "negative", "repeated"))
    if kind == "none":
        modes = list(range(o.integer(1, n + o.bad)))
    elif kind == "negative":
        modes = [m - n if o.flag() else m for m in modes]
    elif kind == "repeated":
        modes = [*modes, o.pick(modes)]
    transpose = o.flag()
    skip = o.pick((None, *range(-1, len(modes) + 1)))
    others = [multiplier(o, shape[m] if m < n else 2, transpose)[0] for m in modes]
    if skip in range(len(modes)) and o.flag():
        at = sorted(range(len(modes)), key=lambda i: modes[i])[skip]
        others[at] = o.pick((None, "nothing"))
    kwargs = {
        "tensor": o.array(*shape),
        "matrix_or_vec_list": o.pick((list, tuple))(others),
        "modes": None if kind == "none" else o.pick((list, tuple))(modes),
        "skip": skip,
        "transpose": transpose,
    }
    return Call("multi_mode_dot", kwargs, math.prod(max(s, 1) + 1 for s in shape) * 6)


def kronecker(o: Operands) -> Call:
    n = o.integer(1 - o.bad, 4)
    order = o.pick((2, 2, 2, 1, 3))
    arrays = [o.array(*o.sizes(order, order, 4 if n < 4 else 3)) for _ in range(n)]
    kwargs = {
        "matrices": o.pick((list, tuple))(arrays),
        "skip_matrix": o.pick((None, *range(-1, n + 1))),
        "reverse": o.flag(),
    }
    return Call("kronecker", kwargs, n)


def khatri_rao(o: Operands) -> Call:
    rank = o.integer(o.smallest, 6)
    rows = o.sizes(1 - o.bad, 5, 4)
    vectors = o.pick((False,) * 5 + (True,))
    matrices = [o.array(*((n,) if vectors else (n, rank))) for n in rows]
    skip = o.pick((None, None, *range(-1, len(rows) + 1)))
    if skip in range(len(rows)) and o.flag():
        matrices[skip] = None
    left = [i for i in range(len(rows)) if i != skip]
    weights = mask = None
    if o.flag():
        weights = o.array(1 if vectors else o.pick((1, rank)) if len(left) > 1 else rank)
    if o.flag():
        shape = [rows[i] for i in left]
        mask = o.array(*o.pick((shape, [math.prod(shape)])))
    kwargs = {
        "matrices": o.pick((list, tuple))(matrices),
        "weights": weights,
        "skip_matrix": skip,
        "mask": mask,
    }
    alone = len(left) == 1 and (weights is not None or mask is not None)
    if alone and vectors:
        hypothesis.reject()
    return Call("khatri_rao", kwargs, len(rows) + 2, mended=weighted if alone else None)


def weighted(matrices: Any, weights: Any, skip_matrix: int | None, mask: Any) -> torch.Tensor:
    """Core forgets weights and mask where one matrix remains."""
    (matrix,) = (m for i, m in enumerate(matrices) if i != skip_matrix)
    if weights is not None:
        matrix = torch.einsum("ir,r->ir", matrix, weights.expand(matrix.shape[1]))
    if mask is not None:
        matrix = torch.einsum("ir,i->ir", matrix, mask)
    return matrix


def inner(o: Operands) -> Call:
    shape = o.sizes(1, 5)
    if o.flag():
        kwargs = {"tensor1": o.array(*shape), "tensor2": o.array(*shape), "n_modes": None}
        return Call("inner", kwargs, math.prod(shape))
    common = o.integer(0, len(shape))
    other = shape[len(shape) - common :] + o.sizes(0, 2)
    kwargs = {
        "tensor1": o.array(*shape),
        "tensor2": o.array(*other),
        "n_modes": common + (o.pick((-1, 0, 1)) if o.bad else 0),
    }
    return Call("inner", kwargs, math.prod(shape))


def outer(o: Operands) -> Call:
    arrays = [o.array(*o.sizes(0, 2)) for _ in range(o.integer(1 - o.bad, 4))]
    return Call("outer", {"tensors": o.pick((list, tuple))(arrays)}, len(arrays))


def batched_outer(o: Operands) -> Call:
    samples = o.integer(o.smallest, 6)
    arrays = [o.array(samples, *o.sizes(0, 2)) for _ in range(o.integer(1 - o.bad, 4))]
    return Call("batched_outer", {"tensors": o.pick((list, tuple))(arrays)}, len(arrays))


def higher_order_moment(o: Operands) -> Call:
    shape = o.sizes(1, 3)
    # There is no mean of nothing.
    shape[0] = max(shape[0], 1)
    order = o.integer(1 - 2 * o.bad, (1, 4, 3)[len(shape) - 1])
    kwargs = {"tensor": o.array(*shape), "order": order}
    # Core calls its own batched_outer with two arguments, and it takes one.
    return Call("higher_order_moment", kwargs, shape[0] + order, moment if order > 1 else None)


def moment(tensor: torch.Tensor, order: int) -> torch.Tensor:
    samples = tensor.reshape(len(tensor), math.prod(tensor.shape[1:]))
    letters = "abcd"[:order]
    subscripts = ",".join("z" + letter for letter in letters)
    total = torch.einsum(f"{subscripts}->{letters}", *[samples] * order)
    return (total / len(tensor)).reshape(tensor.shape[1:] * order)


def tt_matrix_to_tensor(o: Operands) -> Call:
    n = o.integer(1 - o.bad, 4)
    ranks = [1, *(o.integer(o.smallest, 4) for _ in range(n - 1)), 1]
    cores = [o.array(ranks[k], *o.sizes(2, 2, 3), ranks[k + 1]) for k in range(n)]
    kwargs = {"tt_matrix": o.pick((list, tuple))(cores)}
    return Call("_tt_matrix_to_tensor", kwargs, math.prod(r + 1 for r in ranks))


def unfolding_dot_khatri_rao(o: Operands) -> Call:
    shape = o.sizes(1, 5, 5)
    n, rank = len(shape), o.integer(o.smallest, 6)
    mode = o.integer(-n - o.bad, n - 1 + o.bad)
    if mode == -n == -1:
        mode = 0
    at = mode % n
    rows = list(shape)
    if o.integer(0, 5) == 5:
        others = iter(o.order([s for i, s in enumerate(shape) if i != at]))
        rows = [s if i == at else next(others) for i, s in enumerate(shape)]
    factors = [o.array(s, rank) for s in rows]
    if -n <= mode < n and o.flag():
        factors[at] = o.pick((None, "nothing", factors[at] * math.nan, factors[at][:0]))
    weights = o.array(o.pick((rank, rank, 1))) if o.flag() else None
    cp = (weights, o.pick((list, tuple))(factors))
    kwargs = {"tensor": o.array(*shape), "cp_tensor": o.pick((tuple, list))(cp), "mode": mode}
    misfit = any(a != b for a, b in zip(shape, rows, strict=True)) and -n <= mode < n and n > 1
    # Core skips no factor where the mode is negative, and forgets the weights of a matrix.
    wrong = n > 1 and (mode < 0 or (n == 2 and weights is not None))
    terms = math.prod(max(s, 1) for s in shape) + n
    return Call("unfolding_dot_khatri_rao", kwargs, terms, mttkrp if wrong else None, misfit)


def mttkrp(tensor: torch.Tensor, cp_tensor: Any, mode: int) -> torch.Tensor:
    weights, factors = cp_tensor
    at = mode % tensor.ndim
    letters = "abcde"[: tensor.ndim]
    others = [n for n in range(tensor.ndim) if n != at]
    operands = [tensor, *(factors[n].conj() for n in others)]
    terms = [letters, *(letters[n] + "r" for n in others)]
    if weights is not None:
        operands.append(weights.conj().expand(operands[1].shape[1]))
        terms.append("r")
    return torch.einsum(f"{','.join(terms)}->{letters[at]}r", *operands)


def tensordot(o: Operands) -> Call:
    common, batch = o.sizes(0, 2), o.sizes(0, 2)
    free = [o.sizes(0, 2), o.sizes(0, 2)]
    kwargs: dict[str, Any]
    if o.flag() and not batch:
        # As many as that of the last modes of one, and of the first of the other.
        first, second = free[0] + common, common + free[1]
        kwargs = {"modes": len(common)}
        if o.flag() and len(common) == 1:
            kwargs = {"modes": o.pick(([[-1], [0]], (len(first) - 1, 0), [len(first) - 1, [0]]))}
    else:
        shapes, places = [], []
        for own in free:
            sizes = batch + common + own
            order = o.order(range(len(sizes)))
            shapes.append([sizes[i] for i in order])
            where = [order.index(i) for i in range(len(batch + common))]
            places.append([w - len(sizes) if o.flag() else w for w in where])
        first, second = shapes
        nb = len(batch)
        kwargs = {"modes": o.pick((list, tuple))(place[nb:] for place in places)}
        if nb or o.flag():
            kwargs["batched_modes"] = o.pick((list, tuple))(place[:nb] for place in places)
        if nb == 1 and places[0][0] == places[1][0] and o.flag():
            kwargs["batched_modes"] = o.pick((places[0][0], (places[0][0],)))
    if o.bad and o.flag():
        kwargs[o.pick(list(kwargs))] = o.pick((1, 7, [[0], [5]], [[0, 1], [0]], ([0, 0], [0, 0])))
    arrays = {"tensor1": o.array(*first), "tensor2": o.array(*second)}
    return Call("tensordot", arrays | kwargs, math.prod(max(s, 1) for s in common) + 1)


LAWS = dict(
    zip(
        FUNCTIONS,
        (
            mode_dot,
            multi_mode_dot,
            kronecker,
            khatri_rao,
            inner,
            outer,
            batched_outer,
            higher_order_moment,
            tt_matrix_to_tensor,
            unfolding_dot_khatri_rao,
            tensordot,
        ),
        strict=True,
    )
)
