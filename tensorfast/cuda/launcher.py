"""A kernel on torch's current stream, through ``cuda.core``. Not yet run on a GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from ..kernels.devices import chip_of
from .compiler import Unit, core, cubin

__all__ = ["STATIC", "launch"]

#: Bytes of shared memory that a kernel may have besides what it is launched with.
STATIC = 256


@cache
def _loaded(unit: Unit, capability: int) -> Any:
    code = core().ObjectCode.from_cubin(cubin(unit, capability), name=unit.kernel)
    return code.get_kernel(unit.kernel)


@cache
def _ready(unit: Unit, device: int) -> Any:
    """Return a kernel that may use all shared memory that a device lets a block have."""
    from cuda.bindings import driver

    major, minor = torch.cuda.get_device_capability(device)
    kernel = _loaded(unit, 10 * major + minor)
    # Above 48 KB a kernel has to ask: once, for all there is.
    most = chip_of(torch.device("cuda", device)).shared_memory - STATIC
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    handle = driver.CUkernel(int(kernel.handle))
    (result,) = driver.cuKernelSetAttribute(attribute, most, handle, driver.CUdevice(device))
    if result:
        raise RuntimeError(f"tensorfast.cuda: {most} bytes of shared memory: {result}")
    return kernel


def launch(
    unit: Unit,
    device: torch.device,
    clusters: int,
    cluster: int,
    threads: int,
    shared: int,
    arguments: list[Any],
) -> None:
    """Put a kernel on the current stream of ``device``, in clusters of so many blocks.

    ``arguments`` are addresses as integers, and numbers of ``ctypes`` as wide as the kernel's.
    """
    cuda = core()
    index = torch.cuda.current_device() if device.index is None else device.index
    with torch.cuda.device(index):
        # Of clusters the grid counts clusters. Blocks by themselves are none, to every GPU.
        together = {"cluster": cluster} if cluster > 1 else {}
        config = cuda.LaunchConfig(grid=clusters, block=threads, shmem_size=shared, **together)
        cuda.launch(torch.cuda.current_stream(index), config, _ready(unit, index), *arguments)
