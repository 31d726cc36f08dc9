"""What is broken on purpose is found: the checks see what they are meant to see."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.jit import JITFunction

from bench import cases, launches
from bench.cases import Case
from bench.kernel_checks import faults
from tensorfast.kernels import contraction, plan
from tensorfast.kernels.configs import Tile

SOUND = Case("mttkrp", (64, 64, 64), (0, 1, 2), (0,), 17, "float32", "ieee")


@pytest.fixture(autouse=True)
def _decisions_are_made_anew():
    def forget():
        plan.plan.cache_clear()
        contraction._walk.cache_clear()

    forget()
    yield
    forget()


def found(case=SOUND, capability=90):
    """Return the faults of a call."""
    launch = launches.note(case, capability)
    return faults(launch, launches.compiled([launch], processes=1)[launch])


def tile(monkeypatch, *sizes):
    """Let the heuristic choose one tile whatever the problem."""
    monkeypatch.setattr(plan, "tiles_for", lambda *_: (Tile(*sizes),))


def product(monkeypatch, other):
    """Put another product in the place of the kernel's."""
    kernel = contraction.contraction_kernel
    monkeypatch.setattr(contraction, "product", other)
    # A new one, since a kernel remembers the functions that it found when it was compiled.
    anew = triton.JITFunction(kernel.fn, do_not_specialize=kernel.do_not_specialize)
    monkeypatch.setattr(contraction, "contraction_kernel", anew)


@triton.jit
def plain_tf32(x, w, PRECISION: tl.constexpr):
    return tl.dot(x.to(tl.float32), w, input_precision="tf32")


@triton.jit
def plain_bfloat16(x, w, PRECISION: tl.constexpr):
    return tl.dot(x.to(tl.bfloat16), w.to(tl.bfloat16))


@triton.jit
def multiply_adds(x, w, PRECISION: tl.constexpr):
    return tl.dot(x.to(tl.float32), w, input_precision="ieee")


@pytest.mark.parametrize("capability", [80, 90, 100, 120])
def test_what_is_not_broken_has_no_fault(capability):
    assert found(capability=capability) == []


def test_a_spill(monkeypatch):
    tile(monkeypatch, 128, 64, 128, 4, 2)
    (fault,) = [f for f in found() if "spills" in f]
    assert "bytes a thread of local memory" in fault


def test_too_much_shared_memory(monkeypatch):
    tile(monkeypatch, 128, 128, 32, 8, 6)
    (fault,) = [f for f in found() if "shared memory" in f]
    assert fault.endswith("a block may use 232448")


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_contiguous_data_taken_for_strided(monkeypatch, mode):
    def strided(shape, dtype):
        return torch.empty((*shape, 2), dtype=getattr(torch, dtype), device="meta")[..., 0]

    case = SOUND._replace(modes=(mode,))
    assert found(case) == []
    monkeypatch.setattr(cases, "_tensor", strided)
    (fault,) = found(case)
    assert fault.startswith("has 0 16-byte loads")


def test_data_that_are_not_aligned(monkeypatch):
    """The kernel is told of no alignment: the loads are narrow, whatever the strides."""
    monkeypatch.setattr(contraction, "alignment", lambda size, groups, others=(): (1, None))
    assert any("16-byte loads" in fault for fault in found())


@pytest.mark.parametrize("capability", [80, 90, 100, 120])
@pytest.mark.parametrize(
    ("op", "modes"),
    [
        ("mttkrp", (0,)),
        ("gram", (0,)),
        ("slab_pass", (0, 1)),
        ("slab_pass", (0, 2)),
        ("residual", (0, 1, 2)),
        ("squared_norm", (0, 1, 2)),
    ],
)
def test_wide_loads_are_those_of_the_data(monkeypatch, op, modes, capability):
    """The same launch but for what it is told of ``x`` has so many fewer."""
    case = SOUND._replace(op=op, modes=modes)
    launch = launches.note(case, capability)
    before = launches.compiled([launch], processes=1)[launch]
    run = JITFunction.run

    def told_nothing(self, *args, **options):
        return run(self, *args, **{**options, "UNIT": 1})

    monkeypatch.setattr(JITFunction, "run", told_nothing)
    after = launches.compiled([launch], processes=1)[launch]
    rows, terms = launch.configuration.sides[:2]
    share = rows * terms * 4 // (16 * 32 * before.warps)
    assert before.counts["16-byte loads"] - after.counts["16-byte loads"] >= share > 0


def test_plain_tf32_for_ieee(monkeypatch):
    product(monkeypatch, plain_tf32)
    assert "multiplies tf32; `bf16x6` means bf16" in found()


def test_plain_bfloat16_for_ieee(monkeypatch):
    product(monkeypatch, plain_bfloat16)
    assert found() == ["multiplies each tile 1 times; `bf16x6` takes 6, or a multiple"]


def test_tensor_cores_where_multiply_adds_are_meant(monkeypatch):
    product(monkeypatch, plain_tf32)
    assert "uses HMMA; expected FFMA" in found(capability=120)


def test_multiply_adds_where_tensor_cores_are_meant(monkeypatch):
    product(monkeypatch, multiply_adds)
    assert "uses no matrix unit; expected HGMMA" in found()


def test_what_triton_refuses(monkeypatch):
    tile(monkeypatch, 48, 32, 16, 4, 1)
    (fault,) = found()
    assert fault.startswith("Triton refuses it: ")
