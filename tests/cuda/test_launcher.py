"""What a launch asks of cuda.core, with a stand-in for it and for the GPU."""

import contextlib
import types

import pytest
import torch

from tensorfast.cuda import launcher
from tensorfast.cuda.compiler import Unit, missing
from tensorfast.kernels.devices import chip_like

UNIT = Unit("cp_als_small.cu", (("REAL", "float"), ("WIDTH", "8")))


@pytest.fixture
def seen(monkeypatch):
    """Note what is asked, of a Hopper that is not there."""
    if missing():
        pytest.skip("; ".join(missing()))
    from cuda.bindings import driver

    asked = []

    def code_of(cubin, name):
        asked.append(("loaded", cubin, name))
        return types.SimpleNamespace(get_kernel=lambda name: types.SimpleNamespace(handle=42))

    def attribute(which, value, kernel, device):
        asked.append((which.name, value, int(kernel), int(device)))
        return (asked[0] if asked[0] == 1 else 0,)

    fake = types.SimpleNamespace(
        ObjectCode=types.SimpleNamespace(from_cubin=code_of),
        LaunchConfig=lambda **config: config,
        launch=lambda *rest: asked.append(rest),
    )
    monkeypatch.setattr(launcher, "core", lambda: fake)
    monkeypatch.setattr(launcher, "cubin", lambda unit, capability: (unit, capability))
    monkeypatch.setattr(launcher, "chip_of", lambda device: chip_like(90))
    monkeypatch.setattr(driver, "cuKernelSetAttribute", attribute)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    for kept in (launcher._loaded, launcher._ready):
        kept.cache_clear()
    yield asked
    for kept in (launcher._loaded, launcher._ready):
        kept.cache_clear()


@pytest.mark.parametrize(("device", "index"), [("cuda", 1), ("cuda:3", 3)])
def test_a_kernel_is_loaded_once_and_put_on_the_current_stream(seen, device, index):
    for blocks in (5, 7):
        launcher.launch(UNIT, torch.device(device), blocks, 1, 128, 50_000, [1, 2])
    loaded, asked, first, second = seen
    assert loaded == ("loaded", (UNIT, 90), "cp_als_small")
    most = chip_like(90).shared_memory - launcher.STATIC
    assert asked == ("CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES", most, 42, index)
    assert [first[1]["grid"], second[1]["grid"]] == [5, 7]
    assert first[1] == {"grid": 5, "block": 128, "shmem_size": 50_000}
    assert first[0] == f"stream of {index}"
    assert first[2].handle == 42
    assert first[3:] == (1, 2)


def test_a_grid_of_clusters(seen):
    launcher.launch(UNIT, torch.device("cuda"), 5, 8, 128, 50_000, [])
    assert seen[-1][1] == {"grid": 5, "cluster": 8, "block": 128, "shmem_size": 50_000}


def test_a_driver_that_refuses_is_told_of(seen):
    seen.append(1)
    with pytest.raises(RuntimeError, match="232192 bytes of shared memory: 1"):
        launcher.launch(UNIT, torch.device("cuda"), 1, 1, 128, 50_000, [])
