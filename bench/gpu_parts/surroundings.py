"""What there is around a GPU run: the GPU itself, the packages, wheels brought along."""

import json
import re
import subprocess
import sys
import zipfile

from bench.gpu_parts.store import last_lines

#: What everything needs, and what rivals and some tests need.
NEEDED = ("numpy", "scipy", "torch", "triton", "pytest")
WANTED = ("tensorly", "hypothesis", "xdist")

#: Run by the interpreter that will run the parts, so that this process holds no GPU memory.
PROBE = f"""
import importlib.util, json
absent = [n for n in {(*NEEDED, *WANTED)!r} if importlib.util.find_spec(n) is None]
name = None
if "torch" not in absent:
    import torch
    if torch.version.cuda and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
print(json.dumps({{"name": name, "absent": absent}}))
"""


def folder_name(gpu):
    """Return the name of the folder of a GPU's results, such as ``nvidia-h200``.

    Parameters
    ----------
    gpu : str

    Returns
    -------
    str
    """
    plain = "-".join(re.findall(r"[a-z0-9]+", gpu.lower()))
    return plain if plain.startswith("nvidia-") else f"nvidia-{plain}"


def unpack(wheels, folder):
    """Unpack every wheel of a folder: pure Python needs no more to be imported.

    Parameters
    ----------
    wheels, folder : Path

    Raises
    ------
    SystemExit
        Where there is none.
    """
    found = sorted(wheels.glob("*.whl"))
    if not found:
        sys.exit(f"gpu: --wheels is {wheels}; there is no wheel in it")
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def probe(environment):
    """Return the name of the GPU, None where there is none, and the packages that are absent.

    Parameters
    ----------
    environment : dict

    Returns
    -------
    name : str or None
    absent : list of str
    """
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"gpu: torch cannot be imported: {last_lines(done.stderr, 1)}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["name"], found["absent"]
