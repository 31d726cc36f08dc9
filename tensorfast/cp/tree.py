"""The contractions of one run, laid out once: which modes go when, down to each MTTKRP."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .. import baseline
from .schedule import Run, split

__all__ = ["Contraction", "Node", "Products", "contraction_tree"]


#: Contracts axes ``lo ... hi-1`` of a partial result with the factors given.
ContractPartial = Callable[[Tensor, int, int, Sequence[Tensor]], Tensor]


class Products(Protocol):
    """What contracts: `tensorfast.baseline`, or who does the same by another library."""

    def contract_data(
        self, x: Tensor, lo: int, hi: int, k: Tensor, room: Tensor | None = None, /
    ) -> Tensor:
        """Contract axes of the tensor with the rows of ``k``, whose columns come last."""
        ...

    def contract_partial(self, p: Tensor, lo: int, hi: int, k: Tensor, /) -> Tensor:
        """Contract axes of a partial result with the rows of ``k``, column by column."""
        ...

    def contract_sides(
        self, x: Tensor, lo: int, hi: int, k_left: Tensor, k_right: Tensor, /
    ) -> Tensor:
        """Contract all axes before ``lo`` and from ``hi`` on."""
        ...

    def khatri_rao(self, factors: Sequence[Tensor], /) -> Tensor:
        """Columnwise Kronecker product, to multiply partial results by."""
        ...

    def khatri_rao_operand(self, factors: Sequence[Tensor], x: Tensor, /) -> Tensor:
        """Return the same to multiply the tensor ``x`` by."""
        ...


def _by(products: Products) -> ContractPartial:
    def contract(p: Tensor, lo: int, hi: int, factors: Sequence[Tensor]) -> Tensor:
        return products.contract_partial(p, lo, hi, products.khatri_rao(_conjugates(factors)))

    return contract


_in_torch = _by(baseline)


def _conjugates(matrices: Sequence[Tensor]) -> Sequence[Tensor]:
    return [baseline.conjugate(m) for m in matrices] if matrices[0].is_complex() else matrices


@dataclass(frozen=True)
class Contraction:
    """Axes ``lo ... hi-1`` of what is at hand, contracted with the factors of ``modes``."""

    lo: int
    hi: int
    modes: tuple[int, ...]

    def given(self, factors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the conjugate factors of these modes."""
        return _conjugates([factors[mode] for mode in self.modes])


@dataclass(frozen=True)
class Node:
    """A partial result: how it comes from the one above, and what lies below.

    Attributes
    ----------
    run : tuple of int
        Modes that are left, in update order.
    contractions : tuple of Contraction
        To be done one after another on the result above, the longest first.
    sides : tuple of Contraction or None
        Where exactly both ends of the axes are contracted, the two of them as axes of the result
        above.
    halves : tuple of Node
        The two halves of the run; none below a single mode.
    room : int
        Elements, for one column, of the first contraction's result; 0 where that is all there is,
        an MTTKRP.
    """

    run: Run
    contractions: tuple[Contraction, ...]
    sides: tuple[Contraction, Contraction] | None
    halves: tuple[Node, ...]
    room: int

    def from_partial(
        self, above: Tensor, factors: Sequence[Tensor], contract: ContractPartial = _in_torch
    ) -> Tensor:
        """Contract the partial result above."""
        for step in self.contractions:
            above = contract(above, step.lo, step.hi, [factors[mode] for mode in step.modes])
        return above

    def from_data(
        self,
        x: Tensor,
        factors: Sequence[Tensor],
        room: Tensor | None = None,
        by: Products = baseline,
    ) -> Tensor:
        """Contract the tensor itself; a first result that is no MTTKRP may lie in ``room``."""
        if self.sides is not None:
            left, right = self.sides
            matrices = (by.khatri_rao(side.given(factors)) for side in self.sides)
            return by.contract_sides(x, left.hi, right.lo, *matrices)
        first, *others = self.contractions
        room = room if self.room else None
        operand = by.khatri_rao_operand(first.given(factors), x)
        partial = by.contract_data(x, first.lo, first.hi, operand, room)
        for step in others:
            matrix = by.khatri_rao(step.given(factors))
            partial = by.contract_partial(partial, step.lo, step.hi, matrix)
        return partial

    def contract(
        self,
        x: Tensor,
        factors: Sequence[Tensor],
        room: Tensor | None = None,
        by: Products = baseline,
    ) -> Iterator[tuple[int, Tensor]]:
        """Contract the tensor now, and return what yields the MTTKRPs, with no hold on it."""
        return self.mttkrps(self.from_data(x, factors, room, by), factors, _by(by))

    def mttkrps(
        self, partial: Tensor, factors: Sequence[Tensor], contract: ContractPartial = _in_torch
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(mode, mttkrp)`` in update order; the caller updates factors in between."""
        if not self.halves:
            yield self.run[0], partial
            return
        for half in self.halves:
            # Without a name, so that it is gone when the other half is made.
            yield from half.mttkrps(
                half.from_partial(partial, factors, contract), factors, contract
            )


def contraction_tree(axes: Sequence[int], run: Run, sizes: Sequence[int]) -> Node:
    """Lay out the contractions from ``axes`` (modes in memory order) to those of ``run``."""
    kept = [mode for mode in axes if mode in run]
    stretches = _stretches(axes, set(run))
    halves: tuple[Node, ...] = ()
    if len(run) > 1:
        halves = tuple(contraction_tree(kept, half, sizes) for half in split(run, sizes))
    ends = [s for s in stretches if s.lo == 0 or s.hi == len(axes)]
    sides = (ends[0], ends[1]) if len(ends) == len(stretches) == 2 else None
    steps = _one_after_another(axes, stretches, sizes)
    first_result = [sizes[mode] for mode in axes if mode not in steps[0].modes]
    room = 0 if sides or len(first_result) == 1 else math.prod(first_result)
    return Node(run, steps, sides, halves, room)


def _stretches(axes: Sequence[int], kept: set[int]) -> list[Contraction]:
    """Maximal stretches of neighbouring axes whose modes are not kept."""
    out: list[Contraction] = []
    for at, mode in enumerate(axes):
        if mode in kept:
            continue
        if out and out[-1].hi == at:
            out[-1] = Contraction(out[-1].lo, at + 1, (*out[-1].modes, mode))
        else:
            out.append(Contraction(at, at + 1, (mode,)))
    return out


def _one_after_another(
    axes: Sequence[int], stretches: Sequence[Contraction], sizes: Sequence[int]
) -> tuple[Contraction, ...]:
    """Order stretches by what they take away, and number their axes as they will then be."""
    left, out = list(axes), []
    for stretch in sorted(stretches, key=lambda s: -math.prod(sizes[m] for m in s.modes)):
        lo = left.index(stretch.modes[0])
        hi = lo + len(stretch.modes)
        out.append(Contraction(lo, hi, stretch.modes))
        del left[lo:hi]
    return tuple(out)
