"""What the CUDA C++ kernels take of each GPU: a table of ``docs/kernels.md``.

``python -m bench.cuda_kernels`` compiles them all and writes it, ``--check`` tells whether it is
out of date. NVRTC needs no GPU and no driver; what it makes is read as Triton's is.
"""

import itertools
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import sass
from bench.tables import between, keep, table
from tensorfast.cuda import compiler, cp_plan
from tensorfast.cuda.launcher import STATIC
from tensorfast.cuda.store import Store
from tensorfast.kernels.devices import CHIPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kernels.md"

#: Every kernel that a user may come to compile.
PROGRAMS = [
    (dtype, width, together, chip)
    for dtype, width, together, chip in itertools.product(
        cp_plan.DTYPES, cp_plan.WIDTHS, (1, max(cp_plan.BLOCKS)), CHIPS
    )
    if together == 1 or chip in cp_plan.CLUSTERS
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
    dict of tuple to bench.sass.Report
        By type, columns, blocks of a tensor and capability.
    """
    # Each its own store, as one makes one thing at a time.
    with tempfile.TemporaryDirectory() as folder:

        def cubin(program):
            dtype, width, blocks, capability = program
            unit = cp_plan.plan((8, 8, 8), width, dtype, blocks).unit
            return compiler.cubin(unit, capability, Store(Path(folder)))

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            cubins = dict(zip(PROGRAMS, pool.map(cubin, PROGRAMS), strict=True))
    found = {}
    for capability in CHIPS:
        own = [program for program in PROGRAMS if program[-1] == capability]
        counts = sass.instructions([cubins[program] for program in own], f"SM{capability}")
        for program, names in zip(own, counts, strict=True):
            found[program] = _report(program, sass.usage(cubins[program]), names)
    return found


def _report(program, usage, names):
    counts = sass.count(names)
    for kind, pattern in {"shared": _SHARED, "generic": _GENERIC}.items():
        counts[kind] = sum(n for name, n in names.items() if pattern.match(name))
    return sass.Report(
        kernel="cp_als_small",
        capability=program[-1],
        registers=usage["REG"],
        stack=usage["STACK"],
        shared=usage["SHARED"] - (RESERVED if program[-1] >= 90 else 0),
        warps=cp_plan.THREADS // 32,
        counts=counts,
        products={},
    )


def faults(program, report):
    """Return what is wrong with a kernel.

    Parameters
    ----------
    program : tuple
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
    alone = program[2] == 1
    if not report.counts["shared"] or (alone and report.counts["generic"]):
        found.append(f"{report.counts['generic']} accesses do not know that memory is shared")
    return [f"{program}: {fault}" for fault in found]


def cells(program, report):
    """Return a row of the table.

    Parameters
    ----------
    program : tuple
    report : bench.sass.Report

    Returns
    -------
    list of str
    """
    dtype, width, blocks, capability = program
    registers = -(-report.registers // DEALT) * DEALT

    def shared(side):
        return cp_plan.plan((side,) * 3, width, dtype, blocks).shared + STATIC

    limit = CHIPS[capability].shared_memory
    largest = max(side for side in range(1, 99) if shared(side) <= limit)
    unit = "FFMA" if dtype == "float32" else "DFMA"
    return [
        dtype,
        str(width),
        str(blocks),
        f"sm_{capability}",
        str(report.registers),
        str(REGISTERS // (32 * registers)),
        f"{shared(16) / 1024:.1f} KiB",
        f"{largest} x {largest} x {largest}",
        f"{report.counts[unit]} {unit}",
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
    return between(text, "cp-als-small", table(HEAD, [cells(p, found[p]) for p in PROGRAMS]))


if __name__ == "__main__":
    keep(PAGE, written, __doc__, "bench.cuda_kernels")
