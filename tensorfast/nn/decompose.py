"""Layers of a network decomposed: convolutions by Tucker-2 and CP, linear layers by an SVD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import _check
from ..precision import compute_dtype, matmul_precision
from . import aware, kernels
from .layers import CONVOLUTIONS, Convolution, Stage, assemble, assemble_linear
from .ranks import suggest_rank

__all__ = ["decompose_conv", "decompose_linear"]

METHODS = ("tucker2", "cp")


def decompose_conv(
    conv: Convolution,
    rank: Any = None,
    *,
    method: str = "tucker2",
    inputs: Any = None,
    **options: Any,
) -> nn.Sequential:
    r"""Replace a convolution by several smaller ones whose kernels make up a decomposition of its.

    Tucker-2, ``W[o, i, h, w] ~ sum_ab U[o, a] G[a, b, h, w] V[i, b]``: a 1 x 1 convolution to
    ``rank_in`` channels, one with the taps of ``conv`` to ``rank_out`` channels, a 1 x 1
    convolution. CP, ``sum_r U[o, r] V[i, r] A[h, r] B[w, r]``: a 1 x 1 convolution to R channels,
    one along each spatial axis, channel by channel, and a 1 x 1 convolution.

    Parameters
    ----------
    conv : nn.Conv1d, nn.Conv2d or nn.Conv3d
        Any stride, padding, padding mode, dilation, groups and bias. Not modified.
    rank : int or (int, int), optional
        R for CP; ``(rank_out, rank_in)``, or one for both, for Tucker-2. Of each group, at most its
        channels. What `suggest_rank` finds if not given, for CP the larger of the two.
    method : {"tucker2", "cp"}
    inputs : Tensor or iterable of Tensor, optional
        What the layer is given, ``(samples, in_channels, ...)``, in one or several batches: the
        error of the output on these is minimised, in place of that of the weight. A few hundred
        positions for each of ``rank_in`` times the taps are enough.
    **options
        Go to `tensorfast.hooi` or `tensorfast.cp_als`: ``seed``, ``n_iter_max``, ``tol`` and more.

    Returns
    -------
    nn.Sequential
        ``reduce``, then ``core`` or ``axis0``, ``axis1``, ..., then ``expand``, which has the bias;
        without those that would do nothing: of a channel mode with full rank, of an axis with one
        tap. With parameters of its own, of the type and on the device of ``conv``'s, in its mode
        (training or not), trained if ``conv``'s are.

    Raises
    ------
    TypeError
        If ``conv`` is none of these layers: transposed convolutions, and lazy ones before their
        first call, are not.
    ValueError
        If the rank, the method or an option does not fit, or the weight is not finite.

    Notes
    -----
    At full rank it is the convolution itself, up to rounding: for Tucker-2 from ``(out_channels /
    groups, in_channels / groups)``, for CP from the product of all sizes of the kernel but the
    longest. A kernel with one tap is a matrix, and both methods give its truncated SVD.

    With ``inputs`` the input channels are whitened before the kernel is decomposed, and what comes
    after the first convolution (for CP, the last one) is the regression of the layer's output on
    what goes into it, in closed form, the bias included.

    Multiply-adds for a position: ``O I K`` of the dense layer, ``I b + a b K + O a`` of Tucker-2,
    ``R (I + sum of K_n + O)`` of CP. Fewer do not make a layer faster by themselves: measure, as
    `compress` does. CP of a kernel often has no best approximation; `cp_als` then tells of a
    degenerate fit, and ``l2_reg`` bounds it.

    References
    ----------
    Kim, Park, Yoo, Choi, Yang and Shin, arXiv:1511.06530 (Tucker-2); Lebedev, Ganin, Rakhuba,
    Oseledets and Lempitsky, arXiv:1412.6553 (CP).

    Examples
    --------
    >>> import torch
    >>> conv = torch.nn.Conv2d(16, 32, 3, stride=2, padding=1)
    >>> small = decompose_conv(conv, (8, 4))
    >>> [tuple(layer.weight.shape) for layer in small]
    [(4, 16, 1, 1), (8, 4, 3, 3), (32, 8, 1, 1)]
    >>> small(torch.zeros(1, 16, 9, 9)).shape
    torch.Size([1, 32, 5, 5])
    """
    op = "decompose_conv"
    weight = _weight(op, "conv", conv, CONVOLUTIONS)
    if method not in METHODS:
        raise ValueError(f"{op}: method is {method!r}; expected one of {', '.join(METHODS)}")
    kernel = weight.unflatten(0, (conv.groups, -1))
    channels = int(kernel.shape[1]), int(kernel.shape[2])
    suggested = suggest_rank(kernel.movedim(0, 2).flatten(2)) if rank is None else rank
    pair = _pair(op, suggested, channels, method)
    with torch.no_grad(), matmul_precision("ieee", weight.device):
        if inputs is not None:
            given = _inputs(op, inputs, conv, conv.in_channels, 1, conv.weight.ndim)
            return assemble(conv, *_aware(conv, kernel, pair, method, given, options))
        return assemble(conv, _plain(conv, kernel, pair, method, options), conv.bias)


def decompose_linear(
    linear: nn.Linear, rank: int | None = None, *, inputs: Any = None
) -> nn.Sequential:
    r"""Replace a linear layer by two, ``W = U S V^T`` cut at a rank, the root of S in each.

    Parameters
    ----------
    linear : nn.Linear
        Not modified.
    rank : int, optional
        At most ``min(in_features, out_features)``; what `suggest_rank` finds if not given.
    inputs : Tensor or iterable of Tensor, optional
        What the layer is given, ``(..., in_features)``: the error of the output on these is
        minimised, in place of that of the weight.

    Returns
    -------
    nn.Sequential
        ``reduce`` without a bias, and ``expand`` with that of ``linear``; of its type, on its
        device, in its mode (training or not), trained if it is.

    Raises
    ------
    TypeError
        If ``linear`` is no `nn.Linear`, or a lazy one before its first call.
    ValueError
        If the rank does not fit, or the weight is not finite.

    Notes
    -----
    The best approximation of that rank (Eckart and Young). Fewer parameters below ``out in / (out +
    in)``.

    Examples
    --------
    >>> import torch
    >>> small = decompose_linear(torch.nn.Linear(100, 40), 8)
    >>> [tuple(layer.weight.shape) for layer in small]
    [(8, 100), (40, 8)]
    """
    op = "decompose_linear"
    weight = _weight(op, "linear", linear, (nn.Linear,))
    wanted = suggest_rank(weight) if rank is None else rank
    (rank,) = _ranks(op, [wanted], [min(weight.shape)])
    bias: Tensor | None = linear.bias
    with torch.no_grad(), matmul_precision("ieee", weight.device):
        if inputs is None:
            stages = kernels.pointwise(weight[None], rank)
        else:
            given = _inputs(op, inputs, linear, linear.in_features, -1)
            stages, bias = aware.linear(linear, rank, given)
    return assemble_linear(linear, stages, bias)


def _plain(
    conv: Convolution, kernel: Tensor, pair: tuple[int, int], method: str, options: dict[str, Any]
) -> list[Stage]:
    if all(size == 1 for size in kernel.shape[3:]):
        return kernels.pointwise(kernel, min(pair))
    if method == "tucker2":
        return kernels.tucker2(kernel, pair, **options)
    return kernels.cp(kernel, pair[0], conv.stride, **options)


def _aware(
    conv: Convolution,
    kernel: Tensor,
    pair: tuple[int, int],
    method: str,
    inputs: list[Tensor],
    options: dict[str, Any],
) -> aware.Fit:
    if all(size == 1 for size in kernel.shape[3:]):
        return aware.pointwise(conv, kernel, min(pair), inputs)
    if method == "tucker2":
        return aware.tucker2(conv, kernel, pair, inputs, **options)
    return aware.cp(conv, kernel, pair[0], inputs, **options)


def _inputs(
    op: str, inputs: Any, layer: Any, channels: int, mode: int, modes: int | None = None
) -> list[Tensor]:
    """Return what a layer is given, as a list of tensors with so many channels in a mode."""
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for x in given:
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: inputs holds {type(x).__name__}; expected tensors")
        if x.ndim < 2 or modes not in (None, x.ndim) or x.shape[mode] != channels:
            wanted = "two modes or more" if modes is None else f"{modes} modes"
            raise ValueError(
                f"{op}: inputs has shape {tuple(x.shape)}; expected {wanted}, and {channels} in "
                f"mode {mode}"
            )
        _check.one_device(op, {"weight": layer.weight, "inputs": x})
        _check.finite(op, x, "inputs")
    return given


def _weight(op: str, name: str, layer: Any, kinds: tuple[type[Any], ...]) -> Tensor:
    """Return the weight in the computing type, of a layer that can be decomposed."""
    wanted = " or ".join(f"nn.{kind.__name__}" for kind in kinds)
    if not isinstance(layer, kinds):
        raise TypeError(f"{op}: {name} is {type(layer).__name__}; expected {wanted}")
    if isinstance(layer.weight, nn.parameter.UninitializedParameter):
        raise TypeError(
            f"{op}: {name} is a lazy layer without a weight; call it once with an input first"
        )
    weight: Tensor = layer.weight.detach()
    _check.storage(op, "weight", weight.dtype)
    _check.nonempty(op, weight, "weight")
    _check.finite(op, weight, "weight", remedy="train or load it anew")
    return weight.to(compute_dtype(weight.dtype))


def _pair(op: str, rank: Any, channels: tuple[int, int], method: str) -> tuple[int, int]:
    """Return ``(rank_out, rank_in)``; of CP the rank, twice."""
    given = list(rank) if isinstance(rank, (tuple, list)) else [rank]
    if method == "cp":
        # Of a suggestion for Tucker-2.
        given = [max(given)] if len(given) == 2 else given
        (only,) = _ranks(op, given, [None])
        return only, only
    if len(given) == 1:
        (one,) = _ranks(op, given, [max(channels)])
        return min(one, channels[0]), min(one, channels[1])
    first, second = _ranks(op, given, channels)
    return first, second


def _ranks(op: str, given: Any, most: Any) -> list[int]:
    if len(given) != len(most):
        raise ValueError(f"{op}: rank is {tuple(given)}; expected {len(most)} of them, or one")
    found = [_check.whole_number(op, "rank", value, 1) for value in given]
    for value, limit in zip(found, most, strict=True):
        if limit is not None and value > limit:
            raise ValueError(f"{op}: rank is {value}; expected at most {limit}")
    return found
