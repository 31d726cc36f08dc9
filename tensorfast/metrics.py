"""How good a decomposition is, and how alike two of them are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _check, arrays, baseline
from .blocks import by_stride
from .precision import common_dtype, matmul_precision, solve_dtype
from .reconstruct import (
    bring_cp,
    bring_tucker,
    cp_residual_norm,
    named,
    norm,
    tucker_residual_norm,
)

__all__ = [
    "congruence",
    "core_consistencies",
    "core_consistency",
    "factor_match_score",
    "relative_error",
]


def relative_error(x: Any, decomposition: Any) -> Any:
    r"""Relative error ``||x - model|| / ||x||`` of a CP or Tucker model, from the residual itself.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    decomposition : CPTensor, TuckerTensor, (weights, factors) or (core, factors)
        A first item of one axis (or None) means CP, of as many axes as ``x`` has, Tucker. A batch
        of models is told by factors of more than two axes; all have the batch's axes before.

    Returns
    -------
    float
        For ``x = 0`` the norm of the model. Of a batch a NumPy array, computed one by one.

    Raises
    ------
    ValueError, TypeError
        If the model does not describe a tensor of ``x``'s shape on ``x``'s device, or either is
        not finite.

    Notes
    -----
    Computed in double precision at any scale, slab by slab: a few MiB and the Khatri-Rao products
    of half the modes; the model is never formed whole.

    Examples
    --------
    >>> import numpy as np
    >>> ones = [np.ones((n, 1)) for n in (2, 3)]
    >>> relative_error(2 * np.ones((2, 3)), (np.array([1.0]), ones))
    0.5
    """
    op = "relative_error"
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    batch = _batch_of(decomposition)
    if batch:
        return _relative_errors(op, tensor, decomposition, batch)
    return _relative_error(op, tensor, decomposition)


def _batch_of(decomposition: Any) -> tuple[int, ...]:
    """Axes before those of the matrices; none where there is no matrix to be seen."""
    try:
        return tuple(decomposition[1][0].shape[:-2])
    except (AttributeError, IndexError, KeyError, TypeError):
        return ()


def _relative_errors(op: str, x: Tensor, model: Any, batch: tuple[int, ...]) -> np.ndarray:
    cp = _is_cp(op, model, len(batch))
    first, factors = (bring_cp if cp else bring_tucker)(op, model, batched=True)
    if tuple(x.shape[: len(batch)]) != batch:
        raise ValueError(
            f"{op}: the models have the batch axes {batch} but x has shape {tuple(x.shape)}; "
            "expected the same axes before the modes"
        )
    errors = np.empty(batch)
    for index in np.ndindex(*batch):
        own = None if first is None else first[index]
        errors[index] = _relative_error(op, x[index], (own, [f[index] for f in factors]))
    return errors


def _relative_error(op: str, tensor: Tensor, decomposition: Any) -> float:
    _check.modes_at_least(op, tensor, 1)
    _check.nonempty(op, tensor)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        if _is_cp(op, decomposition):
            weights, factors = bring_cp(op, decomposition)
            _check.factors(op, factors, tensor.shape)
            model = named(factors, weights=weights)
            _check.one_device(op, {"x": tensor, **model})
            wide = _wide(weights, factors, solve_dtype(factors[0].dtype))
            order = by_stride(tensor)
            gap = cp_residual_norm(tensor.permute(order), [wide[n] for n in order], double=True)
        else:
            core, factors = bring_tucker(op, decomposition)
            model = named(factors, core=core)
            _check.one_device(op, {"x": tensor, **model})
            shape = tuple(f.shape[0] for f in factors)
            if shape != tuple(tensor.shape):
                raise ValueError(
                    f"{op}: the model has shape {shape} but x has shape {tuple(tensor.shape)}; "
                    "expected the same"
                )
            gap = tucker_residual_norm(tensor, core, factors, double=True)
        length = norm(tensor)
        error = gap / (length if length > 0 else 1.0)
        if not math.isfinite(error):
            _all_finite(op, {"x": tensor, **model})
    return error


def _wide(weights: Tensor | None, factors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Factors in double precision, the weights in the first."""
    wide = [f.to(dtype) for f in factors]
    if weights is not None:
        wide[0] = wide[0] * weights
    return wide


