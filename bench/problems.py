"""The named problems: a planted low-rank model plus noise, and the start that all share."""

from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import torch

SEED = 20260101
NOISE = 0.1
# Functions of TensorLy whose planted factors and starts have no negative entry.
NON_NEGATIVE = ("non_negative_parafac_hals", "constrained_parafac")
# Kinds of problems that come with a start.
STARTED = ("cp", "batched", "parafac", *NON_NEGATIVE, "tucker")


class Data(NamedTuple):
    """The tensor of a problem and the initial factors, if all have the same; of a batch, stacks."""

    x: torch.Tensor
    start: list


@dataclass(frozen=True)
class Problem:
    """One tensor to decompose, the same bits for every implementation.

    Parameters
    ----------
    name : str
        What tables and command lines call it.
    kind : str
        ``"cp"``, ``"hooi"`` or ``"sthosvd"``; ``"batched"`` for CP or HOOI of many tensors, by the
        rank; ``"spectrum"`` for a loss of embeddings; or the function of TensorLy that is given it.
    shape : tuple of int
    rank : int or tuple of int
        An int for CP and embeddings, one int per mode for Tucker and HOOI.
    sweeps : int
        Sweeps every implementation runs; 1 for ST-HOSVD, which has none; steps, forward and
        backward, for embeddings.
    tier : str
        ``"large"`` (a sweep is bandwidth and arithmetic) or ``"tiny"`` (a sweep is overhead).
    dtype : torch.dtype
    noise : float
        Norm of the noise over the norm of the planted model.
    seed : int
    count : int
        Tensors of this shape; more than one only for ``"batched"``.
    """

    name: str
    kind: str
    shape: tuple
    rank: int | tuple
    sweeps: int
    tier: str = "large"
    dtype: torch.dtype = torch.float32
    noise: float = NOISE
    seed: int = SEED
    count: int = 1

    @property
    def itemsize(self):
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self):
        """Bytes of the tensor, or of all of them."""
        return self.count * prod(self.shape) * self.itemsize

    def build(self, device="cpu"):
        """Build the tensor and the start, from the seed alone.

        A start is Gaussian, independent of the planted factors.

        Parameters
        ----------
        device : torch.device or str
            Where they are drawn and stay; other kinds of device draw other numbers.

        Returns
        -------
        Data
            ``x``, C-contiguous, and ``start``: the initial factors for CP, orthonormal ones for
            TensorLy's `tucker`, empty for the others.
        """
        generator = torch.Generator(device).manual_seed(self.seed)
        if self.kind == "batched":
            each = [self._built(generator) for _ in range(self.count)]
            starts = zip(*(one.start for one in each), strict=True)
            return Data(torch.stack([one.x for one in each]), [torch.stack(f) for f in starts])
        return self._built(generator)

    def _built(self, generator):
        planted = _planted_cp if isinstance(self.rank, int) else _planted_tucker
        first, rest, norm = planted(self, generator)
        sigma = self.noise * norm / prod(self.shape) ** 0.5
        x = torch.empty(self.shape, dtype=self.dtype, device=generator.device)
        rows = max(1, 2**22 // rest.shape[1])
        for slab, part in zip(x.split(rows), first.split(rows), strict=True):
            noise = _gaussian(slab.shape, generator, self.dtype)
            slab.copy_((part @ rest).view(slab.shape).add_(noise, alpha=sigma))
        start = []
        if self.kind in STARTED:
            start = _factors(self, generator)
        return Data(x, start)


def _gaussian(shape, generator, dtype):
    return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)


def _factors(problem, generator):
    cp = isinstance(problem.rank, int)
    ranks = [problem.rank] * len(problem.shape) if cp else problem.rank
    sizes = zip(problem.shape, ranks, strict=True)
    factors = [_gaussian(size, generator, problem.dtype) for size in sizes]
    if problem.kind in NON_NEGATIVE:
        factors = [f.abs_() for f in factors]
    return factors if cp else [torch.linalg.qr(f)[0] for f in factors]


