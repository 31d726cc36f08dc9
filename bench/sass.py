"""Compile the Triton kernels for GPUs that are not there, and read what comes out.

Triton's compiler needs no GPU: with a driver that only names a target, launching a kernel compiles
exactly what a launch on that GPU would. The tests and the table in ``docs/kernels.md`` read
registers, spills, shared memory and instructions from the result.
"""

import collections
import re
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

#: Instructions worth counting: tensor cores of each generation, multiply-adds, loads, spills.
FAMILIES = {
    "HGMMA": ("HGMMA",),
    "UTCMMA": ("UTCHMMA", "UTCQMMA", "UTCMMA"),
    "HMMA": ("HMMA",),
    "DMMA": ("DMMA",),
    "FFMA": ("FFMA",),
    "DFMA": ("DFMA",),
    "wide loads": ("LDG.E.128", "LDGSTS.E.BYPASS.128", "LDGSTS.E.BYPASS.LTC128B.128", "UTMALDG"),
    "loads": ("LDG", "LDGSTS", "UTMALDG"),
    "spills": ("LDL", "STL"),
}

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Report:
    """What a compiled kernel takes.

    Attributes
    ----------
    kernel : str
    capability : int
    registers : int
        Of one thread.
    stack : int
        Bytes of local memory of one thread.
    shared : int
        Bytes of shared memory of one thread block.
    warps : int
    counts : dict of str to int
        Instructions by `FAMILIES`.
    """

    kernel: str
    capability: int
    registers: int
    stack: int
    shared: int
    warps: int
    counts: dict

    @property
    def spilled(self):
        """Whether anything lives in local memory that should live in registers."""
        return self.counts["spills"] > 0 or self.stack > 0


class _Target:
    """A driver that knows which GPU to compile for, and nothing else."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_device(self):
        # Compiled kernels are kept by device.
        return self.capability

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)


@contextmanager
def compiling_for(capability):
    """Compile instead of launching inside the block.

    Parameters
    ----------
    capability : int
        Such as 90.

    Yields
    ------
    list
        The compiled kernels, in the order of their launches.
    """
    compiled, launch, before = [], JITFunction.run, driver._active

    def compile_only(self, *args, grid, warmup, **kwargs):
        compiled.append(launch(self, *args, grid=grid, warmup=True, **kwargs))

    driver.set_active(_Target(capability))
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = launch
        driver._active = before


def read(compiled):
    """Read a compiled kernel.

    Parameters
    ----------
    compiled : triton.compiler.CompiledKernel

    Returns
    -------
    Report
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        Path(cubin.name).write_bytes(compiled.asm["cubin"])
        code = _run(knobs.nvidia.nvdisasm.path, "-c", cubin.name)
        usage = _run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin.name)
    meta = compiled.metadata
    return Report(
        kernel=meta.name,
        capability=meta.target.arch,
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        stack=int(re.search(r"STACK:(\d+)", usage)[1]),
        shared=meta.shared,
        warps=meta.num_warps,
        counts=count(code),
    )


def count(code):
    """Count the instructions of a disassembly by `FAMILIES`.

    Parameters
    ----------
    code : str

    Returns
    -------
    dict of str to int
    """
    found = collections.Counter(_INSTRUCTION.findall(code))
    return {
        family: sum(n for name, n in found.items() if name.startswith(prefixes))
        for family, prefixes in FAMILIES.items()
    }


def _run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
