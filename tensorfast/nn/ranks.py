"""Ranks for a weight: by a Bayesian analysis of its noise, by energy, or by a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _check

__all__ = ["suggest_rank"]

METHODS = ("evbmf", "energy", "budget")


def suggest_rank(
    weight: Any, *, method: str = "evbmf", energy: float = 0.9, budget: float = 0.5
) -> int | tuple[int, int]:
    r"""Suggest at which rank to decompose the weight of a layer.

    Parameters
    ----------
    weight : Tensor, shape (O, I) or (O, I, K_0, ...), or a module that has one
        Of a linear layer or a convolution; with groups, of one group.
    method : {"evbmf", "energy", "budget"}
        ``"evbmf"``: how many singular values of an unfolding stand out of noise, by the global
        solution of empirical variational Bayesian matrix factorisation. ``"energy"``: as many as
        hold a share of the squared norm. ``"budget"``: the largest whose layers have that share of
        the parameters, the two ranks of a convolution in proportion to its channels.
    energy : float
        Share of the squared norm of each unfolding, in (0, 1].
    budget : float
        Share of the weight's number of parameters, in (0, 1].

    Returns
    -------
    int or (int, int)
        Of a matrix one rank; of a kernel ``(rank_out, rank_in)`` for Tucker-2. At least 1.

    Raises
    ------
    ValueError, TypeError
        If the weight has fewer than two modes, is empty or not finite, or an option does not fit.

    Notes
    -----
    EVBMF takes what is small and without structure for noise. Trained weights are not made like
    that: it is a place to start from, and tends to be low for the first layers and high for last
    ones.

    References
    ----------
    Nakajima, Sugiyama, Babacan and Tomioka, J. Machine Learning Research 14 (2013); Kim, Park, Yoo,
    Choi, Yang and Shin, arXiv:1511.06530 (EVBMF for Tucker-2).

    Examples
    --------
    >>> import torch
    >>> rng = torch.Generator().manual_seed(0)
    >>> u, v = (torch.randn(n, 3, generator=rng) for n in (40, 50))
    >>> noise = torch.randn(40, 50, generator=rng)
    >>> suggest_rank(u @ v.T + 0.1 * noise)
    3
    """
    op = "suggest_rank"
    tensor = _weight(op, weight)
    if method not in METHODS:
        raise ValueError(f"{op}: method is {method!r}; expected one of {', '.join(METHODS)}")
    energy, budget = (_share(op, *pair) for pair in (("energy", energy), ("budget", budget)))
    if method == "budget":
        return _within(tensor.shape, budget)
    count: Callable[[Tensor, int], int] = (
        (lambda s, longer: _evbmf(s, longer))
        if method == "evbmf"
        else (lambda s, _: _held(s, energy))
    )
    modes = (0,) if tensor.ndim == 2 else (0, 1)
    found = [_rank_of(tensor, mode, count) for mode in modes]
    return found[0] if tensor.ndim == 2 else (found[0], found[1])


def _weight(op: str, weight: Any) -> Tensor:
    tensor = getattr(weight, "weight", weight)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}: weight is {type(weight).__name__}; expected a tensor or a module")
    _check.storage(op, "weight", tensor.dtype)
    _check.modes_at_least(op, tensor, 2)
    _check.nonempty(op, tensor, "weight")
    _check.finite(op, tensor.detach(), "weight")
    return tensor.detach()


def _share(op: str, name: str, value: float) -> float:
    value = _check.number(op, name, value)
    if not 0 < value <= 1:
        raise ValueError(f"{op}: {name} is {value}; expected a share in (0, 1]")
    return value


def _rank_of(tensor: Tensor, mode: int, count: Callable[[Tensor, int], int]) -> int:
    rows = tensor.movedim(mode, 0).flatten(1).to(torch.float64)
    squares = torch.linalg.eigvalsh(
        rows @ rows.mH if len(rows) <= rows.shape[1] else rows.mH @ rows
    )
    singular = squares.clamp(min=0).sqrt().flip(0)
    return max(1, count(singular, max(rows.shape)))


def _held(singular: Tensor, energy: float) -> int:
    squares = singular.square().cumsum(0)
    # Rounding must not ask for one more than all.
    return int((squares < energy * squares[-1] * (1 - 1e-12)).sum()) + 1


def _within(shape: Sequence[int], budget: float) -> int | tuple[int, int]:
    """Return the largest ranks whose layers have at most that share of the parameters."""
    outputs, inputs, taps = shape[0], shape[1], math.prod(shape[2:])
    allowed = budget * math.prod(shape)
    if len(shape) == 2:
        return max(1, min(int(allowed / (outputs + inputs)), outputs, inputs))

    def ranks(share: float) -> tuple[int, int]:
        return max(1, int(share * outputs)), max(1, int(share * inputs))

    def parameters(pair: tuple[int, int]) -> int:
        first, second = pair
        return outputs * first + first * second * taps + second * inputs

    steps = range(1, 1025)
    fitting = [ranks(n / 1024) for n in steps if parameters(ranks(n / 1024)) <= allowed]
    return fitting[-1] if fitting else (1, 1)


def _evbmf(singular: Tensor, longer: int) -> int:
    """Count the singular values above the threshold of the global EVBMF solution.

    Of a matrix ``shorter x longer`` with noise of unknown variance, which minimises the free energy
    (Nakajima et al., theorem 2 and corollary 1).
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    shorter = len(singular)
    alpha = shorter / longer
    tau_bar = 2.5129 * math.sqrt(alpha)
    upper = (1 + tau_bar) * (1 + alpha / tau_bar)
    squares = singular.square() / longer
    total = float(squares.sum())
    if total == 0:
        return 1

    def free_energy(variance: float) -> float:
        x = squares / variance
        large, small = x[x > upper], x[x <= upper]
        tau = _tau(large, alpha)
        energy = (small - small.clamp(min=1e-300).log()).sum() + (large - tau).sum()
        energy = energy + ((tau + 1) / large).log().sum() + alpha * (tau / alpha + 1).log().sum()
        return float(energy)

    # Between what the rest beyond the largest possible rank says, and all being noise.
    most = min(math.ceil(shorter / (1 + alpha)) - 1, shorter - 1)
    rest = float(squares[most:].mean())
    low, high = max(float(squares[most]) / upper, rest), total / shorter
    if low > 0 and high > low:
        found = minimize_scalar(free_energy, bounds=(low, high), method="bounded")
        variance = float(found.x)
    else:
        variance = high if low == 0 else low
    if low == 0:
        # An exact rank: without noise whatever is there stands out.
        return int((squares > squares[0] * shorter * torch.finfo(squares.dtype).eps).sum())
    return int((squares > variance * upper).sum())


def _tau(x: Tensor, alpha: float) -> Tensor:
    shifted = x - (1 + alpha)
    return (shifted + (shifted.square() - 4 * alpha).clamp(min=0).sqrt()) / 2
