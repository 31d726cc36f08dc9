"""How good a decomposition is, and how alike two of them are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import _check, arrays, baseline
from .precision import matmul_precision, solve_dtype
from .reconstruct import bring_cp, bring_tucker, cp_residual_norm, tucker_residual_norm

__all__ = ["congruence", "core_consistency", "factor_match_score", "relative_error"]


def relative_error(x: Any, decomposition: Any) -> float:
    r"""Relative error ``||x - model|| / ||x||`` of a CP or Tucker model, from the residual itself.

    Parameters
    ----------
    x : array, shape (I_0, ..., I_{N-1})
    decomposition : CPTensor, TuckerTensor, (weights, factors) or (core, factors)
        A first item of one axis (or None) means CP, of as many axes as ``x`` has, Tucker.

    Returns
    -------
    float
        For ``x = 0`` the norm of the model.

    Raises
    ------
    ValueError, TypeError
        If the model does not describe a tensor of ``x``'s shape.

    Notes
    -----
    Computed in double precision, slab by slab: a few MiB and the Khatri-Rao products of
    half the modes; the model is never formed whole.

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
    _check.modes_at_least(op, tensor, 1)
    _check.nonempty(op, tensor)
    with torch.no_grad(), matmul_precision("ieee", tensor.device):
        if _is_cp(op, decomposition):
            weights, factors = bring_cp(op, decomposition)
            _check.factors(op, factors, tensor.shape)
            wide = [f.to(solve_dtype(f.dtype)) for f in factors]
            if weights is not None:
                wide[0] = wide[0] * weights
            order = baseline.by_stride(tensor)
            norm = cp_residual_norm(tensor.permute(order), [wide[n] for n in order], double=True)
        else:
            core, factors = bring_tucker(op, decomposition)
            shape = tuple(f.shape[0] for f in factors)
            if shape != tuple(tensor.shape):
                raise ValueError(
                    f"{op}: the model has shape {shape} but x has shape {tuple(tensor.shape)}; "
                    "expected the same"
                )
            norm = tucker_residual_norm(tensor, core, factors, double=True)
        scale = math.sqrt(float(baseline.sum_of_squares(tensor)))
    return norm / (scale if scale > 0 else 1.0)


def _is_cp(op: str, decomposition: Any) -> bool:
    try:
        first, _ = decomposition
    except (TypeError, ValueError):
        raise TypeError(
            f"{op}: got {type(decomposition).__name__}; expected a CPTensor, a TuckerTensor "
            "or a pair"
        ) from None
    return first is None or getattr(first, "ndim", 1) == 1


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
        If the models are of different shapes.

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
    """Return the cosines between components, and the lengths of each model's components."""
    (weights_a, factors_a), (weights_b, factors_b) = bring_cp(op, a), bring_cp(op, b)
    shapes = [tuple(f.shape[0] for f in factors) for factors in (factors_a, factors_b)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{op}: the models have shapes {shapes[0]} and {shapes[1]}; expected one shape"
        )
    units_a, lengths_a = _unit_components(weights_a, factors_a)
    units_b, lengths_b = _unit_components(weights_b, factors_b)
    dtype = torch.promote_types(units_a[0].dtype, units_b[0].dtype)
    device = units_a[0].device
    cosines = torch.ones(len(lengths_a), len(lengths_b), dtype=dtype, device=device)
    for f, g in zip(units_a, units_b, strict=True):
        cosines = cosines * (f.mH.to(dtype) @ g.to(device, dtype))
    return cosines, lengths_a, lengths_b


def _unit_components(weights: Tensor | None, factors: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Columns of length 1 with the weight's sign in the first, and the components' lengths."""
    wide = [f.to(solve_dtype(f.dtype)) for f in factors]
    if weights is not None:
        wide[0] = wide[0] * weights
    lengths = [torch.linalg.vector_norm(f, dim=0) for f in wide]
    units = [
        f / torch.where(n > 0, n, torch.ones_like(n)) for f, n in zip(wide, lengths, strict=True)
    ]
    return units, torch.stack(lengths).prod(0)


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
        If the models are of different shapes.

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

    cosines, lengths_a, lengths_b = _compare("factor_match_score", a, b)
    score = cosines.abs()
    if weight_penalty:
        gap = (lengths_a[:, None] - lengths_b).abs()
        largest = torch.maximum(lengths_a[:, None], lengths_b)
        score = score * (1 - gap / torch.where(largest > 0, largest, torch.ones_like(largest)))
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
        If the model does not describe a tensor of ``x``'s shape.

    Notes
    -----
    One chain of n-mode products, 2 R prod(I_n) flops, in double precision beyond the
    first; core of R^N.

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
        rank = _check.factors(op, factors, tensor.shape)
        wide = [f.to(solve_dtype(tensor.dtype)) for f in factors]
        if weights is not None:
            wide[0] = wide[0] * weights
        order = sorted(range(tensor.ndim), key=lambda n: rank / tensor.shape[n])
        core = tensor
        for n in order:
            core = baseline.ttm(core, torch.linalg.pinv(wide[n]), n)
        superdiagonal = torch.zeros_like(core)
        diagonal = torch.arange(rank, device=core.device)
        superdiagonal[(diagonal,) * tensor.ndim] = 1.0
        miss = float(torch.linalg.vector_norm(core - superdiagonal)) ** 2
    return 100.0 * (1.0 - miss / rank)
