"""From a source to machine code, without a driver; and what is said where a part is absent."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import types

import pytest

from tensorfast.cuda import compiler, sources
from tensorfast.cuda.compiler import Unit, cubin
from tensorfast.cuda.store import Store

TOY = """
#include "toy.cuh"
extern "C" __global__ void toy(float* x) { x[threadIdx.x] *= twice(FACTOR); }
"""
HEADER = "#pragma once\n__device__ inline float twice(float x) { return 2 * x; }\n"


@pytest.fixture
def toy(monkeypatch):
    """Put a source of the test's own, whose texts it may change, in place of the library's."""
    texts = {"toy.cu": TOY, "toy.cuh": HEADER}
    monkeypatch.setattr(sources, "read", lambda name: texts[name])

    def change(**others):
        texts.update({f"toy.{kind}": text for kind, text in others.items()})
        sources.expanded.cache_clear()
        return Unit("toy.cu", (("FACTOR", "3"),))

    change()
    yield change
    sources.expanded.cache_clear()


@pytest.fixture
def counted(monkeypatch):
    """Note what is compiled, and compile nothing."""
    seen = []

    def instead(text, unit, capability):
        seen.append((text, unit, capability))
        return b"code"

    monkeypatch.setattr(compiler, "_compiled", instead)
    return seen


def needs_nvrtc():
    compiler.missing.cache_clear()
    if compiler.missing():
        pytest.skip("; ".join(compiler.missing()))


@pytest.mark.parametrize("capability", [80, 90, 100, 120])
def test_machine_code_comes_without_a_driver(toy, tmp_path, capability):
    needs_nvrtc()
    code = cubin(toy(), capability, Store(tmp_path))
    assert code.startswith(b"\x7fELF")
    assert b".text.toy" in code


def test_threads_compile_at_once():
    """In a process of its own: it is the first import of ``cuda.core`` that threads would break."""
    needs_nvrtc()
    program = (
        "import sys, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from tensorfast.cuda.compiler import core\n"
        "together = threading.Barrier(4)\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda _: (together.wait(), core().Program), range(4)))\n"
        "assert len({program for _, program in found}) == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_the_compiler_says_is_passed_on(toy, tmp_path):
    needs_nvrtc()
    with pytest.raises(RuntimeError, match=r"(?s)refuses .*toy\.cu.* sm_90.*toy\.cuh\(2\)"):
        cubin(toy(cuh="#pragma once\nint oops(\n"), 90, Store(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_everything_that_matters_is_in_the_key(toy, counted, tmp_path, monkeypatch):
    needs_nvrtc()
    unit = toy()
    cubin(unit, 90, Store(tmp_path))
    cubin(unit, 90, Store(tmp_path))
    assert len(counted) == 1
    cubin(unit, 100, Store(tmp_path))
    cubin(Unit(unit.source, (("FACTOR", "4"),)), 90, Store(tmp_path))
    cubin(toy(cuh=HEADER.replace("2", "3")), 90, Store(tmp_path))
    cubin(toy(cu=TOY.replace("threadIdx", "blockIdx")), 90, Store(tmp_path))
    monkeypatch.setattr(compiler, "compiler_version", lambda: "99.9")
    cubin(unit, 90, Store(tmp_path))
    assert len(counted) == 6
    assert len(list(tmp_path.iterdir())) == 6


def test_the_version_is_as_exact_as_it_is_known(monkeypatch):
    needs_nvrtc()

    def version(answer):
        def told(name):
            if answer is None:
                raise importlib.metadata.PackageNotFoundError
            return answer

        monkeypatch.setattr(importlib.metadata, "version", told)
        return compiler.compiler_version.__wrapped__()

    short = version(None)
    assert version(f"{short}.37") == f"{short}.37"
    # A package that is not what was loaded.
    assert version("1.2.3") == short


def absent(monkeypatch, missing_module):
    """Return the reasons on a machine without a module."""
    find = importlib.util.find_spec

    def without(name, package=None):
        if name.startswith(missing_module):
            if "." not in missing_module:
                raise ModuleNotFoundError(name)
            return None
        return find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    return compiler.missing.__wrapped__()


@pytest.mark.parametrize("module", ["cuda.core", "cuda"])
def test_a_package_that_is_absent(monkeypatch, module):
    (reason,) = absent(monkeypatch, module)
    assert reason == "cuda.core is not installed; pip install 'tensorfast[cuda]'"


@pytest.mark.parametrize("result", [0, 7])
def test_a_library_that_is_absent(monkeypatch, result):
    def version():
        if not result:
            raise OSError("libnvrtc.so.13: cannot open\nand so on")
        return result, 0, 0

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    fake = types.SimpleNamespace(nvrtc=types.SimpleNamespace(nvrtcVersion=version))
    monkeypatch.setitem(sys.modules, "cuda.bindings", fake)
    monkeypatch.setattr(compiler, "compiler_version", compiler.compiler_version.__wrapped__)
    (reason,) = compiler.missing.__wrapped__()
    told = "nvrtcVersion: 7" if result else "libnvrtc.so.13: cannot open"
    assert reason == f"NVRTC cannot be loaded ({told}); pip install 'tensorfast[cuda]'"
