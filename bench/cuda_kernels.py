"""What the CUDA C++ kernels take of each GPU: a table of ``docs/kernels.md``.

``python -m bench.cuda_kernels`` compiles them all and writes it, ``--check`` tells whether it is
out of date. NVRTC needs no GPU and no driver; what it makes is read as Triton's is.
"""

import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import sass
from bench.tables import between, keep, table
from tensorfast.cuda import compiler, cp_plan, tucker_plan
from tensorfast.cuda.launcher import STATIC
from tensorfast.cuda.store import Store
from tensorfast.kernels.devices import CHIPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kernels.md"

#: Kernels of Tucker decompositions.
TUCKER = ("sthosvd_small", "hooi_small")


class Program(NamedTuple):
    """A kernel as it may come to be compiled.

    Attributes
    ----------
    kernel, dtype : str
    columns : int
        Of its matrices, 0 where that is no matter of the machine code.
    blocks : int
        Of a tensor, as many as there may be where that is more than one.
    capability : int
    """

    kernel: str
    dtype: str
    columns: int
    blocks: int
    capability: int

    def plan(self, side):
        """Return how a cube is dealt with: by Tucker kernels at half of its ranks."""
        if self.columns:
            return cp_plan.plan((side,) * 3, self.columns, self.dtype, self.blocks)
        rank = ((side + 1) // 2,) * 3
        return tucker_plan.plan((side,) * 3, rank, self.dtype, kernel=self.kernel)


PROGRAMS = [
    Program("cp_als_small", dtype, columns, blocks, capability)
    for dtype in cp_plan.DTYPES
    for columns in cp_plan.WIDTHS
    for blocks in (1, max(cp_plan.BLOCKS))
    for capability in CHIPS
    if blocks == 1 or capability in cp_plan.CLUSTERS
] + [
    Program(kernel, dtype, 0, 1, capability)
    for kernel in TUCKER
    for dtype in tucker_plan.DTYPES
    for capability in CHIPS
]

#: Bytes of shared memory that a block has besides its own from Hopper on.
RESERVED = 1024

#: Registers of a multiprocessor, and of a thread as they are dealt out.
REGISTERS, DEALT = 65536, 8

HEAD = [
    "stored",
    "columns",
    "blocks",
    "GPU",
    "registers",
    "warps by these",
    "16 x 16 x 16",
    "largest cube",
    "multiply-adds",
    "spills",
]

_SHARED = re.compile(r"(LDS|STS)\b")
_GENERIC = re.compile(r"(LD|ST)\b")


def reports():
    """Compile every kernel, and read what comes out.

    Returns
    -------
    dict of Program to bench.sass.Report
    """
    # Each its own store, as one makes one thing at a time.
    with tempfile.TemporaryDirectory() as folder:

        def cubin(program):
            return compiler.cubin(program.plan(8).unit, program.capability, Store(Path(folder)))

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            cubins = dict(zip(PROGRAMS, pool.map(cubin, PROGRAMS), strict=True))
    found = {}
    for capability in CHIPS:
        own = [program for program in PROGRAMS if program.capability == capability]
        counts = sass.instructions([cubins[program] for program in own], f"SM{capability}")
        for program, names in zip(own, counts, strict=True):
            found[program] = _report(program, sass.usage(cubins[program]), names)
    return found


def _report(program, usage, names):
    counts = sass.count(names)
    for kind, pattern in {"shared": _SHARED, "generic": _GENERIC}.items():
        counts[kind] = sum(n for name, n in names.items() if pattern.match(name))
    return sass.Report(
        kernel=program.kernel,
        capability=program.capability,
        registers=usage["REG"],
        stack=usage["STACK"],
        shared=usage["SHARED"] - (RESERVED if program.capability >= 90 else 0),
        warps=cp_plan.THREADS // 32,
        counts=counts,
        products={},
    )


def faults(program, report):
    """Return what is wrong with a kernel.

    Parameters
    ----------
    program : Program
    report : bench.sass.Report

    Returns
    -------
    list of str
        Empty if all is well.
    """
    found = []
    if report.spilled:
        found.append(f"spills: {report.stack} bytes, {report.counts['spills']} accesses")
    if report.registers * cp_plan.THREADS > REGISTERS:
        found.append(f"{report.registers} registers are too many for {cp_plan.THREADS} threads")
    if report.shared > STATIC:
        found.append(f"{report.shared} bytes of shared memory of its own; expected up to {STATIC}")
    # Those of other blocks are known by their addresses only.
    if not report.counts["shared"] or (program.blocks == 1 and report.counts["generic"]):
        found.append(f"{report.counts['generic']} accesses do not know that memory is shared")
    return [f"{program}: {fault}" for fault in found]


def cells(program, report):
    """Return a row of the table.

    Parameters
    ----------
    program : Program
    report : bench.sass.Report

    Returns
    -------
    list of str
    """
    registers = -(-report.registers // DEALT) * DEALT

    def shared(side):
        return program.plan(side).shared + STATIC

    limit = CHIPS[program.capability].shared_memory
    largest = max(side for side in range(1, 99) if shared(side) <= limit)
    # Tucker kernels have Gram matrices and rotations in double precision, whatever is stored.
    single = program.columns and program.dtype == "float32"
    units = ["FFMA"] if single else ["DFMA"] if program.columns else ["FFMA", "DFMA"]
    return [
        program.dtype,
        *([str(program.columns), str(program.blocks)] if program.columns else []),
        f"sm_{program.capability}",
        str(report.registers),
        str(REGISTERS // (32 * registers)),
        f"{shared(16) / 1024:.1f} KiB",
        f"{largest} x {largest} x {largest}",
        ", ".join(f"{report.counts[unit]} {unit}" for unit in units),
        str(report.counts["spills"]),
    ]


def written(found=None):
    """Return the page as it should be.

    Parameters
    ----------
    found : dict, optional
        What `reports` gives.

    Returns
    -------
    str
    """
    found = reports() if found is None else found
    version = f"NVRTC {compiler.compiler_version()}"
    text = between(PAGE.read_text(encoding="utf-8"), "nvrtc", version)
    for kernel in ("cp_als_small", *TUCKER):
        head = [word for word in HEAD if kernel not in TUCKER or word not in ("columns", "blocks")]
        rows = [cells(p, found[p]) for p in PROGRAMS if p.kernel == kernel]
        text = between(text, kernel.replace("_", "-"), table(head, rows))
    return text


if __name__ == "__main__":
    keep(PAGE, written, __doc__, "bench.cuda_kernels")
