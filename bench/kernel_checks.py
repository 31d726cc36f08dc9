"""What the machine code of a launch must have, and must not.

A check is a function of a launch and of what was read from its code; `faults` asks all of them.
"""

import math
import re

from bench.splitting import IEEE, MODES
from tensorfast.kernels.devices import CHIPS, ITEMSIZE

__all__ = ["faults", "kinds", "meant_unit", "products_of", "times_multiplied"]

#: Bytes of the widest load of a thread that every chip has.
WIDE = 16

#: Matrix units by chip, of which those of Hopper and Blackwell take 64 rows from 4 warps; less is
#: multiplied as on Ampere.
UNITS = {90: "HGMMA", 100: "UTCMMA"}
UNIT_ROWS, UNIT_WARPS = 64, 4

#: What a mode leaves out of a term at most, relative to it, by the user's ``precision``.
PROMISED = {"ieee": 2.0**-24, "tf32": 2.0**-10, "bf16": 2.0**-7}

PTX_TYPES = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}

#: Kernels with products of several sizes: how many of each there are no count can tell.
SEVERAL = ("factor_kernel", "solve_kernel")

_SHAPE = re.compile(r"\.m(\d+)n(\d+)k(\d+)")
_KIND = re.compile(r"\.kind::(\w+)|\.(\w+)\.\2")


def faults(launch, report):
    """Return what is wrong with a launch and its machine code.

    Parameters
    ----------
    launch : bench.launches.Launch
    report : bench.sass.Report or str
        The compiler's words where it refused.

    Returns
    -------
    list of str
        Empty if all is well.
    """
    if isinstance(report, str):
        return [f"Triton refuses it: {report}"]
    return [fault for check in _CHECKS for fault in [check(launch, report)] if fault]


def _empty(launch, report):
    """Whether the compiler left anything of it: sm_100 drops what outgrows its tensor memory."""
    if not report.counts["loads"]:
        return f"loads nothing: an empty program of {report.registers} registers"
    return None


def _spills(launch, report):
    if report.spilled:
        return (
            f"spills: {report.stack} bytes a thread of local memory, accessed by "
            f"{report.counts['spills']} instructions; it has {report.registers} registers"
        )
    return None


def _shared_memory(launch, report):
    limit = CHIPS[launch.configuration.capability].shared_memory
    if report.shared > limit:
        return f"takes {report.shared} bytes of shared memory; a block may use {limit}"
    return None


def _arithmetic(launch, report):
    """Whether the mode is as exact as the user asked for."""
    key, asked = launch.configuration, launch.case.precision
    if key.mode is None or key.mode == "ieee":
        return None
    if key.dtypes[-1] == "float64":
        return f"computes float64 by `{key.mode}`; expected `ieee`"
    in_gram = key.kernel == "gram_kernel"
    enough = {"bf16x6", *(c.mode for c in IEEE if c.storage == key.dtypes[0] and c.gram <= in_gram)}
    # What is left counts on data, or a right operand, of other types.
    enough |= {m for m in MODES if PROMISED["ieee"] < MODES[m].bound <= PROMISED[asked]}
    if key.mode not in enough:
        return f"computes {key.dtypes[0]} by `{key.mode}`, less exact than {asked!r} promises"
    return None


def _unit(launch, report):
    """Whether the products are done where they should be, and nowhere else."""
    found = [u for u in ("HMMA", "HGMMA", "UTCMMA", "DMMA") if report.counts[u]]
    meant = meant_unit(launch.configuration)
    if meant in ("FFMA", "DFMA") or meant is None:
        if found:
            return f"uses {' and '.join(found)}; expected {meant or 'no matrix unit'}"
        if meant and not report.counts[meant]:
            return f"has no {meant}, which should do its products"
    elif found != [meant] and not (meant == "DMMA" and not found and report.counts["DFMA"]):
        return f"uses {' and '.join(found) or 'no matrix unit'}; expected {meant}"
    return None


