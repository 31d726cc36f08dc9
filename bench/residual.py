"""The one residual by which every implementation is judged: exact, in float64, in slabs.

It shares no code with tensorfast or with a rival and never uses the expanded form
``||X||^2 - 2 <X, M> + ||M||^2``, which loses its digits.
"""

import torch

SLAB = 2**22


def relative_error(x, head, factors):
    """Return ``||X - M|| / ||X||`` for a CP or a Tucker model M.

    Parameters
    ----------
    x : Tensor or ndarray, shape (I_0, ..., I_{N-1})
        Any real dtype, on any device, where the work is done; it is widened to float64 a slab at a
        time.
    head : Tensor or ndarray
        The weights ``(R,)`` of a CP model, or the core of a Tucker model.
    factors : list of Tensor or ndarray
        ``factors[n]`` of shape ``(I_n, R)`` or ``(I_n, R_n)``.

    Returns
    -------
    float
    """
    x = torch.as_tensor(x)
    head, *factors = (torch.as_tensor(t).to(x.device, torch.float64) for t in (head, *factors))
    first, rest = (_cp if head.ndim == 1 else _tucker)(head, factors)
    rows = max(1, SLAB // rest.shape[1])
    residual, total = torch.zeros(2, dtype=torch.float64, device=x.device)
    for begin in range(0, x.shape[0], rows):
        slab = x[begin : begin + rows].to(torch.float64).reshape(-1, rest.shape[1])
        total += slab.square().sum()
        residual += (slab - first[begin : begin + rows] @ rest).square().sum()
    return float((residual / total).sqrt())


def _cp(weights, factors):
    """Split the model into ``A * weights`` and the transposed Khatri-Rao product of the rest."""
    rest = factors[1]
    for factor in factors[2:]:
        rest = (rest[:, None, :] * factor[None, :, :]).reshape(-1, len(weights))
    return factors[0] * weights, rest.T


def _tucker(core, factors):
    """Split the model into the first factor and the core times all the others."""
    rest = core
    for mode, factor in enumerate(factors[1:], start=1):
        rest = torch.tensordot(factor, rest, dims=([1], [mode])).movedim(0, mode)
    return factors[0], rest.reshape(core.shape[0], -1)
