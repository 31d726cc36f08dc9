"""Calls of the kernels: ours, that of plain torch, the exact result of a sample, what it costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

import tensorfast as tf
from bench.problems import SEED
from tensorfast import baseline
from tensorfast.cp.ahead import als_ahead
from tensorfast.cp.algebra import FusedAlgebra
from tensorfast.cp.als import als
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.update import LeastSquares
from tensorfast.cuda import cp_plan
from tensorfast.kernels import configs, devices, slab_plan
from tensorfast.kernels.plan import Contraction
from tensorfast.ops import norms
from tensorfast.ops.fused import Fused
from tensorfast.reconstruct import cp_residual_norm

#: Indices of a mode at which results are compared.
SAMPLE = 8

#: Sweeps of each of many small fits.
SWEEPS = 20


@dataclass(frozen=True)
class Call:
    """One call of a kernel.

    Attributes
    ----------
    op : str
        ``"mttkrp"``, ``"ttm"``, ``"gram"``, ``"khatri_rao"``, ``"partial"`` or ``"slab"``; two
        whole ``"sweeps"``; the ``"residual"`` of a model; or small ``"fits"``, many at once.
    shape : tuple of int
        Of fits the first size is their number.
    mode, rank : int
        For a slab pass the mode that is cut; the one before it is updated next.
    dtype, precision : str
    """

    op: str
    shape: tuple
    mode: int = 0
    rank: int = 32
    dtype: str = "float32"
    precision: str = "ieee"

    def __str__(self):
        """Name the call, as in tables."""
        shape = "x".join(map(str, self.shape))
        return f"{self.op} {shape} mode {self.mode} R{self.rank} {self.dtype} {self.precision}"

    @property
    def itemsize(self):
        """Bytes of an element of the data."""
        return devices.ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class Made:
    """A call, ready to be made.

    Attributes
    ----------
    ours, rival : callable
        Without arguments. The rival computes the same in plain torch.
    error : callable
        Of a result: its relative error against float64, on a sample, in the Frobenius norm.
    flops, bytes : float
        Flops as they are counted for the kernel; the least traffic with the memory.
    seconds : float or None
        What the plan predicts.
    mode : str
        The arithmetic of the kernel, ``PRECISION``; empty where there is no matrix product.
    """

    ours: Callable
    rival: Callable
    error: Callable
    flops: float
    bytes: float
    seconds: float | None = None
    mode: str = ""


class Maker:
    """Makes calls; it keeps the data of the last one.

    Parameters
    ----------
    device : torch.device
        On a GPU ours are the Triton kernels; elsewhere whatever tensorfast has there.
    """

    def __init__(self, device):
        self._device, self._key, self._x = device, None, None
        self._impl = "triton" if device.type == "cuda" else "auto"

    def make(self, call):
        """Return the call, ready."""
        return getattr(self, f"_{call.op}")(call)

    def _drawn(self, *shape, seed=0):
        generator = torch.Generator(self._device).manual_seed(SEED + seed)
        return torch.randn(shape, generator=generator, device=self._device)

    def _tensor(self, call):
        if self._key != (call.shape, call.dtype):
            self._x = None
            self._x = self._drawn(*call.shape).to(getattr(torch, call.dtype))
            self._key = call.shape, call.dtype
        return self._x

    def _factors(self, call):
        return [self._drawn(n, call.rank, seed=n) for n in call.shape]

    def _arithmetic(self, call, x, kept):
        chip = devices.chip_of(self._device)
        fastest = max(range(x.ndim), key=lambda n: (-x.stride(n), n))
        return configs.arithmetic(call.dtype, call.precision, chip, fastest in kept)

    def _operation(self, call, operation, arguments, kept, sampled, least):
        """Return a call of one of the library's operations."""
        given = {"precision": call.precision}
        told = tf.explain(operation, *arguments, **given, impl=self._impl)
        return Made(
            partial(operation, *arguments, **given, impl=self._impl),
            partial(operation, *arguments, **given, impl="torch"),
            sampled,
            told.cost.flops,
            least,
            told.cost.seconds,
            self._arithmetic(call, arguments[0], kept),
        )

    def _mttkrp(self, call):
        x, factors = self._tensor(call), self._factors(call)
        least = x.numel() * call.itemsize + 4 * call.rank * sum(call.shape)
        error = partial(_error_along, call.mode, _mttkrp_rows(x, factors, call.mode), 0)
        kept = (call.mode,)
        return self._operation(call, tf.mttkrp, (x, factors, call.mode), kept, error, least)

    def _ttm(self, call):
        x, n = self._tensor(call), call.mode
        matrix = self._drawn(call.rank, call.shape[n], seed=1)
        least = call.itemsize * x.numel() + 4 * call.rank * (x.numel() // call.shape[n])
        other = (n + 1) % x.ndim
        part = x.index_select(other, _sample(x, other)).double()
        exact = torch.tensordot(part, matrix.double(), ([n], [1])).movedim(-1, n)
        kept = tuple(m for m in range(x.ndim) if m != n)
        error = partial(_error_along, other, exact, other)
        return self._operation(call, tf.ttm, (x, matrix, n), kept, error, least)

    def _gram(self, call):
        x, n = self._tensor(call), call.mode
        rows = x.index_select(n, _sample(x, n)).double()
        others = [m for m in range(x.ndim) if m != n]
        exact = torch.tensordot(rows, x.double(), (others, others))
        least = call.itemsize * x.numel() + 4 * call.shape[n] ** 2
        error = partial(_error_along, n, exact, 0)
        return self._operation(call, tf.gram, (x, n), (n,), error, least)

    def _khatri_rao(self, call):
        factors = [f.to(getattr(torch, call.dtype)) for f in self._factors(call)]
        exact = baseline.khatri_rao([f.double() for f in factors])
        least = float(call.itemsize * exact.numel())
        told = tf.explain(tf.khatri_rao, factors)
        return Made(
            partial(tf.khatri_rao, factors),
            partial(baseline.khatri_rao, factors),
            partial(_relative, exact),
            float(exact.numel()),
            least,
            told.cost.seconds,
        )

    def _partial(self, call):
        """Contract the mode of a partial result; its columns are the last axis."""
        n = call.mode
        p = self._drawn(*call.shape, call.rank)
        factor = self._factors(call)[n]
        if self._device.type == "cuda":
            from tensorfast.kernels.partial import contract_partial

            ours = partial(contract_partial, p, n, n + 1, [factor])
        else:
            ours = partial(baseline.contract_partial, p, n, n + 1, factor)
        rows = factor.view(*(-1 if m == n else 1 for m in range(len(call.shape))), call.rank)
        exact = (p.double() * rows.double()).sum(n)
        least = 4.0 * (p.numel() + exact.numel())

        def rival():
            return (p * rows).sum(n)

        return Made(ours, rival, partial(_relative, exact), 2.0 * p.numel(), least)

    def _slab(self, call):
        """Two updates in one read, beside two MTTKRPs of plain torch."""
        x, factors, n = self._tensor(call), self._factors(call), call.mode
        after = (n - 1) % x.ndim
        h = self._drawn(call.rank, call.rank, seed=2).double() / call.rank**0.5
        inverse = torch.linalg.inv(h + 4 * torch.eye(call.rank, device=h.device).double())

        def rival():
            product = tf.mttkrp(x, factors, n, precision=call.precision, impl="torch")
            new = (product.double() @ inverse).to(product.dtype)
            given = [new if m == n else f for m, f in enumerate(factors)]
            return new, product, tf.mttkrp(x, given, after, precision=call.precision, impl="torch")

        if self._device.type == "cuda":
            from tensorfast.kernels.slab import slab_pass

            ours = partial(slab_pass, x, factors, n, (after,), inverse, None, call.precision)
        else:
            from tensorfast.cp.slab import slab_pass

            ours = partial(slab_pass, x, factors, n, (after,), lambda m, _: _solved(m, inverse))
        c = Contraction.of(x, (n, after), call.rank, call.precision, devices.chip_of(x.device))
        flops, _, seconds = slab_plan.expected(c)
        least = x.numel() * call.itemsize + 4.0 * call.rank * (sum(call.shape) + call.shape[n])
        error = partial(_slab_error, x, factors, n, after, inverse)
        return Made(ours, rival, error, flops, least, seconds, slab_plan.plan(c).how)

    def _sweeps(self, call):
        """Two sweeps of ALS launched one by one, beside the plain loop in plain torch."""
        x, start = self._tensor(call), self._factors(call)
        cuda = self._device.type == "cuda"
        options = {"n_iter_max": 2, "tol": 0.0, "free": range(x.ndim)}

        def ours():
            if not cuda:
                return _joined(als(DenseOperand(x), start, LeastSquares(), **options))
            fused = Fused(call.precision)
            operand, algebra = DenseOperand(x, fused), FusedAlgebra(fused)
            return _joined(als_ahead(operand, start, algebra, **options))

        def rival(dtype=x.dtype):
            given = [f.to(dtype) for f in start]
            return _joined(als(DenseOperand(x.to(dtype)), given, LeastSquares(), **options))

        flops, least = 4.0 * x.ndim * x.numel() * call.rank, 4.0 * x.numel() * call.itemsize
        return Made(ours, rival, partial(_relative, rival(torch.float64)), flops, least)

    def _residual(self, call):
        """Subtract a model, and add up the squares."""
        x, factors = self._tensor(call), self._factors(call)

        def rival(double=False):
            return x.new_tensor(cp_residual_norm(x, factors, double) ** 2, dtype=torch.float64)

        def ours():
            squared = norms.squared_residual(x, factors)
            return rival() if squared is None else squared

        flops, least = 2.0 * x.numel() * call.rank, float(x.numel() * call.itemsize)
        return Made(ours, rival, partial(_relative, rival(True)), flops, least)

    def _fits(self, call):
        """Fit each of many small tensors, the rival only a few of them."""
        x, (count, *shape) = self._tensor(call), call.shape
        start = [self._drawn(count, n, call.rank, seed=n).to(x.dtype) for n in shape]
        at, options = _sample(x, 0), {"n_iter_max": SWEEPS, "tol": 0.0}

        def rival(dtype=x.dtype):
            found = []
            for i in at.tolist():
                ones = torch.ones(call.rank, dtype=dtype, device=x.device)
                init = ones, [f[i].to(dtype) for f in start]
                own = tf.cp_als(x[i].to(dtype), call.rank, init=init, normalize=False, **options)
                found.append(own.factors)
            return [torch.stack(several) for several in zip(*found, strict=True)]

        def ours():
            if self._device.type != "cuda":
                return rival()
            from tensorfast.cuda.cp_als import cp_als_small

            return cp_als_small(x, start, **options).factors

        def error(found):
            few = [f if len(f) == len(at) else f[at] for f in found]
            return _relative(exact, _models(few))

        exact = _models(rival(torch.float64))
        problem, chip = (shape, call.rank, call.dtype), devices.chip_of(self._device)
        chosen = cp_plan.plan(*problem, cp_plan.blocks_of(*problem, chip))
        seconds = cp_plan.seconds(chosen, count, SWEEPS, chip)
        # Two contractions a sweep, whatever the order; each tensor once, starts and results.
        flops = 4.0 * SWEEPS * x.numel() * call.rank
        least = call.itemsize * (x.numel() + 2.0 * count * sum(shape) * call.rank)
        return Made(ours, rival, error, flops, least, seconds)


def _models(factors):
    """Return the tensors of a batch of models, in float64."""
    letters = "ijklm"[: len(factors)]
    formula = ",".join(f"b{n}r" for n in letters) + f"->b{letters}"
    return torch.einsum(formula, *(f.double() for f in factors))


def _joined(fit):
    """Return all factors of a fit in one."""
    return torch.cat([f.flatten() for f in fit[0]])


def _solved(product, inverse):
    return (product.double() @ inverse).to(product.dtype)


def _sample(x, mode):
    """Return a few indices of a mode, the first and the last among them."""
    size = x.shape[mode]
    at = torch.linspace(0, size - 1, min(SAMPLE, size), dtype=torch.float64)
    return at.round().long().to(x.device)


def _mttkrp_rows(x, factors, mode):
    """Return a few rows of an MTTKRP in float64."""
    part = x.index_select(mode, _sample(x, mode)).double().movedim(mode, 0)
    others = [f.double() for n, f in enumerate(factors) if n != mode]
    # The largest intermediate is that of the last mode, which goes first.
    part = part @ others.pop()
    while others:
        part = (part * others.pop()).sum(-2)
    return part


def _relative(exact, found):
    return float(torch.linalg.norm(found.double() - exact) / torch.linalg.norm(exact))


def _error_along(mode, exact, axis, found):
    """Return the error at the sampled indices of a mode, which is an axis of the result."""
    return _relative(exact, found.index_select(axis, _sample(found, axis)))


def _slab_error(x, factors, mode, after, inverse, found):
    """Return the larger of the errors of both MTTKRPs, the second with the factor that came out."""
    factor, product, second = found
    rows = _error_along(mode, _mttkrp_rows(x, factors, mode), 0, product)
    given = [factor if n == mode else f for n, f in enumerate(factors)]
    solved = _relative(product.double() @ inverse, factor)
    return max(rows, solved, _error_along(after, _mttkrp_rows(x, given, after), 0, second))


def calls(cube=512, small=200, ranks=(32, 64, 16, 128, 256)):
    """Return the calls that are measured, in order of importance.

    Parameters
    ----------
    cube, small : int
        Sides of the tensors.
    ranks : sequence of int

    Returns
    -------
    list of Call
    """
    x, y = (cube,) * 3, (small,) * 3
    # A pass along each mode at two ranks, then everything that a sweep needs besides.
    found = [Call("mttkrp", x, mode, rank) for rank in ranks[:2] for mode in range(3)]
    found += [Call("slab", x, mode, rank) for rank in ranks[:2] for mode in range(3)]
    found += [Call("partial", x[:2], mode, ranks[0]) for mode in range(2)]
    found += [Call("khatri_rao", x[:2], 0, rank) for rank in ranks[:2]]
    found += [Call("mttkrp", x, mode, rank) for rank in ranks[2:] for mode in range(3)]
    found += [Call("gram", x, mode, cube) for mode in range(3)]
    found += [Call("ttm", x, mode, ranks[1]) for mode in range(3)]
    others = [("float32", "tf32"), ("bfloat16", "ieee"), ("bfloat16", "tf32")]
    for dtype, precision in others:
        for rank in ranks:
            about = {"rank": rank, "dtype": dtype, "precision": precision}
            found += [Call("mttkrp", x, mode, **about) for mode in range(3)]
    found += [Call("slab", y, mode, rank) for rank in ranks[:2] for mode in range(3)]
    found += [Call("mttkrp", y, mode, ranks[0]) for mode in range(3)]
    found += [Call("gram", y, 0, small), Call("ttm", y, 0, ranks[0])]
    found += [replace(call, precision="tf32") for call in found if call.op == "slab"]
    return found
