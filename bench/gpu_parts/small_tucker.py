"""Tucker decompositions of many small tensors as calls: a thread block each, beside one by one."""

import torch

import tensorfast as tf
from tensorfast.cuda import tucker_plan
from tensorfast.kernels import devices

#: Sweeps of each iteration.
SWEEPS = 10


def decompositions(op, x, rank, at):
    """Return what a call of a kernel is made of, by the names of `calls.Made`.

    Parameters
    ----------
    op : str
        ``"sthosvd_small"`` or ``"hooi_small"``.
    x : torch.Tensor
    rank : int
        Of all modes, or their length where that is less.
    at : torch.Tensor
        The few tensors that the rival decomposes, and that are compared.

    Returns
    -------
    dict
    """
    count, shape = len(x), tuple(x.shape[1:])
    ranks = tuple(min(rank, size) for size in shape)
    dtype = str(x.dtype).removeprefix("torch.")
    iterates = op == "hooi_small"

    def rival(given=x):
        found = []
        for i in at.tolist():
            model = tf.sthosvd(given[i], ranks)
            if iterates:
                model = tf.hooi(given[i], ranks, init=model, n_iter_max=SWEEPS, tol=0.0)
            found.append((model.core, *model.factors))
        return [torch.stack(several) for several in zip(*found, strict=True)]

    def ours():
        if not x.is_cuda:
            return rival()
        from tensorfast.cuda.tucker import hooi_small, sthosvd_small

        if iterates:
            found = hooi_small(x, ranks, n_iter_max=SWEEPS, tol=0.0)
        else:
            found = sthosvd_small(x, ranks)
        return [found.core, *found.factors]

    few = x[at].double()
    exact = _distances(few, rival(x.double()))

    def error(found):
        found = [t if len(t) == len(at) else t[at] for t in found]
        return float((_distances(few, found) - exact).abs().max())

    chosen = tucker_plan.plan(shape, ranks, dtype, kernel=op)
    chip = devices.chip_of(x.device)
    seconds = tucker_plan.seconds(chosen, count, chip, SWEEPS if iterates else 1)
    kept = sum(s * r for s, r in zip(shape, ranks, strict=True)) + torch.Size(ranks).numel()
    return {
        "ours": ours,
        "rival": rival,
        "error": error,
        "flops": count * tucker_plan.flops(chosen, SWEEPS if iterates else 1),
        "bytes": float(x.element_size() * (x.numel() + count * kept)),
        "seconds": seconds,
    }


def _distances(x, model):
    """Return the relative errors of a batch of models: stationary, where subspaces are not."""
    core, *factors = (t.double() for t in model)
    for n, factor in enumerate(factors):
        rows = core.movedim(n + 1, -1) @ factor.mT.reshape(
            len(x), *[1] * (x.ndim - 3), factor.shape[2], factor.shape[1]
        )
        core = rows.movedim(-1, n + 1)
    return (x - core).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
