"""The CUDA C++ sources built as host C++, and run on tensors of the CPU."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tensorfast.cuda import sources

HOST = Path(__file__).parent / "host"


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Return a function that builds a file of ``host/`` with a kernel's text."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")

    def built(name, macros, text, *options):
        folder = tmp_path_factory.mktemp("host")
        (folder / "kernel.cu").write_text(text)
        command = [compiler, "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
        command += ["-Wno-unknown-pragmas", f"-I{HOST}", f"-I{folder}", HOST / name, *options]
        command += [f"-D{macro}={value}" for macro, value in macros]
        subprocess.run([*command, "-o", folder / "built"], check=True)
        return folder / "built"

    return built


@pytest.fixture(scope="session")
def libraries(build):
    """Return a function that gives the library of a unit, built when it is first asked for."""
    known = {}

    def library(unit):
        if unit not in known:
            text = sources.expanded(unit.source)
            path = build(f"{unit.kernel}.cpp", unit.macros, text, "-shared", "-fPIC")
            known[unit] = ctypes.CDLL(str(path))
            known[unit].launch.restype = ctypes.c_char_p
        return known[unit]

    return library


@pytest.fixture
def launch(libraries):
    """Take the place of a launch on a GPU; ``launch.backwards`` lets the last thread go first."""

    def instead(unit, device, clusters, cluster, threads, shared, arguments):
        places = [ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments]
        call = libraries(unit).launch
        count = instead.threads or threads
        wrong = call(clusters, cluster, count, shared, instead.backwards, *places)
        assert wrong is None, wrong.decode()

    instead.backwards, instead.threads = False, None
    return instead
