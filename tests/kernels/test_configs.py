"""What the kernels' decisions promise, over problems drawn at random: none of it needs a GPU."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorfast.kernels import configs
from tensorfast.kernels.configs import Setting, Tile, arithmetic, invalid, tiles_for
from tensorfast.kernels.devices import CHIPS, IN_CACHE, ITEMSIZE, chip_like
from tensorfast.kernels.indexing import alignment, merged, span
from tensorfast.kernels.plan import PARTIALS, STEPS, Contraction, candidates, expected, plan

CHIP = CHIPS[90]
chips = st.sampled_from(list(CHIPS.values()))
dtypes = st.sampled_from(list(ITEMSIZE))
precisions = st.sampled_from(["ieee", "tf32", "bf16"])
ranks = st.integers(1, 512)


@st.composite
def layouts(draw):
    """Shape and strides of a tensor of any order whose memory is dense, or has gaps."""
    shape = draw(st.lists(st.integers(1, 300), min_size=2, max_size=8))
    order = draw(st.permutations(range(len(shape))))
    strides, step = [0] * len(shape), draw(st.sampled_from([1, 1, 2, 4]))
    for n in order:
        strides[n] = step
        step *= shape[n] * draw(st.sampled_from([1, 1, 1, 2]))
    return tuple(shape), tuple(strides)


@st.composite
def problems(draw):
    shape, strides = draw(layouts())
    kept = draw(st.sets(st.sampled_from(range(len(shape))), max_size=len(shape) - 1))
    arguments = draw(st.tuples(ranks, dtypes, precisions, chips))
    return Contraction(shape, strides, tuple(sorted(kept)), *arguments)


@given(problems())
@settings(max_examples=300, deadline=None)
def test_a_plan_does_every_term_once(c):
    p = plan(c)
    assert sorted(p.kept + p.outer + p.inner) == list(range(len(c.shape)))
    assert set(p.kept) == set(c.kept)
    rows, outer, inner = (math.prod(c.shape[n] for n in g) for g in (p.kept, p.outer, p.inner))
    k_blocks = -(-inner // p.tile.block_k)
    steps, at_once = (outer, k_blocks) if p.sweep == "outer" else (k_blocks, 1)
    assert bool(p.outer) == (p.sweep == "outer")
    # Every step belongs to one split, and none is empty.
    assert (p.splits // at_once - 1) * p.per_split < steps <= p.splits // at_once * p.per_split
    assert p.splits % at_once == 0
    blocks = -(-rows // p.tile.block_m) * -(-c.rank // p.tile.block_r)
    assert p.programs == blocks * p.splits


@given(problems())
@settings(max_examples=300, deadline=None)
def test_a_plan_is_the_quickest_that_keeps_sums_short(c):
    p, ways = plan(c), list(candidates(c))
    assert p in ways
    short = [way for way in ways if way.per_split <= STEPS]
    assert p.seconds == min(way.seconds for way in (short or ways))
    assert p.per_split <= STEPS or not short


@given(problems())
@settings(max_examples=300, deadline=None)
def test_partial_results_stay_small(c):
    p, itemsize, wide = plan(c), ITEMSIZE[c.dtype], 8 if c.dtype == "float64" else 4
    results = math.prod(c.shape[n] for n in c.kept) * c.rank
    if p.splits > 1:
        through = 2 * p.splits * results * wide
        assert through <= max(2 * IN_CACHE * wide, PARTIALS * math.prod(c.shape) * itemsize)
    flops, nbytes, seconds = expected(c)
    assert flops == pytest.approx(2 * math.prod(c.shape) * c.rank)
    least = math.prod(c.shape) * itemsize + results * wide
    assert nbytes >= least * (1 - 1e-12)
    assert seconds >= nbytes / (2 * c.chip.bandwidth)


@pytest.mark.parametrize("rank", [16, 64])
@pytest.mark.parametrize("shape", [(512, 512, 512), (1024, 1024, 1024), (128, 128, 128, 128)])
def test_large_tensors_are_read_once_and_fill_the_chip(shape, rank):
    strides = tuple(np.cumprod((1, *shape[:0:-1]))[::-1].tolist())
    for mode in range(len(shape)):
        p = plan(Contraction(shape, strides, (mode,), rank, "float32", "ieee", CHIP))
        assert p.bytes <= 1.1 * 4 * math.prod(shape)
        assert p.programs >= 1.9 * CHIP.multiprocessors


@given(chips, dtypes, precisions, st.sampled_from(["outer", "inner"]), st.data())
@settings(max_examples=500, deadline=None)
def test_every_tile_that_may_be_chosen_is_valid(chip, dtype, precision, sweep, data):
    mode = arithmetic(dtype, precision, chip, data.draw(st.booleans()))
    rows, rank, order = data.draw(st.tuples(st.integers(1, 10**6), ranks, st.integers(2, 8)))
    plain = order <= 3 and data.draw(st.booleans())
    setting = Setting.of(rows, rank, mode, ITEMSIZE[dtype], sweep, order, plain)
    tiles = tiles_for(setting, chip)
    assert tiles
    for tile in tiles:
        assert invalid(tile, setting, chip) == []
        assert tile.block_r <= max(16, 2 * rank)
        assert tile.block_m == 16 or rows > 16


SETTING = Setting.of(100, 64, "bf16x6", 4, "inner", 3)
GOOD = Tile(64, 32, 64, 4, 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"block_m": 8}, "block_m is 8; expected a power of two, at least 16"),
        ({"block_k": 48}, "block_k is 48; expected a power of two, at least 16"),
        ({"block_r": 0}, "block_r is 0; expected a power of two, at least 16"),
        ({"warps": 3}, "warps is 3; expected 2, 4 or 8"),
        ({"stages": 0}, "stages is 0; expected 1 ... 6"),
        ({"block_m": 256}, "128 accumulator registers a thread; expected at most 64"),
        ({"block_k": 512}, "bytes of shared memory; the chip has 232448"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_invalid_tile_says_why(change, reason):
    assert invalid(GOOD, SETTING, CHIP) == []
    reasons = invalid(replace(GOOD, **change), SETTING, CHIP)
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_every_reason_is_given_at_once():
    assert len(invalid(Tile(1, 2, 3, 4, 0), SETTING, CHIP)) == 4


@given(chips, dtypes, st.booleans())
def test_ieee_is_never_a_single_rounded_product(chip, dtype, rows_contiguous):
    mode = arithmetic(dtype, "ieee", chip, rows_contiguous)
    whole = {"float64": {"ieee"}, "float32": {"ieee", "bf16x6"}}
    whole |= {"float16": {"ieee", "bf16x5"}, "bfloat16": {"bf16w3"}}
    assert mode in whole[dtype]


def test_an_unknown_chip_counts_as_the_nearest_older_one():
    assert chip_like(0) is CHIPS[90]
    assert chip_like(70) is CHIPS[80]
    assert chip_like(89) is CHIPS[80]
    assert chip_like(103) is CHIPS[100]
    assert chip_like(121) is CHIPS[120]


def write(folder, tile, **changes):
    record = {
        "capability": 90,
        "shared_memory": 232448,
        "tiles": [{"setting": asdict(SETTING), "tile": asdict(tile)}],
    }
    (folder / "a-gpu.json").write_text(json.dumps(record | changes))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "TUNED", tmp_path)
    configs.tuned.cache_clear()
    yield tmp_path
    configs.tuned.cache_clear()


def test_what_was_tuned_for_a_gpu_overrides(folder):
    tile = Tile(128, 64, 32, 8, 2)
    write(folder, tile)
    own = replace(CHIP, name="a-gpu")
    assert tiles_for(SETTING, own) == (tile,)
    assert tile not in tiles_for(SETTING, CHIP)
    # Settings that were not tuned, and GPUs that were not, are as before.
    other = replace(SETTING, columns=16)
    assert tiles_for(other, own) == tiles_for(other, CHIP)
    assert configs.tuned("another-gpu") == {}


def test_a_tuned_tile_that_the_gpu_cannot_use_is_refused(folder):
    write(folder, Tile(128, 512, 64, 8, 3))
    with pytest.raises(ValueError, match=r"a-gpu.json: .* bytes of shared memory; the chip has"):
        configs.tuned("a-gpu")


def offsets(sizes, strides):
    """Offsets of the flat C-order indices over modes."""
    grid = np.indices(sizes).reshape(len(sizes), -1)
    return np.tensordot(np.array(strides), grid, 1)


@given(layouts(), st.data())
@settings(max_examples=200, deadline=None)
def test_merged_modes_walk_the_same_way(layout, data):
    shape, strides = layout
    n = data.draw(st.integers(1, min(3, len(shape))))
    sizes, steps = tuple(s % 7 + 1 for s in shape[:n]), strides[:n]
    others = tuple(s * 3 for s in steps)
    found, first, second = merged(sizes, steps, others)
    assert np.array_equal(offsets(found, first), offsets(sizes, steps))
    assert np.array_equal(offsets(found, second), offsets(sizes, others))
    assert span(sizes, steps) == offsets(sizes, steps).max()


@given(st.lists(layouts(), min_size=1, max_size=2), st.sampled_from([2, 4, 8]), st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_aligned_lies_side_by_side(parts, itemsize, data):
    groups = [merged(shape[:2], strides[:2]) for shape, strides in parts]
    unit, place = alignment(itemsize, groups, (48,))
    assert unit in (1, 2, 4, 8)
    assert unit * itemsize <= 16
    if place is None:
        assert unit == 1
        assert all(strides[-1] != 1 for _, strides in groups)
        return
    walked = offsets(*groups[place])
    runs = walked.reshape(-1, unit)
    assert np.array_equal(runs, runs[:, :1] + np.arange(unit))
    assert not (runs[:, 0] % unit).any()
    for n, group in enumerate(groups):
        assert n == place or not (offsets(*group) % unit).any()
