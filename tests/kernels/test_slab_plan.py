"""What the plans of slab passes promise, over problems drawn at random: none of it needs a GPU."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorfast.kernels import plan as contractions
from tensorfast.kernels.configs import Setting, invalid
from tensorfast.kernels.devices import CHIPS, ITEMSIZE
from tensorfast.kernels.plan import Contraction
from tensorfast.kernels.slab_plan import LOAD, candidates, expected, plan

H200 = CHIPS[90]


def dense(shape, order=None):
    """Strides of a tensor without gaps, its modes in memory in the order given."""
    strides, step = [0] * len(shape), 1
    for n in reversed(order or range(len(shape))):
        strides[n] = step
        step *= shape[n]
    return tuple(strides)


@st.composite
def problems(draw):
    shape = tuple(draw(st.lists(st.integers(1, 300), min_size=3, max_size=5)))
    mode, *others = draw(st.permutations(range(len(shape))))
    group = tuple(others[: draw(st.integers(1, len(others) - 1))])
    strides = dense(shape, draw(st.permutations(range(len(shape)))))
    rank, dtype = draw(st.integers(1, 512)), draw(st.sampled_from(list(ITEMSIZE)))
    precision = draw(st.sampled_from(["ieee", "tf32", "bf16"]))
    chip = draw(st.sampled_from(list(CHIPS.values())))
    return Contraction(shape, strides, (mode, *group), rank, dtype, precision, chip)


@given(problems())
@settings(max_examples=300, deadline=None)
def test_a_plan_does_every_slab_once(c):
    p, (mode, *group), strides = plan(c), c.kept, c.strides
    assert sorted((mode, *p.group, *p.inner)) == list(range(len(c.shape)))
    assert set(p.group) == set(group)
    for modes in (p.group, p.inner):
        assert [strides[n] for n in modes] == sorted((strides[n] for n in modes), reverse=True)
    # Every program has slabs to do, or its Z would never be written.
    batches = -(-c.shape[mode] // p.together)
    assert 1 <= p.programs <= batches
    assert p.stretch % p.tile.block_k == 0
    assert p.tile.block_m % p.together == 0
    assert p.tile.block_r % p.block_s == 0
    assert p.together == (LOAD // ITEMSIZE[c.dtype] if p.contiguous == "slabs" else 1)
    setting = Setting.of(p.tile.block_m, c.rank, p.how, ITEMSIZE[c.dtype], "inner", 2)
    assert invalid(p.tile, setting, c.chip) == []


@given(problems())
@settings(max_examples=300, deadline=None)
def test_a_plan_is_the_quickest_and_costs_what_it_moves(c):
    p = plan(c)
    assert p.seconds == min(way.seconds for way in candidates(c))
    flops, nbytes, seconds = expected(c)
    assert flops >= 2 * math.prod(c.shape) * c.rank
    kept = math.prod(c.shape[n] for n in c.kept)
    wide, size = max(4, ITEMSIZE[c.dtype]), math.prod(c.shape) * ITEMSIZE[c.dtype]
    assert nbytes >= size
    # At worst Y and Z go through memory for every stretch and every slab.
    stretches = math.ceil(math.prod(c.shape) / kept / p.stretch)
    assert nbytes <= size + 2 * (stretches + 4) * kept * c.rank * wide
    assert seconds >= nbytes / c.chip.bandwidth


@pytest.mark.parametrize("side", [512, 1024])
@pytest.mark.parametrize("rank", [16, 32, 64])
def test_a_pass_reads_large_tensors_once_in_less_time_than_two_contractions(side, rank):
    shape = (side,) * 3
    for mode, other in itertools.permutations(range(3), 2):
        c = Contraction(shape, dense(shape), (mode, other), rank, "float32", "ieee", H200)
        _, nbytes, seconds = expected(c)
        assert nbytes <= 1.25 * 4 * math.prod(shape)
        if mode < 2:
            assert nbytes <= 1.15 * 4 * math.prod(shape)
        assert seconds < 0.75 * two_contractions(c)


def two_contractions(c):
    """Seconds of the MTTKRPs that a pass replaces."""
    return sum(contractions.expected(replace(c, kept=(n,)))[2] for n in c.kept)


def test_it_is_told_where_a_pass_does_not_pay():
    # Fewer slabs than half the multiprocessors; a partial result that no cache holds.
    for shape, kept in [((20, 800, 800), (0, 1)), ((128, 128, 128, 128), (0, 1, 2))]:
        c = Contraction(shape, dense(shape), kept, 32, "float32", "ieee", H200)
        assert expected(c)[2] > two_contractions(c)


def test_programs_are_balanced():
    # All 200 slabs at once, two on some multiprocessors; 128 or 256 programs with equal shares.
    for side, rank, programs in [(200, 16, 200), (512, 16, 256), (512, 64, 128), (1024, 64, 128)]:
        shape = (side,) * 3
        p = plan(Contraction(shape, dense(shape), (0, 1), rank, "float32", "ieee", H200))
        assert p.programs == programs
