"""Cuts of a tensor: every element once, and pieces of a bounded size and no needless thinness."""

import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from tensorfast import baseline, blocks

SHAPES = st.lists(st.integers(0, 9), min_size=0, max_size=5).map(tuple)


@hypothesis.settings(max_examples=100)
@hypothesis.given(shape=SHAPES, elements=st.integers(1, 200))
def test_boxes_hold_every_element_once_and_no_more_than_asked(shape, elements):
    seen = torch.zeros(shape)
    for box in blocks.boxes(shape, elements):
        assert 0 < seen[box].numel() <= elements
        seen[box] += 1
    assert torch.equal(seen, torch.ones(shape))


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        pytest.param((1000, 1000), (1000, 1000), id="whole"),
        pytest.param((400, 400, 400), (50, 50, 400), id="fast mode whole"),
        pytest.param((1, 3000, 3000), (1, 188, 3000), id="one entry in the slowest mode"),
        pytest.param((4, 4, 1_000_000), (4, 4, 62_500), id="short slow modes"),
        pytest.param((100, 100, 100, 50), (13, 25, 50, 50), id="none short"),
        pytest.param((40, 40, 40, 40, 40), (10, 10, 10, 20, 40), id="five modes"),
    ],
)
def test_boxes_are_thin_in_no_mode(shape, sides):
    first = next(blocks.boxes(shape, 1 << 20))
    assert tuple(cut.stop for cut in first) == sides


@pytest.mark.parametrize("by", ["rows", "columns"])
def test_rows_in_a_box_are_those_of_the_factors_in_it(by):
    shape = (5, 4, 3)
    factors = [torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) for n in shape]
    product = baseline.khatri_rao(factors)
    whole = product if by == "rows" else product.t().contiguous().t()
    for box in blocks.boxes(shape, 7):
        part = baseline.khatri_rao([f[cut] for f, cut in zip(factors, box, strict=True)])
        assert torch.equal(blocks.rows_in(whole, shape, box), part)


@pytest.mark.parametrize(
    ("shape", "keep", "axis"),
    [
        ((40, 40, 40), None, 0),
        ((40, 40, 40), 0, 1),
        ((2, 40, 41), None, 1),
        ((9, 40, 41), 1, 2),
        ((2, 900, 3), 1, 2),
        ((1, 1, 7), None, 0),
        ((0, 5, 0), 0, 1),
    ],
)
def test_a_slab_is_cut_along_a_slow_mode_that_is_long_enough(shape, keep, axis):
    x = torch.empty(shape)
    chosen, thickness = blocks.cut(x, 100, keep)
    assert chosen == axis
    assert thickness >= 1
    assert sum(part.shape[axis] for part in x.split(thickness, axis)) == shape[axis]
    whole_rows = x.numel() // max(1, shape[axis])
    assert x.split(thickness, axis)[0].numel() <= max(200, whole_rows)


def test_the_two_sides_are_as_short_as_can_be():
    for shape in [(16, 1000, 1000), (1000, 1000, 16), (3, 4), (2, 3, 4, 5, 6), (1, 1, 1)]:
        lengths = [math.prod(shape[:c]) + math.prod(shape[c:]) for c in range(1, len(shape))]
        assert lengths[blocks.middle(shape) - 1] == min(lengths)
    assert blocks.middle((7,)) == 1
