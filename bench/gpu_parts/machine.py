"""The GPU and its software, and the rates that nothing on it beats for long."""

import os
import platform
import shutil
import subprocess

import torch

from bench.gpu_parts.clock import Clock, products_in
from bench.gpu_parts.store import read

#: The side of the matrices, and the bytes that are copied; in a rehearsal.
SIDE, COPIED = 8192, 1 << 31
TINY_SIDE, TINY_COPIED = 64, 1 << 12

#: Under which name each rate goes: storage type, torch's setting.
RATES = {
    "fp64": (torch.float64, "ieee"),
    "fp32": (torch.float32, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "bf16": (torch.bfloat16, "ieee"),
    "fp16": (torch.float16, "ieee"),
}

#: What is asked of the driver's own tool.
ASKED = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "temperature.gpu",
)


def run(context):
    """Record the machine, then its roofs."""
    context.tell(machine=record(context.device))
    found = roofs(context.device, context.rehearse)
    # Just after the matrix products, so that the clocks are those of work.
    context.tell(roofs=found, driver=driver() if context.device.type == "cuda" else {})
    context.entry(**found)
    told = ", ".join(f"{name} {rate:.4g}" for name, rate in found.items())
    print(f"{context.record['machine']['name']}: {told} (GB/s, TFLOP/s)")


def record(device):
    """Return what identifies GPU and software; no host, user or path.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    dict
    """
    import triton

    found = {
        "name": "CPU (rehearsal)",
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
    }
    if device.type == "cuda":
        own = torch.cuda.get_device_properties(device)
        found |= {
            "name": own.name,
            "capability": f"{own.major}.{own.minor}",
            "multiprocessors": own.multi_processor_count,
            "memory_gib": round(own.total_memory / 2**30, 1),
            "l2_mib": round(getattr(own, "L2_cache_size", 0) / 2**20, 1),
        }
    return found


def driver():
    """Return what nvidia-smi tells of driver and clocks; nothing where there is none.

    Returns
    -------
    dict
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    asked = [tool, f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    first = (done.stdout.strip().splitlines() or [""])[0]
    return dict(zip(ASKED, (told.strip() for told in first.split(",")), strict=False))


def roofs(device, rehearse=False):
    """Measure copy bandwidth and matrix-product rates, on random data.

    Parameters
    ----------
    device : torch.device
    rehearse : bool

    Returns
    -------
    dict
        ``copy_gbs``, bytes read and written; teraflops a second by the names in `RATES`.
    """
    clock, side = Clock(device), TINY_SIDE if rehearse else SIDE
    source = torch.empty((TINY_COPIED if rehearse else COPIED) // 4, device=device).normal_()
    target = torch.empty_like(source)
    laps = clock.laps(lambda: target.copy_(source), flush=False)
    found = {"copy_gbs": 2e-9 * source.numel() * 4 / min(laps)}
    for name, (dtype, precision) in RATES.items():
        a, b = (torch.empty(side, side, device=device).normal_().to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        with products_in(precision):
            laps = clock.laps(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), flush=False)
        found[name] = 2e-12 * side**3 / min(laps)
    return {name: float(f"{rate:.4g}") for name, rate in found.items()}


def rate(found, mode, dtype="float32"):
    """Return flops a second that a kernel can reach at most, from measured roofs.

    Parameters
    ----------
    found : dict
        As `roofs` gives it.
    mode : str
        ``PRECISION`` of a kernel: how many tensor-core products one of its products takes.
    dtype : str
        Storage type.

    Returns
    -------
    float
    """
    from tensorfast.kernels.configs import _PRODUCTS

    if dtype == "float64":
        return 1e12 * found["fp64"]
    own = {"ieee": "fp32", "tf32": "tf32", "half": "fp16"}.get(mode, "bf16")
    return 1e12 * found[own] / _PRODUCTS[mode]


def best_rate(found, precision):
    """Return flops a second of the quickest way to the precision asked for, of float32 data."""
    modes = {"ieee": ("ieee", "bf16x6"), "tf32": ("tf32", "bf16x3"), "bf16": ("bf16",)}
    return max(rate(found, mode) for mode in modes[precision])


def known_roofs(context):
    """Return the roofs that the part ``machine`` left beside this record; else measure them."""
    kept = read(context.path.with_name("machine.json"))
    if kept.get("roofs") and kept.get("rehearsal", context.rehearse) == context.rehearse:
        return kept["roofs"]
    return roofs(context.device, context.rehearse)
