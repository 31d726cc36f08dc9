"""Who may import whom, and what ``import tensorfast`` may load."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LEAVES = (
    "torch",
    "tensorfast.precision",
    "tensorfast.blocks",
    "tensorfast.matmul",
    "tensorfast._check",
    "tensorfast.arrays",
    "tensorfast.results",
    "tensorfast.unfolding",
    "tensorfast.progress",
)
IMPLEMENTATIONS = ("tensorfast.reference", "tensorfast.baseline", "tensorfast.kernels")
# Engines go through the operations, or straight to the plain-torch formulation where the
# cost of calling a registered operation shows.
ENGINE = (
    *LEAVES,
    "tensorfast.ops",
    "tensorfast.baseline",
    "tensorfast.reconstruct",
    "tensorfast.convergence",
)
METHODS = (
    "tensorfast.svd",
    "tensorfast.metrics",
    "tensorfast.cp",
    "tensorfast.tucker",
    "tensorfast.nn",
)

# A module, or a package with all it holds: what it may import besides itself and the standard
# library. What is not listed is not allowed; a module without a row is an error.
MAY_IMPORT = {
    "tensorfast.precision": ("torch",),
    "tensorfast._check": ("torch", "tensorfast.precision"),
    "tensorfast.arrays": ("torch", "numpy", "cupy", "jax", "tensorfast._check"),
    "tensorfast.results": ("torch", "numpy", "tensorfast._check", "tensorfast.arrays"),
    "tensorfast.unfolding": ("torch", "tensorfast._check", "tensorfast.arrays"),
    "tensorfast.progress": ("tqdm",),
    "tensorfast.reference": ("torch",),
    "tensorfast.blocks": ("torch",),
    "tensorfast.matmul": ("torch",),
    "tensorfast.baseline": LEAVES,
    "tensorfast.kernels": ("torch", "triton"),
    "tensorfast._dispatch": (*LEAVES, *IMPLEMENTATIONS),
    "tensorfast.ops": (*LEAVES, *IMPLEMENTATIONS, "tensorfast._dispatch"),
    "tensorfast.reconstruct": (*LEAVES, "tensorfast.baseline", "tensorfast.batch"),
    "tensorfast.convergence": LEAVES,
    "tensorfast.ahead": (*LEAVES, "tensorfast.convergence"),
    "tensorfast.batch": (*LEAVES, "tensorfast.baseline", "tensorfast.convergence"),
    "tensorfast.svd": ENGINE,
    "tensorfast.metrics": (*ENGINE, "numpy", "scipy"),
    "tensorfast.cp": (
        *ENGINE,
        "tensorfast.ahead",
        "tensorfast.batch",
        "tensorfast.svd",
        "tensorfast._dispatch",
        "tensorfast.cuda",
        "tensorfast.kernels.devices",
    ),
    "tensorfast.ranks": (*LEAVES, "tensorfast.cp", "tensorfast.metrics", "numpy", "matplotlib"),
    "tensorfast.tucker": (
        *ENGINE,
        "tensorfast.ahead",
        "tensorfast.batch",
        "tensorfast.svd",
        "tensorfast._dispatch",
        "tensorfast.cuda",
        "tensorfast.kernels.devices",
    ),
    "tensorfast.nn": (
        *LEAVES,
        "tensorfast.ops",
        "tensorfast.cp",
        "tensorfast.tucker",
        "tensorfast.svd",
        "scipy",
        "matplotlib",
    ),
    # Of the kernels, their words for GPUs.
    "tensorfast.cuda": (
        *LEAVES,
        "tensorfast.convergence",
        "tensorfast.kernels.devices",
        "cuda",
    ),
    "tensorfast.backends": (
        *ENGINE,
        *METHODS,
        "numpy",
        "tensorly",
    ),
    "tensorfast.testing": (*LEAVES, "tensorfast.reference", "tensorfast.metrics"),
    "tensorfast.__init__": (*ENGINE, *METHODS, "tensorfast.ranks", "tensorfast._dispatch"),
}


def modules(root: Path) -> dict[str, Path]:
    """Map the name of every module of the library to its file; a package is ``name.__init__``."""
    found = {}
    for path in [*root.glob("tensorfast/**/*.py"), *root.glob("kernels/**/*.py")]:
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts if parts[0] == "tensorfast" else ("tensorfast", *parts))] = path
    return found


def imports(name: str, source: str, known: Iterable[str]) -> Iterator[str]:
    """Yield the full name of whatever module `name` imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                parents = name.split(".")[:-level] if level else []
                base = ".".join([*parents, module] if module else parents)
                for alias in aliases:
                    inner = f"{base}.{alias.name}"
                    yield inner if inner in known or f"{inner}.__init__" in known else base
            case ast.Call(
                func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(target)), *_]
            ):
                yield target


def covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def violations(root: Path) -> list[str]:
    """Name every import under `root` that the table does not allow."""
    found = []
    files = modules(root)
    for name, path in sorted(files.items()):
        row = next((row for row in MAY_IMPORT if covers(row, name)), None)
        if row is None:
            found.append(f"{name} has no row in MAY_IMPORT")
            continue
        for target in imports(name, path.read_text(encoding="utf-8"), files):
            allowed = (row, *MAY_IMPORT[row], *sys.stdlib_module_names)
            if not any(covers(prefix, target) for prefix in allowed):
                found.append(f"{name} imports {target}")
    return found


def newly_loaded(statement: str) -> set[str]:
    """Give the modules that `statement` loads in a fresh process which has imported torch."""
    program = (
        f"import json, sys, torch; before = set(sys.modules); {statement}; "
        "assert not torch.cuda.is_initialized(), 'the GPU was touched'; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_imports_follow_the_table():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("tensorfast/reference.py", "import numpy as np", "reference imports numpy"),
        ("tensorfast/ops/ttm.py", "from ..cp import als", "ops.ttm imports tensorfast.cp"),
        ("tensorfast/ops/ttm.py", "from .. import tucker", "ops.ttm imports tensorfast"),
        ("tensorfast/cp/__init__.py", "from ..kernels import x", "imports tensorfast.kernels"),
        ("kernels/ttm.py", "from tensorfast import _check", "imports tensorfast._check"),
        ("kernels/ttm.py", "from .._check import x", "kernels.ttm imports tensorfast._check"),
        ("tensorfast/tucker.py", "def f():\n    import kernels", "tucker imports kernels"),
        ("tensorfast/svd.py", "import bench.problems", "svd imports bench.problems"),
        ("tensorfast/svd.py", "from tests.conftest import x", "svd imports tests.conftest"),
        ("tensorfast/svd.py", "importlib.import_module('triton')", "svd imports triton"),
        ("tensorfast/novel.py", "", "novel has no row"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, file, source, message):
    for name, text in {"tensorfast/_check.py": "import torch", file: source}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (found,) = violations(tmp_path)
    assert message in found


def test_import_loads_no_optional_part():
    ours = ("tensorfast.kernels", "tensorfast.cuda")
    optional = ("triton", "cuda", "jax", "matplotlib", "scipy", "tensorly", "tqdm", *ours)
    loaded = newly_loaded("import tensorfast")
    assert "tensorfast" in loaded
    assert not {name for name in loaded if any(covers(prefix, name) for prefix in optional)}


def test_newly_loaded_sees_what_is_loaded():
    assert "tensorfast.kernels" in newly_loaded("import tensorfast.kernels")
