"""Compile the Triton kernels for GPUs that are not there, and read what comes out.

Triton's compiler needs no GPU: with a driver that only names a target, launching a kernel compiles
exactly what a launch on that GPU would. The tests and the table in ``docs/kernels.md`` read
registers, spills, shared memory and instructions from the result.
"""

import bisect
import collections
import itertools
import json
import re
import struct
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.cache import get_cache_manager
from triton.runtime.jit import JITFunction

#: Instructions worth counting: tensor cores of each generation, multiply-adds, memory, spills.
FAMILIES = {
    family: re.compile(pattern)
    for family, pattern in {
        "HGMMA": r"HGMMA",
        "UTCMMA": r"UTC\w*MMA",
        "HMMA": r"HMMA",
        "DMMA": r"DMMA",
        "FFMA": r"FFMA",
        "DFMA": r"DFMA",
        "loads": r"LDG|UTMALDG",
        "16-byte loads": r"LDG.*\.(128|256)\b|UTMALDG",
        "stores": r"STG",
        "16-byte stores": r"STG.*\.(128|256)\b",
        "spills": r"LDL|STL",
    }.items()
}

_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\S+)", re.MULTILINE)

#: Tensor-core products in PTX, of each generation.
_PRODUCT = re.compile(r"(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\S+")

#: The file of a kernel's instruction counts in Triton's cache.
_NOTES = "instructions.json"


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
    products : dict of str to int
        Tensor-core instructions of the PTX, by the type of their operands.
    """

    kernel: str
    capability: int
    registers: int
    stack: int
    shared: int
    warps: int
    counts: dict
    products: dict

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
def launching(act):
    """Do something else with every launch inside the block.

    Parameters
    ----------
    act : callable
        Called as ``act(kernel, args, options)``, with what the kernel would have been called with.
    """

    def instead(self, *args, grid, warmup, **options):
        act(self, args, options)

    launch, JITFunction.run = JITFunction.run, instead
    try:
        yield
    finally:
        JITFunction.run = launch


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

    def act(kernel, args, options):
        compiled.append(launch(kernel, *args, grid=(1,), warmup=True, **options))

    driver.set_active(_Target(capability))
    try:
        with launching(act):
            yield compiled
    finally:
        driver._active = before


def read(compiled):
    """Read compiled kernels.

    What the disassembler says is kept in Triton's cache, beside the kernel.

    Parameters
    ----------
    compiled : list of triton.compiler.CompiledKernel
        All for one GPU.

    Returns
    -------
    list of Report
    """
    caches = [get_cache_manager(kernel.hash) for kernel in compiled]
    fresh = [i for i, cache in enumerate(caches) if cache.get_file(_NOTES) is None]
    for i, counts in zip(fresh, _instructions([compiled[i] for i in fresh]), strict=True):
        notes = {"usage": usage(compiled[i].asm["cubin"]), "instructions": counts}
        caches[i].put(json.dumps(notes), _NOTES, binary=False)
    return [
        _report(kernel, json.loads(Path(cache.get_file(_NOTES)).read_text()))
        for kernel, cache in zip(compiled, caches, strict=True)
    ]


def _report(compiled, notes):
    meta = compiled.metadata
    return Report(
        kernel=meta.name,
        capability=meta.target.arch,
        registers=notes["usage"]["REG"],
        stack=notes["usage"]["STACK"],
        shared=meta.shared,
        warps=meta.num_warps,
        counts=count(notes["instructions"]),
        products=dict(collections.Counter(_PRODUCT.findall(compiled.asm["ptx"]))),
    )


def count(instructions):
    """Count instructions by `FAMILIES`.

    Parameters
    ----------
    instructions : dict of str to int
        By full name.

    Returns
    -------
    dict of str to int
    """
    return {
        family: sum(n for name, n in instructions.items() if pattern.match(name))
        for family, pattern in FAMILIES.items()
    }


def usage(cubin):
    """Read what a kernel takes of a multiprocessor.

    Parameters
    ----------
    cubin : bytes

    Returns
    -------
    dict of str to int
        The numbers of ``cuobjdump --dump-resource-usage`` by name.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        text = _run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
    return {name: int(n) for name, n in re.findall(r"(\w+):(\d+)", text)}


def _instructions(compiled):
    """Count the instructions of each kernel by name."""
    if not compiled:
        return []
    capability = compiled[0].metadata.target.arch
    # Triton compiles for the features of the very chip from Hopper on.
    chip = f"SM{capability}{'a' if capability >= 90 else ''}"
    return instructions([kernel.asm["cubin"] for kernel in compiled], chip)


def instructions(cubins, chip):
    """Count the instructions of kernels.

    The disassembler takes a quarter of a second to start, however little it is given to read, so
    it is given the machine code of all of them in one piece.

    Parameters
    ----------
    cubins : list of bytes
    chip : str
        As the disassembler calls it, such as ``"SM90"``.

    Returns
    -------
    list of dict of str to int
        By full name.
    """
    codes = list(map(_machine_code, cubins))
    starts = list(itertools.accumulate(map(len, codes), initial=0))
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(b"".join(codes))
        disassembly = _run(knobs.nvidia.nvdisasm.path, "-ndf", "-b", chip, file.name)
    counts = [collections.Counter() for _ in cubins]
    for address, name in _INSTRUCTION.findall(disassembly):
        counts[bisect.bisect_right(starts, int(address, 16)) - 1][name] += 1
    return counts


def _machine_code(cubin):
    """Return the code sections of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, number, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + n * size) for n in range(number)]
    names = cubin[sections[names_at][4] :]
    return b"".join(
        cubin[offset : offset + length]
        for name, _, _, _, offset, length in sections
        if names.startswith(b".text.", name)
    )


def _run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
