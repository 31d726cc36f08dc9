"""What a CPU has in place of the device's half: the rule, the factorisation, and recordings.

And `report`, the callback by which a fit is compared with that of the plain loop.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tensorfast.cp.stopping import hadamard


def judged(standing, sums):
    """End a sweep as the device does: ``sums`` are `Standing.log`'s three. No number is read."""
    norm, below, floor, tol = standing.limits.unbind()
    inner, model, trace = sums.unbind()
    row = (standing.count % len(standing.log)).view(1)
    standing.log.index_copy_(0, row, sums.view(1, 3))
    scale = torch.where(norm > 0, norm, 1.0)
    squared = (norm - 2 * inner + model) / scale
    cancelling = (trace / scale).clamp(min=1)
    error = squared.clamp(min=0).sqrt()
    attention = ~(squared >= cancelling * below**2 * (1 + 1e-9))
    attention |= ~error.isfinite() | (error < floor * (1 + 1e-9))
    fall = standing.previous - error
    attention |= (tol > 0) & ~(fall >= tol * (1 + 1e-6) + 1e-12)
    active = standing.active.clone()
    standing.count.add_(active)
    standing.previous.copy_(torch.where(active, error, standing.previous))
    standing.active.logical_and_(~attention)


def factorize(grams, l2, least, ridge, active):
    """Do what `kernels.cholesky.factorize` does."""
    h = hadamard(grams) + l2 * torch.eye(len(grams[0]), dtype=grams[0].dtype)
    diagonal, identity, mu = h.diagonal(), torch.eye(len(h), dtype=h.dtype), 0.0
    weight = torch.where(diagonal > 0, diagonal, diagonal.mean() if diagonal.sum() > 0 else 1.0)
    while True:
        shifted = h + torch.diag(mu * weight)
        lower, info = torch.linalg.cholesky_ex(shifted)
        if not info and bool((lower.diagonal() ** 2 > least * shifted.diagonal()).all()):
            break
        mu = 10 * mu if mu else 2 * least
    ridge.fill_(max(float(ridge), mu))
    return torch.linalg.solve_triangular(lower, identity, upper=False), mu * weight


def report(into):
    """Return a callback that notes every sweep, and stops after the seventh."""

    def callback(sweep, error, factors):
        into.append((sweep, error, [f.clone() for f in factors]))
        return sweep == 7

    return callback


class Directly:
    """Records nothing: a replay makes the sweep."""

    def __init__(self, step):
        self.replay = step


class Recorder:
    """Records like a CUDA graph: what is recorded is not done, and done again by a replay."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, step):
        self.recorded += 1
        return Directly(step)


class Tape(TorchDispatchMode):
    """What torch does on a CPU, recorded as a CUDA graph records it.

    A replay reads and writes the very memory of the recording, whatever is in it by then; nothing
    that the recording itself has written is left; and a number cannot be read.
    """

    def __init__(self, step):
        super().__init__()
        self._calls, self._before = [], {}
        with self:
            step()
        for tensor, kept in self._before.values():
            tensor.copy_(kept)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info and argument.alias_info.is_write:
                given = args[place] if place < len(args) else kwargs[argument.name]
                # All of the memory behind it, once.
                whole = torch.empty(0, dtype=given.dtype).set_(given.untyped_storage())
                self._before.setdefault(whole.data_ptr(), (whole, whole.clone()))
        out = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, out))
        return out

    @torch.inference_mode()
    def replay(self):
        # A graph knows of no mode: here everything may be written.
        for func, args, kwargs, out in self._calls:
            again = func(*args, **kwargs)
            for there, now in zip(_tensors(out), _tensors(again), strict=True):
                if there.untyped_storage().data_ptr() != now.untyped_storage().data_ptr():
                    there.copy_(now)


def _tensors(out):
    return [t for t in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(t)]
