"""What the plans of slab passes promise, over problems drawn at random: none of it needs a GPU."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorfast.kernels import plan as contractions
from tensorfast.kernels.configs import Setting, invalid
from tensorfast.kernels.devices import CHIPS, ITEMSIZE
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
    return shape, strides, mode, group, rank, dtype, precision, chip


@given(problems())
@settings(max_examples=300, deadline=None)
def test_a_plan_does_every_slab_once(problem):
    shape, strides, mode, group, rank, dtype, _, chip = problem
    p = plan(*problem)
    assert sorted((mode, *p.group, *p.inner)) == list(range(len(shape)))
    assert set(p.group) == set(group)
    for modes in (p.group, p.inner):
        assert [strides[n] for n in modes] == sorted((strides[n] for n in modes), reverse=True)
    # Every program has slabs to do, or its Z would never be written.
    batches = -(-shape[mode] // p.together)
    assert 1 <= p.programs <= batches
    assert p.stretch % p.tile.block_k == 0
    assert p.tile.block_m % p.together == 0
    assert p.tile.block_r % p.block_s == 0
    assert p.together == (LOAD // ITEMSIZE[dtype] if p.contiguous == "slabs" else 1)
    setting = Setting.of(p.tile.block_m, rank, p.how, ITEMSIZE[dtype], "inner", 2)
    assert invalid(p.tile, setting, chip) == []


@given(problems())
@settings(max_examples=300, deadline=None)
def test_a_plan_is_the_quickest_and_costs_what_it_moves(problem):
    shape, _, mode, group, rank, dtype, _, chip = problem
    p = plan(*problem)
    assert p.seconds == min(way.seconds for way in candidates(*problem))
    flops, nbytes, seconds = expected(*problem)
    assert flops >= 2 * math.prod(shape) * rank
    kept = math.prod(shape[n] for n in (mode, *group))
    wide, size = max(4, ITEMSIZE[dtype]), math.prod(shape) * ITEMSIZE[dtype]
    assert nbytes >= size
    # At worst Y and Z go through memory for every stretch and every slab.
    stretches = math.ceil(math.prod(shape) / kept / p.stretch)
    assert nbytes <= size + 2 * (stretches + 4) * kept * rank * wide
    assert seconds >= nbytes / chip.bandwidth


@pytest.mark.parametrize("side", [512, 1024])
@pytest.mark.parametrize("rank", [16, 32, 64])
def test_a_pass_reads_large_tensors_once_in_less_time_than_two_contractions(side, rank):
    shape = (side,) * 3
    for mode, other in itertools.permutations(range(3), 2):
        problem = shape, dense(shape), mode, (other,), rank, "float32", "ieee", H200
        _, nbytes, seconds = expected(*problem)
        assert nbytes <= 1.25 * 4 * math.prod(shape)
        if mode < 2:
            assert nbytes <= 1.15 * 4 * math.prod(shape)
        assert seconds < 0.75 * two_contractions(*problem)


def two_contractions(shape, strides, mode, group, *rest):
    """Seconds of the MTTKRPs that a pass replaces."""
    return sum(contractions.expected(shape, strides, (n,), *rest)[2] for n in (mode, *group))


def test_it_is_told_where_a_pass_does_not_pay():
    # Fewer slabs than half the multiprocessors; a partial result that no cache holds.
    for shape, mode, group in [((20, 800, 800), 0, (1,)), ((128, 128, 128, 128), 0, (1, 2))]:
        problem = shape, dense(shape), mode, group, 32, "float32", "ieee", H200
        assert expected(*problem)[2] > two_contractions(*problem)


def test_programs_are_balanced():
    # All 200 slabs at once, two on some multiprocessors; 128 or 256 programs with equal shares.
    for side, rank, programs in [(200, 16, 200), (512, 16, 256), (512, 64, 128), (1024, 64, 128)]:
        shape = (side,) * 3
        p = plan(shape, dense(shape), 0, (1,), rank, "float32", "ieee", H200)
        assert p.programs == programs