def meant_unit(configuration):
    """Return the instructions that should do the products, None where there are none.

    Parameters
    ----------
    configuration : bench.launches.Configuration

    Returns
    -------
    str or None
        Of float64 ``"DMMA"``, although a chip without it does well with DFMA.
    """
    if configuration.mode is None:
        return None
    if configuration.dtypes[-1] == "float64":
        return "DMMA"
    if configuration.mode == "ieee":
        return "FFMA"
    large = configuration.sides[0] >= UNIT_ROWS and configuration.get("num_warps") >= UNIT_WARPS
    return UNITS.get(configuration.capability, "HMMA") if large else "HMMA"


def _operands(launch, report):
    """Whether tensor cores multiply what the mode says."""
    mode, found = launch.configuration.mode, kinds(report)
    if mode is None or not found:
        return None
    stored, computing = launch.configuration.dtypes
    as_stored = {"ieee": computing, "half": stored}.get(mode)
    meant = PTX_TYPES[as_stored] if as_stored else "tf32" if mode == "tf32" else "bf16"
    if any(meant not in kind.split(" or ") for kind in found):
        return f"multiplies {' and '.join(sorted(found))}; `{mode}` means {meant}"
    return None


def kinds(report):
    """Return the types of the operands of tensor-core instructions.

    Parameters
    ----------
    report : bench.sass.Report

    Returns
    -------
    set of str
        As PTX calls them; ``"f16 or bf16"`` where the instruction does not tell.
    """
    matches = map(_KIND.search, report.products)
    return {{"f16": "f16 or bf16"}.get(match[1], match[1]) or match[2] for match in matches}


def _products(launch, report):
    """Whether as many parts are multiplied as the mode has."""
    mode = launch.configuration.mode
    if mode is None or not report.products or launch.configuration.kernel in SEVERAL:
        return None
    wanted, found = products_of(mode), times_multiplied(launch.configuration, report)
    if found == 0 or found % wanted:
        return f"multiplies each tile {found:g} times; `{mode}` takes {wanted}, or a multiple"
    return None


def products_of(mode):
    """Return how many products of parts a product takes.

    Parameters
    ----------
    mode : str

    Returns
    -------
    int
    """
    return 1 if mode == "ieee" else len(MODES[mode].pairs)


def times_multiplied(configuration, report):
    """Return how often tensor cores multiply a whole tile; warps may repeat each other's work.

    Parameters
    ----------
    configuration : bench.launches.Configuration
    report : bench.sass.Report

    Returns
    -------
    float
    """
    rows, terms, columns = configuration.product
    total = 0
    for name, count in report.products.items():
        if name.startswith("tcgen05"):
            # The shape is not in the name: all columns, up to 128 rows, 32 bytes of terms.
            total += count * min(rows, 128) * columns * (8 if "tf32" in name else 16)
        else:
            warps = report.warps // 4 if name.startswith("wgmma") else report.warps
            total += count * warps * math.prod(map(int, _SHAPE.search(name).groups()))
    return total / (rows * terms * columns)


def _width(launch, report):
    """Whether contiguous data are moved 16 bytes at a time."""
    if not launch.case.wide:
        return None
    verb = "stores" if launch.configuration.kernel == "khatri_rao_kernel" else "loads"
    tile = math.prod(launch.configuration.sides[:2]) * ITEMSIZE[launch.configuration.dtypes[0]]
    share = tile // (32 * report.warps)
    if share < WIDE:
        return f"its tile gives a thread {share} bytes of contiguous data; expected at least {WIDE}"
    found = report.counts[f"{WIDE}-byte {verb}"]
    if found < share // WIDE:
        return f"has {found} {WIDE}-byte {verb}; its tile takes {share // WIDE} of each thread"
    return None


_CHECKS = (_empty, _spills, _shared_memory, _arithmetic, _unit, _operands, _products, _width)
