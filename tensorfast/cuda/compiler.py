"""From a source to machine code for a GPU, by NVRTC through ``cuda.core``; without a driver."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

from .sources import expanded
from .store import Store

__all__ = ["Unit", "compiler_version", "core", "cubin", "missing"]

#: What all kernels are compiled with.
_STANDARD = "c++17"

_store = Store()
_importing = threading.Lock()


@dataclass(frozen=True)
class Unit:
    """A source with what is fixed when it is compiled: one kernel.

    Attributes
    ----------
    source : str
        A file of ``csrc/cuda/``.
    macros : tuple of (str, str)
        Values that its text leaves open.
    """

    source: str
    macros: tuple[tuple[str, str], ...]

    @property
    def kernel(self) -> str:
        """The name of the kernel, unmangled: that of the file."""
        return self.source.partition(".")[0]


@cache
def missing() -> tuple[str, ...]:
    """Every reason why nothing can be compiled here; empty where it can."""
    remedy = "pip install 'tensorfast[cuda]'"
    for module in ("cuda.core", "cuda.bindings"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return (f"{module} is not installed; {remedy}",)
    try:
        compiler_version()
    # What cuda.bindings raises where a library is absent is a class of its own, and another in
    # other versions.
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        return (f"NVRTC cannot be loaded ({first}); {remedy}",)
    return ()


def core() -> Any:
    """Import ``cuda.core``, one thread after the other: two that do so first at once fail."""
    with _importing:
        return importlib.import_module("cuda.core")


@cache
def compiler_version() -> str:
    """Return the version of NVRTC, as exactly as it is known."""
    from cuda.bindings import nvrtc

    result, major, minor = nvrtc.nvrtcVersion()
    if result:
        raise RuntimeError(f"nvrtcVersion: {result}")
    try:
        # NVRTC itself tells no patch level.
        package = importlib.metadata.version("nvidia-cuda-nvrtc")
    except importlib.metadata.PackageNotFoundError:
        package = ""
    return package if package.startswith(f"{major}.{minor}.") else f"{major}.{minor}"


def cubin(unit: Unit, capability: int, store: Store | None = None) -> bytes:
    """Return the machine code of a kernel for a compute capability times ten, such as 90.

    Raises
    ------
    RuntimeError
        If NVRTC refuses it, with all that it has to say.
    """
    text = expanded(unit.source)
    what = [compiler_version(), capability, _STANDARD, unit.source, unit.macros, text]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return (store or _store).get(key, lambda: _compiled(text, unit, capability))


def _compiled(text: str, unit: Unit, capability: int) -> bytes:
    cuda = core()
    options = cuda.ProgramOptions(
        name=unit.kernel,
        arch=f"sm_{capability}",
        std=_STANDARD,
        define_macro=list(unit.macros),
    )
    said = io.StringIO()
    try:
        code = cuda.Program(text, "c++", options).compile("cubin", logs=said)
    # Its class is private to cuda.core.
    except Exception as error:
        raise RuntimeError(
            f"tensorfast.cuda: NVRTC {compiler_version()} refuses {unit} for sm_{capability}: "
            f"{error}\n{said.getvalue()}"
        ) from error
    return bytes(code.code)