def _all_finite(op: str, tensors: Mapping[str, Tensor | None]) -> None:
    for name, tensor in tensors.items():
        if tensor is not None:
            _check.finite(op, tensor, name)


def _is_cp(op: str, decomposition: Any, batch: int = 0) -> bool:
    try:
        first, _ = decomposition
    except (TypeError, ValueError):
        raise TypeError(
            f"{op}: got {type(decomposition).__name__}; expected a CPTensor, a TuckerTensor "
            "or a pair"
        ) from None
    return first is None or arrays.as_tensor(op, "weights or core", first).ndim == 1 + batch


def congruence(a: Any, b: Any) -> Any:
    r"""Tucker's congruence of every component of one CP model with every one of another.

    ``out[r, s] = prod_n <a_n[:, r], b_n[:, s]> / (||a_n[:, r]|| ||b_n[:, s]||)``, the cosine
    between the rank-1 tensors, signs of the weights included; 0 where a component vanishes.

    Parameters
    ----------
    a, b : CPTensor or (weights, factors)
        Of one shape; ranks may differ.

    Returns
    -------
    array, shape (R_a, R_b)

    Raises
    ------
    ValueError, TypeError
        If the models are of different shapes, empty, or on different devices.

    References
    ----------
    Lorenzo-Seva and ten Berge, Methodology 2 (2006), who call 0.85 fair and 0.95 equal.

    Examples
    --------
    >>> import numpy as np
    >>> one = (np.array([1.0]), [np.array([[1.0], [0.0]]), np.array([[3.0], [4.0]])])
    >>> congruence(one, one)
    array([[1.]])
    """
    cosines, _, _ = _compare("congruence", a, b)
    return arrays.in_kind(cosines, a[1][0])


