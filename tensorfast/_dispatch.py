"""Which implementation of an operation runs, and why each of the others would not.

An operation owns a list of `Implementation` in a fixed order of preference. `choose` takes, among
those that support the problem, the one with the lowest predicted cost; a problem is plain data
(shapes, types, a device name), so that every decision can be tested without the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Cost",
    "Explanation",
    "Implementation",
    "Problem",
    "choose",
    "explain",
    "register",
    "runner",
]

#: Every name that ``impl=`` may take besides ``"auto"``, fastest kind first.
NAMES = ("cuda", "triton", "cpp", "torch", "reference")

_ABSENT = {
    "cuda": "this installation has no CUDA C++ kernel for it",
    "triton": "this installation has no Triton kernel for it",
    "cpp": "this installation has no compiled CPU kernel for it",
}


@dataclass(frozen=True)
class Problem:
    """What a decision may depend on.

    Attributes
    ----------
    op : str
        Name of the operation.
    shape : tuple of int
        Shape of ``x``; for ``khatri_rao`` the number of rows of every factor.
    dtype : str
        Storage type of ``x``, such as ``"float32"``.
    device : str
        Device type, ``"cpu"`` or ``"cuda"``.
    mode, rank : int
        The mode at hand and the number of columns, where the operation has them.
    precision : str or None
    strides : tuple of int
        Of ``x``; empty where the operation has none.
    capability : int
        Compute capability of a GPU times ten, 0 where it is not known.
    double : bool
        Whether sums are float64 whatever ``dtype`` is.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    mode: int = 0
    rank: int = 0
    precision: str | None = "ieee"
    strides: tuple[int, ...] = ()
    capability: int = 0
    double: bool = False


@dataclass(frozen=True)
class Cost:
    """What an implementation is expected to take.

    Attributes
    ----------
    seconds : float
        Comparable within one operation.
    flops, bytes : float
        Multiplications and additions; traffic with the memory.
    """

    seconds: float
    flops: float
    bytes: float

    def __str__(self) -> str:
        return (
            f"predicted {self.seconds:.2e} s, {self.flops * 1e-9:.3g} GFLOP, "
            f"{self.bytes * 1e-9:.3g} GB"
        )


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    run : callable
        Takes the operation's arguments.
    cost : callable
        `Problem` -> `Cost`; asked only where there is no reason against.
    unsupported_reasons : callable
        `Problem` -> every reason why this implementation cannot serve it; empty if it can.
    """

    name: str
    run: Callable[..., Any]
    cost: Callable[[Problem], Cost]
    unsupported_reasons: Callable[[Problem], list[str]] = lambda problem: []


@dataclass(frozen=True)
class Explanation:
    """The answer of `explain`: the choice, and a line for each implementation.

    Attributes
    ----------
    problem : Problem
    chosen : str
    cost : Cost
        What the chosen one is expected to take.
    reasons : dict of str to tuple of str
        Why each implementation that was not chosen was not.
    """

    problem: Problem
    chosen: str
    cost: Cost
    reasons: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        p = self.problem
        lines = [f"{p.op} of shape {p.shape}, {p.dtype}, {p.device}: {self.chosen}"]
        lines += [f"  {self.chosen:<10} runs; {self.cost}"]
        lines += [f"  {name:<10} {'; '.join(why)}" for name, why in self.reasons.items()]
        return "\n".join(lines)


_registry: dict[str, dict[str, Implementation]] = {}
_problems: dict[str, Callable[..., Problem]] = {}
_methods: dict[str, Callable[..., Any]] = {}


def register(op: str, implementation: Implementation) -> None:
    """Add an implementation of ``op``, or replace the one of the same name."""
    if implementation.name not in NAMES:
        raise ValueError(f"register: name is {implementation.name!r}; expected one of {NAMES}")
    _registry.setdefault(op, {})[implementation.name] = implementation


def describe(op: str, problem: Callable[..., Problem]) -> None:
    """Tell `explain` how ``op``'s public arguments become a `Problem`."""
    _problems[op] = problem


def describe_method(name: str, plan: Callable[..., Any]) -> None:
    """Tell `explain` what a method made of operations would do with its public arguments."""
    _methods[name] = plan


def _reasons(name: str, problem: Problem) -> list[str]:
    implementation = _registry[problem.op].get(name)
    return (
        [_ABSENT[name]] if implementation is None else implementation.unsupported_reasons(problem)
    )


def known(op: str, impl: Any) -> None:
    """Refuse what names no implementation, before torch sees it."""
    if impl != "auto" and impl not in NAMES:
        raise ValueError(f"{op}: impl is {impl!r}; expected 'auto' or one of {NAMES}")


def choose(problem: Problem, impl: str = "auto") -> Implementation:
    """Return the implementation that is to run.

    Raises
    ------
    ValueError
        If ``impl`` is no known name, or names one that cannot serve; with every reason.
    """
    implementations = _registry[problem.op]
    if impl == "auto":
        able = [i for i in implementations.values() if not i.unsupported_reasons(problem)]
        if not able:
            table = "; ".join(f"{n}: {', '.join(_reasons(n, problem))}" for n in NAMES)
            raise TypeError(f"{problem.op}: no implementation serves {problem}: {table}")
        return min(able, key=lambda i: i.cost(problem).seconds)
    known(problem.op, impl)
    reasons = _reasons(impl, problem)
    if reasons:
        raise ValueError(
            f"{problem.op}: impl={impl!r} cannot serve this call: {'; '.join(reasons)}"
        )
    return implementations[impl]


def runner(problem: Problem, impl: str = "auto") -> Callable[..., Any]:
    """Return the function that serves ``problem``."""
    return choose(problem, impl).run


def explain(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Tell which implementation of an operation would run, and why each of the others would not.

    Nothing is computed.

    Parameters
    ----------
    op : str or callable
        ``"mttkrp"`` or ``tensorfast.mttkrp``; likewise ``ttm``, ``khatri_rao``, ``gram``,
        ``cp_als`` and ``hooi``.
    *args, **kwargs
        The arguments that the operation would be called with.

    Returns
    -------
    Explanation
        Prints as a table. Of ``cp_als`` and ``hooi`` a `results.FitPlan`: engine, schedule,
        predicted seconds of a sweep and bytes of workspace.

    Raises
    ------
    ValueError
        If ``op`` is not an operation with implementations to choose from.

    Examples
    --------
    >>> import numpy as np, tensorfast
    >>> x, u = np.ones((4, 5, 6)), [np.ones((n, 2)) for n in (4, 5, 6)]
    >>> tensorfast.explain("mttkrp", x, u, 1).chosen
    'torch'
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", repr(op))
    if name in _methods:
        return _methods[name](*args, **kwargs)
    if name not in _problems:
        known_names = sorted({*_problems, *_methods})
        raise ValueError(f"explain: op is {name!r}; expected one of {known_names}")
    impl = kwargs.pop("impl", "auto")
    problem = _problems[name](*args, **kwargs)
    chosen = choose(problem, impl)
    reasons = {}
    for other in NAMES:
        if other == chosen.name:
            continue
        why = _reasons(other, problem)
        if not why and impl != "auto":
            why = [f"impl={impl!r} was asked for"]
        elif not why:
            why = [f"supported; {_registry[name][other].cost(problem)}"]
        reasons[other] = tuple(why)
    return Explanation(problem, chosen.name, chosen.cost(problem), reasons)
