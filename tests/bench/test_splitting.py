"""The model of the kernels' arithmetic: its roundings, its tensor core, and what it says."""

import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench import splitting
from bench.splitting import CORES, KINDS, MODES
from bench.tables import between
from tensorfast.kernels import configs, gram
from tensorfast.kernels.devices import CHIPS
from tensorfast.kernels.products import MODES as OFFERED

LENGTHS = (16, 64, 256, 4096)


def float32(*values):
    return np.array(values, np.float32)


def every_exponent(low, high, count=20000, seed=0):
    """Draw float32 of random bits, either sign, from ``2^low`` up to ``2^high``."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(low + 127 << 23, high + 127 << 23, count, np.uint32)
    signs = generator.integers(0, 2, count, np.uint32) << 31
    return (bits | signs).view(np.float32)


def test_tf32_is_rounded_to_nearest_with_ties_away_from_zero():
    tie, unit = 2.0**-11, 2.0**-10
    given = float32(1 + tie, -1 - tie, 1 + unit + tie, 1 + tie - 2**-23, 2 - 2**-23, 0, 3)
    expected = float32(1 + unit, -1 - unit, 1 + 2 * unit, 1, 2, 0, 3)
    assert np.array_equal(splitting.nearest_away(given, 13), expected)


def test_what_a_tensor_core_reads_of_a_float32_is_cut():
    unit = 2.0**-10
    given = float32(1 + unit - 2**-23, -1 - unit + 2**-23, 1 + unit, 1e-40, np.inf)
    expected = float32(1, -1, 1 + unit, math.floor(1e-40 * 2.0**136) * 2.0**-136, np.inf)
    assert np.array_equal(splitting.toward_zero(given, 13), expected)


def test_bfloat16_is_rounded_as_torch_rounds_it():
    given = np.concatenate(
        [
            float32(1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.389e38, 3.4e38, 1e-40, 0),
            every_exponent(-126, 127),
        ]
    )
    expected = torch.from_numpy(given).bfloat16().float().numpy()
    assert np.array_equal(splitting.nearest_even(given, 16), expected)
    assert np.array_equal(expected[:2], float32(1, 1 + 2**-6))


def test_three_bfloat16_parts_are_every_float32():
    """Down to where the last part is no longer a bfloat16; fewer parts are not."""
    a = every_exponent(-110, 127)
    for count, left in ((1, 2.0**-8), (2, 2.0**-17), (3, 0.0)):
        parts = splitting.bfloat16_parts(a, count)
        assert all(not (part.view(np.uint32) & 0xFFFF).any() for part in parts)
        rest = np.abs(sum(part.astype(np.float64) for part in parts) - a) / np.abs(a)
        assert left / 2 <= rest.max() <= left
    smaller = every_exponent(-113, -112)
    parts = splitting.bfloat16_parts(smaller, 3)
    assert (sum(part.astype(np.float64) for part in parts) != smaller).any()


@pytest.mark.parametrize("name", MODES)
def test_no_term_loses_more_than_is_stated(name):
    """And some term loses nearly that: the largest rest of each part is among them."""
    mode = MODES[name]
    worst = float32(1 + 2**-11 - 2**-23, 1 + 2**-11 - 3 * 2**-23, 1 + 2**-8, 1 + 2**-8 - 2**-17)
    worst = np.concatenate([worst, float32(1 + 2**-10 - 2**-23, 1 + 2**-8 - 2**-17 - 2**-23)])
    x, w = every_exponent(-10, 10, seed=1), every_exponent(-10, 10, seed=2)
    x = np.concatenate([x, np.repeat(worst, len(worst))])
    w = np.concatenate([w, np.tile(worst, len(worst))])
    if name in ("bf16w3", "half"):
        x = splitting.nearest_even(x, 16)
    if name == "half":
        w = splitting.nearest_even(w, 16)
    if name == "bf16x5":
        x = x.astype(np.float16).astype(np.float32)
    xs, ws = ([p.astype(np.float64) for p in split] for split in (mode.split_x(x), mode.split_w(w)))
    exact = x.astype(np.float64) * w
    lost = np.abs(exact - sum(xs[i] * ws[j] for i, j in mode.pairs)) / np.abs(exact)
    assert mode.bound / 2 <= lost.max() <= mode.bound * 1.01


def by_fractions(a, b, c, core):
    """Return ``c + a @ b`` of one row and column, from the words of the published models."""

    def cut(value, unit):
        return math.trunc(Fraction(value) / unit) * unit

    def exponent(value):
        return math.frexp(value)[1] - 1

    terms = [(x * y, exponent(x) + exponent(y)) for x, y in zip(a, b, strict=True) if x * y]
    terms += [(c, exponent(c))] if c else []
    unit = Fraction(2) ** (max(e for _, e in terms) - core.fraction)
    total = sum(cut(value, unit) for value, _ in terms)
    return float(cut(total, Fraction(2) ** (exponent(float(total)) - 23)))


@pytest.mark.parametrize("core", CORES.values(), ids=str)
def test_a_tensor_core_adds_as_the_published_models_do(core):
    generator = np.random.default_rng(3)
    for _ in range(50):
        a, b = (splitting.nearest_away(generator.standard_normal(8).astype(np.float32), 13)) * (
            2.0 ** generator.integers(-9, 9, (2, 8))
        ).astype(np.float32)
        c = float32(generator.standard_normal() * 2.0 ** generator.integers(-9, 9))
        found = splitting.multiply_add(a[None], b[:, None], c[None], core)
        assert found.item() == by_fractions(a.tolist(), b.tolist(), c.item(), core)


def test_addends_and_sums_are_cut_toward_zero():
    def add(c, value, core=CORES[90], count=16):
        ones = np.ones((1, count), np.float32)
        found = splitting.multiply_add(ones, value * ones.T, float32(c)[None], core)
        return found.item()

    assert add(1, 2.0**-26) == 1
    assert add(1, 2.0**-25) == 1 + 2.0**-21
    assert add(1, 2.0**-25, CORES[80]) == 1
    assert add(1, 2.0**-25, count=3) == 1
    assert add(1, -(2.0**-25), count=1) == 1 - 2.0**-24
    assert add(-1, 2.0**-25, count=1) == -1 + 2.0**-24
    assert add(0, 0.0) == 0
    assert add(0, 2.0**-149) == 2.0**-145


def test_whole_numbers_are_added_exactly_in_every_mode():
    generator = np.random.default_rng(4)
    x, w = (generator.integers(-8, 9, shape).astype(np.float32) for shape in ((3, 192), (192, 5)))
    for core in CORES.values():
        for mode in MODES.values():
            assert np.array_equal(splitting.contract(x, w, mode, core), x @ w)
    assert np.array_equal(splitting.chain(x, w), x @ w)


def test_memory_does_not_change_the_result(monkeypatch):
    x, w = splitting.operands("normal", 256, "float32")
    whole = splitting.contract(x, w, MODES["bf16x3"])
    monkeypatch.setattr(splitting, "AT_ONCE", 1)
    assert np.array_equal(splitting.contract(x, w, MODES["bf16x3"]), whole)


def test_the_chain_rounds_once_a_term():
    x, w = float32(1 + 2**-12, 1)[None], float32(1 + 2**-12, -1)[:, None]
    assert splitting.chain(x[:, :1], w[:1]).item() == 1 + 2**-11
    assert splitting.chain(x[:, ::-1], w[::-1]).item() == 2**-11 + 2**-24


def worst(case, kind, core=CORES[90]):
    return max(max(splitting.ratios(case, kind, length, core)) for length in LENGTHS)


@pytest.mark.parametrize("capability", CORES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", splitting.IEEE, ids=str)
def test_ieee_has_at_most_twice_the_error_of_a_float32_gemm(case, kind, capability):
    assert worst(case, kind, CORES[capability]) <= 2


def test_every_mode_is_modelled_and_every_choice_for_ieee_is_held_to_the_bound():
    assert {*MODES, "ieee"} == set(OFFERED)
    bound = {(case.storage, case.mode, case.gram) for case in splitting.IEEE}
    for chip in CHIPS.values():
        for storage in ("float32", "float16", "bfloat16"):
            modes = {(configs.arithmetic(storage, "ieee", chip, rows), False) for rows in (0, 1)}
            if storage != "float32":
                modes.add((gram.mode_for(storage, "float32", "ieee", chip), True))
            assert {(storage, *m) for m in modes if m[0] != "ieee"} <= bound


@pytest.mark.parametrize("dropped", [(1, 0), (0, 1), (1, 1)])
def test_a_missing_product_is_noticed(dropped):
    pairs = tuple(pair for pair in MODES["bf16x6"].pairs if pair != dropped)
    x, w = splitting.operands("normal", 64, "float32")
    found = splitting.contract(x, w, replace(MODES["bf16x6"], pairs=pairs))
    limit = splitting.errors(splitting.chain(x, w), x, w)
    assert all(e > 2 * r for e, r in zip(splitting.errors(found, x, w), limit, strict=True))


def test_a_missing_middle_part_is_noticed():
    def without_middle(a):
        high, _, low = splitting.bfloat16_parts(a, 3)
        return [high, np.zeros_like(a), low]

    x, w = splitting.operands("positive", 64, "float32")
    found = splitting.contract(x, w, replace(MODES["bf16x6"], split_w=without_middle))
    limit = splitting.errors(splitting.chain(x, w), x, w)
    assert all(e > 2 * r for e, r in zip(splitting.errors(found, x, w), limit, strict=True))


def test_a_sum_that_is_flushed_is_better_than_one_that_is_not():
    x, w = splitting.operands("positive", 4096, "bfloat16", gram=True)
    stays, flushed = (
        splitting.errors(splitting.contract(x, w, replace(MODES["bf16"], flushed=f)), x, w)
        for f in (False, True)
    )
    assert flushed[1] < stays[1] / 10
    limit = splitting.errors(splitting.chain(x, w), x, w)
    assert all(e <= 2 * r for e, r in zip(flushed, limit, strict=True))


def test_the_page_has_the_modes_as_they_are():
    """Its other tables take minutes."""
    page = splitting.PAGE.read_text(encoding="utf-8")
    for name, content in (("chosen", splitting.chosen()), ("modes", splitting.described())):
        assert between(page, name, content) == page