def _compare(op: str, a: Any, b: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cosines between components, and log2 of the lengths of each model's components."""
    (weights_a, factors_a), (weights_b, factors_b) = bring_cp(op, a), bring_cp(op, b)
    shapes = [tuple(f.shape[0] for f in factors) for factors in (factors_a, factors_b)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{op}: the models have shapes {shapes[0]} and {shapes[1]}; expected one shape"
        )
    for n, f in enumerate(factors_a):
        _check.nonempty(op, f, f"factors[{n}]")
    _check.one_device(op, {"the first model": factors_a[0], "the second": factors_b[0]})
    units_a, lengths_a = _unit_components(weights_a, factors_a)
    units_b, lengths_b = _unit_components(weights_b, factors_b)
    dtype = common_dtype(units_a[0], units_b[0])
    with matmul_precision("ieee", factors_a[0].device):
        products = [f.mH.to(dtype) @ g.to(dtype) for f, g in zip(units_a, units_b, strict=True)]
    return torch.stack(products).prod(0), lengths_a, lengths_b


def _unit_components(weights: Tensor | None, factors: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Columns of length 1, the weights as a factor of one row, and log2 of the components' lengths.

    What vanishes stays zero; its length, which then does not matter, counts as 1.
    """
    row = torch.ones_like(factors[0][:1]) if weights is None else weights[None]
    wide = [f.to(solve_dtype(f.dtype)) for f in (row, *factors)]
    # By the largest entries first, so that no square over- or underflows.
    largest = [_or_one(f.detach().abs().amax(0)) for f in wide]
    wide = [f / n for f, n in zip(wide, largest, strict=True)]
    lengths = [_or_one(torch.linalg.vector_norm(f, dim=0)) for f in wide]
    units = [f / n for f, n in zip(wide, lengths, strict=True)]
    return units, torch.stack(largest + lengths).log2().sum(0)


def _or_one(lengths: Tensor) -> Tensor:
    return torch.where(lengths > 0, lengths, torch.ones_like(lengths))


def factor_match_score(a: Any, b: Any, *, weight_penalty: bool = True) -> float:
    r"""How well two CP models agree, up to the order, sign and scale of components: 1 is perfect.

    The mean over the best one-to-one matching of components of ``(1 - |l_r - m_s| / max(l_r, m_s))
    * |cos(r, s)|``, with l, m the components' lengths and ``cos`` their `congruence`. Components of
    the larger model that stay unmatched count 0.

    Parameters
    ----------
    a, b : CPTensor or (weights, factors)
        Of one shape.
    weight_penalty : bool
        Whether the lengths count; else the first factor is 1.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError, TypeError
        If the models are of different shapes, empty, on different devices, or not finite.

    Notes
    -----
    The matching is optimal (`scipy.optimize.linear_sum_assignment`), not greedy.

    References
    ----------
    Acar, Dunlavy, Kolda and Morup, Chemometrics Intell. Lab. Syst. 106 (2011), equation (14).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> u = [rng.standard_normal((n, 2)) for n in (4, 5, 6)]
    >>> swapped = (None, [f[:, ::-1] for f in u])
    >>> round(factor_match_score((None, u), swapped), 6)
    1.0
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    op = "factor_match_score"
    cosines, lengths_a, lengths_b = _compare(op, a, b)
    score = cosines.abs().clamp(max=1.0)
    if weight_penalty:
        # 1 - |l - m| / max(l, m) is the shorter over the longer.
        score = score * torch.exp2(-(lengths_a[:, None] - lengths_b).abs())
    if not score.isfinite().all():
        for model in (a, b):
            weights, factors = bring_cp(op, model)
            _all_finite(op, named(factors, weights=weights))
    table = score.detach().cpu().numpy()
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / max(table.shape))


def core_consistency(x: Any, cp: Any) -> float:
    r"""Core consistency diagnostic (CORCONDIA) of a CP model, in percent.

    ``100 * (1 - sum (g - t)^2 / R)`` with ``g = x x_0 pinv(A_0) x_1 pinv(A_1) ...`` the
    least-squares Tucker core for the model's factors (weights in the first) and ``t`` the
    superdiagonal core of ones. Near 100: the data support R components; below about 50, or
    negative: too many.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    cp : CPTensor or (weights, factors)

    Returns
    -------
    float
        At most 100.

    Raises
    ------
    ValueError, TypeError
        If the model does not describe a tensor of ``x``'s shape on ``x``'s device, or either is
        not finite.

    Notes
    -----
    One chain of n-mode products in double precision, the first and longest of 2 R prod(I_n) flops;
    core of R^N.

    References
    ----------
    Bro and Kiers, J. Chemometrics 17 (2003); Papalexakis and Faloutsos,
    ICASSP 2015 (pseudo-inverses mode by mode).

    Examples
    --------
    >>> import numpy as np
    >>> ones = [np.ones((n, 1)) for n in (2, 3, 4)]
    >>> round(core_consistency(np.ones((2, 3, 4)), (None, ones)), 6)
    100.0
    """
    op = "core_consistency"
    tensor = arrays.as_tensor(op, "x", x).detach()
    _check.storage(op, "x", tensor.dtype)
    _check.modes_at_least(op, tensor, 2)
    _check.nonempty(op, tensor)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        weights, factors = bring_cp(op, cp)
        _check.factors(op, factors, tensor.shape)
        model = named(factors, weights=weights)
        _check.one_device(op, {"x": tensor, **model})
        # LAPACK fails on anything else.
        _all_finite(op, model)
        wide = _wide(weights, factors, solve_dtype(common_dtype(tensor, *factors)))
        (found,) = core_consistencies(tensor, [wide])
        if not math.isfinite(found):
            _check.finite(op, tensor)
    return found


def core_consistencies(x: Tensor, models: Sequence[Sequence[Tensor]]) -> list[float]:
    """Return the core consistency of several models from one read of ``x``.

    Of factors of all modes in double precision, with the weights in one. The first product takes
    ``prod(I_n) / max(I_n)`` elements for each component of all models.
    """
    longest = max(range(x.ndim), key=lambda n: x.shape[n])
    inverses = [[torch.linalg.pinv(factor) for factor in factors] for factors in models]
    first = baseline.ttm(x, torch.cat([inverse[longest] for inverse in inverses]), longest)
    ranks = [factors[0].shape[1] for factors in models]
    out = []
    for rank, inverse, core in zip(ranks, inverses, first.split(ranks, longest), strict=True):
        others = (n for n in range(x.ndim) if n != longest)
        for n in sorted(others, key=lambda n: rank / x.shape[n]):
            core = baseline.ttm(core.contiguous(), inverse[n], n)
        diagonal = torch.arange(rank, device=core.device)
        core[(diagonal,) * x.ndim] -= 1.0
        out.append(100.0 * (1.0 - float(baseline.sum_of_squares(core)) / rank))
    return out
