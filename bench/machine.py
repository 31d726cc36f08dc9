"""What the figures were measured on: the hardware, the software, the measured roofs.

No host name, user name or path is recorded.
"""

import functools
import importlib.metadata
import operator
import platform
import re
import subprocess
import time
from functools import partial
from pathlib import Path

from bench import threads

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numpy", "scipy", "tensorly", "pyttb", "pygenten", "pytest-benchmark")


def cpu_model():
    """Return the CPU's marketing name, or its architecture where no name is to be had.

    Returns
    -------
    str
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def slug(model, cores):
    """Return a directory name such as ``cpu-amd-epyc-2c``.

    Parameters
    ----------
    model : str
        As `cpu_model` gives it.
    cores : int

    Returns
    -------
    str
    """
    plain = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@.*|\d+-core", " ", model.lower())
    return "-".join(["cpu", *re.findall(r"[a-z0-9]+", plain), f"{cores}c"])


@functools.cache
def name():
    """Return the directory name of this machine's results; its cores are the cores used.

    Returns
    -------
    str
    """
    return slug(cpu_model(), threads.count())


def commit():
    """Return the commit measured and whether the sources differ from it.

    Returns
    -------
    dict
        ``id`` (None outside a repository, before its first commit, or without git) and ``dirty``.
        What a benchmark writes does not make the tree dirty.
    """

    def git(*arguments):
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    written = (":!bench/results", ":!bench/RESULTS.md", ":!README.md", ":!docs/tensorly.md")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return {"id": git("rev-parse", "--verify", "--quiet", "HEAD"), "dirty": bool(changed)}


def _best_seconds(function, rounds=7):
    function()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


@functools.cache
def roofs():
    """Measure, once a process, the rates that nothing on this machine can beat for long.

    Returns
    -------
    dict
        ``sgemm_gflops`` and ``dgemm_gflops`` of a 2048 x 2048 matrix product, by the fastest of the
        libraries at hand (torch's, oneDNN, NumPy's); ``copy_gbs`` (read plus write) and
        ``read_gbs`` of 256 MB; ``bandwidth_gbs``, the larger of the two.
    """
    import torch

    n = 2048
    rates = {}
    for key, dtype in (("sgemm_gflops", torch.float32), ("dgemm_gflops", torch.float64)):
        a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
        ways = [partial(torch.mm, a, b), partial(operator.matmul, a.numpy(), b.numpy())]
        if dtype == torch.float32:
            # One point of an image is one row: oneDNN's matrix product.
            pixels = a.view(1, n, 1, n).permute(0, 3, 1, 2)
            ways.append(partial(torch.nn.functional.conv2d, pixels, b.view(n, n, 1, 1)))
        rates[key] = 2e-9 * n**3 / min(map(_best_seconds, ways))
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    gigabytes = source.numel() * 4e-9
    rates["copy_gbs"] = 2 * gigabytes / _best_seconds(lambda: target.copy_(source))
    rates["read_gbs"] = gigabytes / _best_seconds(source.sum)
    rates["bandwidth_gbs"] = max(rates["copy_gbs"], rates["read_gbs"])
    return {key: round(rate, 1) for key, rate in rates.items()}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def record():
    """Return everything that identifies the machine and the software of a run.

    Returns
    -------
    dict
    """
    import torch

    return {
        "name": name(),
        "kind": "cpu",
        "cpu": cpu_model(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "cores": threads.cores(),
        "threads": torch.get_num_threads(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "roofs": roofs(),
    }
