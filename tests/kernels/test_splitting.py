"""What the compiler makes of a product is what the model of `bench.splitting` assumes."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.sass import compiling_for
from bench.splitting import CORES, MODES
from tensorfast.kernels.products import product

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)

SIDE, WARPS = 64, 4
#: What is not float32 in memory.
STORED = {"bf16w3": torch.bfloat16, "bf16x5": torch.float16, "half": torch.bfloat16}


@triton.jit
def sum_of_products(
    x_ptr, w_ptr, out_ptr, steps, M: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr
):
    m, k = tl.arange(0, M), tl.arange(0, K)
    acc = tl.zeros([M, M], tl.float32)
    for step in range(steps):
        x = tl.load(x_ptr + step * M * K + m[:, None] * K + k[None, :])
        w = tl.load(w_ptr + step * M * K + k[:, None] * M + m[None, :])
        acc += product(x, w, PRECISION)
    tl.store(out_ptr + m[:, None] * M + m[None, :], acc)


@pytest.fixture(scope="module", params=CORES)
def compiled(request):
    """Compile a sum of products in each mode; return the PTX by mode."""
    found = {}
    for name in MODES:
        tile = MODES[name].tile
        x = torch.empty(SIDE, tile, dtype=STORED.get(name, torch.float32))
        w = torch.empty(tile, SIDE, dtype=x.dtype if name == "half" else torch.float32)
        out = torch.empty(SIDE, SIDE)
        with compiling_for(request.param) as kernels:
            sum_of_products[(1,)](x, w, out, 5, SIDE, tile, name, num_warps=WARPS)
        found[name] = kernels[0].asm["ptx"]
    return request.param, found


def count(ptx, instruction):
    return len(re.findall(rf"^\s+{instruction}\b", ptx, re.MULTILINE))


@pytest.mark.parametrize("name", MODES)
def test_as_many_products_of_as_many_terms(compiled, name):
    capability, ptx = compiled
    terms = re.findall(r"mma[a-z_.]*\.m\d+n\d+k(\d+)\.", ptx[name])
    assert set(map(int, terms)) == {MODES[name].terms}
    # A warp group does a tile of 64 x 64 at once, a warp 16 x 8 of it.
    together = 1 if capability == 90 else SIDE // 16 * SIDE // 8 // WARPS
    steps = MODES[name].tile // MODES[name].terms
    assert len(terms) == len(MODES[name].pairs) * steps * together


@pytest.mark.parametrize("name", MODES)
def test_every_sum_is_flushed(compiled, name):
    additions = count(compiled[1][name], r"add(\.rn)?\.f32")
    assert additions == SIDE * SIDE // (32 * WARPS)


def test_tf32_is_rounded_by_its_bits(compiled):
    ptx = compiled[1]["tf32"]
    assert count(ptx, r"cvt\.\w+\.tf32") == 0
    assert len(re.findall(r"add\.s32\s.*, 4096;", ptx)) >= 2 * SIDE * MODES["tf32"].tile // (
        32 * WARPS
    )


@pytest.mark.parametrize("name", ["bf16x6", "bf16x5", "bf16x3", "bf16w3", "bf16"])
def test_parts_in_bfloat16_are_rounded_to_nearest_even(compiled, name):
    conversions = re.findall(r"cvt\.(\w+)\.bf16(?:x2)?\.f32", compiled[1][name])
    assert set(conversions) == {"rn"}