def _planted_cp(problem, generator):
    """Return ``A``, ``khatri_rao(B, C, ...).T`` and the norm of their product."""
    factors = _factors(problem, generator)
    rest = factors[1]
    for factor in factors[2:]:
        rest = (rest[:, None, :] * factor[None, :, :]).reshape(-1, problem.rank)
    grams = torch.stack([f.double().T @ f.double() for f in factors])
    return factors[0], rest.T, float(grams.prod(0).sum().sqrt())


def _planted_tucker(problem, generator):
    """Return the first factor, the core times all the others, and the norm of their product."""
    core = _gaussian(problem.rank, generator, problem.dtype)
    factors = _factors(problem, generator)
    rest = core
    for mode, factor in enumerate(factors[1:], start=1):
        rest = torch.tensordot(factor, rest, dims=([1], [mode])).movedim(0, mode)
    return factors[0], rest.reshape(problem.rank[0], -1), float(core.double().norm())


def _cp(name, shape, rank, sweeps=10, tier="large"):
    return Problem(f"{name}-R{rank}", "cp", shape, rank, sweeps, tier)


CP = (
    _cp("200^3", (200,) * 3, 16),
    _cp("200^3", (200,) * 3, 64),
    _cp("400^3", (400,) * 3, 16),
    _cp("400^3", (400,) * 3, 64),
    _cp("64^4", (64,) * 4, 16),
    _cp("64^4", (64,) * 4, 64),
    _cp("1000x200x50", (1000, 200, 50), 32),
    _cp("24^5", (24,) * 5, 16),
    _cp("10^3", (10,) * 3, 3, sweeps=200, tier="tiny"),
    _cp("16^3", (16,) * 3, 8, sweeps=200, tier="tiny"),
    _cp("30x40x50", (30, 40, 50), 5, sweeps=200, tier="tiny"),
)
TUCKER = (
    Problem("HOOI-200^3-20^3", "hooi", (200,) * 3, (20,) * 3, sweeps=10),
    Problem("STHOSVD-200^3-20^3", "sthosvd", (200,) * 3, (20,) * 3, sweeps=1),
)
BATCHED = (
    Problem("1000x16^3-R8", "batched", (16,) * 3, 8, sweeps=50, count=1000),
    Problem("1000x16^3-4^3", "batched", (16,) * 3, (4,) * 3, sweeps=10, count=1000),
)
EMBEDDINGS = tuple(
    Problem(f"spectrum-{n}x{d}", "spectrum", (n, d), d, sweeps)
    for n, d, sweeps in ((128, 10, 200), (1024, 64, 10), (4096, 256, 1))
)
TENSORLY = (
    *(replace(p, name=f"parafac {p.name}", kind="parafac") for p in CP),
    # What NumPy's users have unless they ask for another type.
    *(
        replace(p, name=f"parafac {p.name} float64", kind="parafac", dtype=torch.float64)
        for p in CP
        if p.name in ("200^3-R16", "64^4-R16")
    ),
    *(
        Problem(f"{function} {name}", function, shape, 16, sweeps=10)
        for function in NON_NEGATIVE
        for name, shape in (("200^3-R16", (200,) * 3), ("64^4-R16", (64,) * 4))
    ),
    Problem("tucker 200^3-20^3", "tucker", (200,) * 3, (20,) * 3, sweeps=10),
    Problem("tucker 64^4-10^4", "tucker", (64,) * 4, (10,) * 4, sweeps=10),
)
MEMORY = tuple(p for p in CP if p.name == "400^3-R16")
WARM_UP = Problem("warm-up", "cp", (30, 40, 50), 5, sweeps=2, tier="tiny")


def by_name(name):
    """Return the problem called `name`.

    Parameters
    ----------
    name : str

    Returns
    -------
    Problem

    Raises
    ------
    KeyError
        When no problem has that name.
    """
    everything = (*CP, *TUCKER, *BATCHED, *EMBEDDINGS, *TENSORLY)
    for problem in everything:
        if problem.name == name:
            return problem
    known = ", ".join(p.name for p in everything)
    raise KeyError(f"by_name: no problem is called {name!r}; the names are {known}")
