"""Each check of a launch against reports that are made up."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.cases import Case
from bench.kernel_checks import faults, kinds, times_multiplied
from bench.launches import Configuration, Launch
from bench.sass import FAMILIES, Report

MMA = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
WGMMA = "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16"
TCGEN = "tcgen05.mma.cta_group::1.kind::f16"
MMA_TF32 = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
MMA_F64 = "mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64"


def launch(capability=90, mode="bf16x6", dtype="float32", tile=(64, 32, 32), **case):
    """Return a contraction that can be read 16 bytes at a time."""
    names = ("BLOCK_M", "BLOCK_K", "BLOCK_R")
    options = (*zip(names, tile, strict=True), ("PRECISION", mode), ("num_warps", 4))
    computing = "float64" if dtype == "float64" else "float32"
    key = Configuration(capability, "contraction_kernel", (dtype, computing), options)
    case = {"shape": (64, 64, 64), "rank": 17, "precision": "ieee", **case}
    return Launch(key, Case("mttkrp", order=(0, 1, 2), modes=(0,), dtype=dtype, **case), (), ())


def report(capability=90, products=None, stack=0, shared=20000, **counts):
    """Return a report of 4 warps that load enough at a time."""
    counts = {**dict.fromkeys(FAMILIES, 0), "16-byte loads": 8, "loads": 8, **counts}
    return Report("k", capability, 100, stack, shared, 4, counts, products or {})


def residual(capability=90):
    """Return a residual, whose tile is rows by columns and not by terms."""
    options = (("BLOCK_M", 64), ("BLOCK_N", 64), ("BLOCK_R", 32), ("PRECISION", "bf16x6"))
    key = Configuration(
        capability, "residual_kernel", ("float32", "float32"), (*options, ("num_warps", 4))
    )
    case = Case("residual", (64, 64, 64), (0, 1, 2), (0, 1, 2), 32, "float32", "ieee")
    return Launch(key, case, (), ())


SOUND = [
    (residual(), report(products={WGMMA: 24}, HGMMA=24)),
    (residual(100), report(100, {TCGEN: 12}, UTCMMA=12)),
    (launch(), report(products={WGMMA: 12}, HGMMA=12)),
    (launch(80), report(80, {MMA: 6 * 8 * 4}, HMMA=192)),
    (launch(100, tile=(128, 32, 32)), report(100, {TCGEN: 12}, UTCMMA=12)),
    (launch(120, mode="ieee"), report(120, FFMA=1000)),
    (launch(mode="ieee", dtype="float64"), report(products={MMA_F64: 32}, DMMA=64, DFMA=3)),
    (launch(120, mode="ieee", dtype="float64"), report(120, DFMA=1000)),
    (launch(tile=(16, 32, 32), rank=20), report(products={MMA: 6 * 2}, HMMA=12)),
    (
        launch(dtype="float16", mode="bf16x5", tile=(16, 64, 32)),
        report(products={MMA: 20}, HMMA=20, **{"16-byte loads": 1}),
    ),
    (
        launch(mode="tf32", precision="tf32", tile=(32, 32, 32)),
        report(products={MMA_TF32: 8}, HMMA=8),
    ),
]


@pytest.mark.parametrize(("launch", "report"), SOUND)
def test_what_is_sound(launch, report):
    assert faults(launch, report) == []


FAULTY = [
    (
        launch(),
        report(products={WGMMA: 12}, HGMMA=12, loads=0),
        "loads nothing: an empty program of 100 registers",
    ),
    (
        launch(),
        report(products={WGMMA: 12}, HGMMA=12, stack=8, spills=3),
        "spills: 8 bytes a thread of local memory, accessed by 3 instructions; "
        "it has 100 registers",
    ),
    (
        launch(120, mode="ieee"),
        report(120, FFMA=9, shared=101377),
        "takes 101377 bytes of shared memory; a block may use 101376",
    ),
    (
        launch(),
        report(products={MMA: 192}, HMMA=192),
        "uses HMMA; expected HGMMA",
    ),
    (
        launch(120, mode="ieee"),
        report(120, HMMA=64, FFMA=1),
        "uses HMMA; expected FFMA",
    ),
    (launch(120, mode="ieee"), report(120, DFMA=64), "has no FFMA, which should do its products"),
    (
        launch(80),
        report(80, {MMA_TF32: 384}, HMMA=384),
        "multiplies tf32; `bf16x6` means bf16",
    ),
    (
        launch(100, mode="tf32", precision="tf32"),
        report(100, {TCGEN: 2}, UTCMMA=2),
        "multiplies f16 or bf16; `tf32` means tf32",
    ),
    (
        launch(),
        report(products={WGMMA: 10}, HGMMA=10),
        "multiplies each tile 5 times; `bf16x6` takes 6, or a multiple",
    ),
    (
        launch(),
        report(products={WGMMA: 12}, HGMMA=12, **{"16-byte loads": 3}),
        "has 3 16-byte loads; its tile takes 4 of each thread",
    ),
    (
        launch(dtype="float16", mode="bf16x5", tile=(16, 64, 32)),
        report(products={MMA: 20}, HMMA=20, **{"16-byte loads": 0}),
        "has 0 16-byte loads; its tile takes 1 of each thread",
    ),
    (
        launch(120, dtype="float16", mode="ieee", tile=(16, 32, 32)),
        report(120, FFMA=64),
        "its tile gives a thread 8 bytes of contiguous data; expected at least 16",
    ),
    (launch(), "Error: no", "Triton refuses it: Error: no"),
]


@pytest.mark.parametrize(("launch", "report", "fault"), FAULTY, ids=[f[2] for f in FAULTY])
def test_what_is_faulty(launch, report, fault):
    assert faults(launch, report) == [fault]


@pytest.mark.parametrize(
    ("dtype", "precision", "mode"),
    [
        *(("float32", "ieee", mode) for mode in ("tf32", "bf16x3", "bf16", "bf16w3", "half")),
        *(("float16", "ieee", mode) for mode in ("bf16x3", "bf16w3", "half")),
        *(("bfloat16", "ieee", mode) for mode in ("bf16", "bf16x5", "half")),
        *(("float32", "tf32", mode) for mode in ("bf16", "bf16w3")),
    ],
)
def test_a_mode_that_is_not_exact_enough(dtype, precision, mode):
    wrong = launch(80, mode, dtype, precision=precision)
    message = f"computes {dtype} by `{mode}`, less exact than {precision!r} promises"
    assert message in faults(wrong, report(80))


def test_float64_is_computed_in_float64():
    assert "computes float64 by `bf16x6`; expected `ieee`" in faults(
        launch(80, dtype="float64"), report(80)
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (MMA, "bf16"),
        (WGMMA, "bf16"),
        (TCGEN, "f16 or bf16"),
        (MMA_TF32, "tf32"),
        (MMA_F64, "f64"),
        ("tcgen05.mma.cta_group::1.kind::tf32", "tf32"),
        ("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16", "f16"),
    ],
)
def test_the_operands_are_read_off_the_instruction(name, kind):
    assert kinds(report(products={name: 1})) == {kind}


def test_warps_that_repeat_each_other_count():
    key = launch(80, tile=(16, 32, 16)).configuration
    assert times_multiplied(key, report(80, {MMA: 4 * 6})) == 4 * 6 * 4 * 2048 / (16 * 32 * 16)


def test_data_that_are_not_aligned_may_be_loaded_as_they_can():
    narrow = report(products={WGMMA: 12}, HGMMA=12, **{"16-byte loads": 0})
    for case in ({"shape": (64, 64, 63)}, {"rank": 16}):
        assert faults(launch(**case), narrow) == []
