"""What a wheel and an sdist contain, and that an installed wheel works."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# Links to folders that are packaged from where they are.
LINKS = {"tensorfast/kernels": "kernels", "tensorfast/cuda/sources": "csrc/cuda"}
# What only a checkout needs.
CHECKOUT_ONLY = {".ci/run", ".gitignore", ".pre-commit-config.yaml", *LINKS}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(tree: Path, kind: str) -> Path:
    """Build a wheel or an sdist of `tree` with the installed setuptools, so without a network."""
    program = f"import setuptools.build_meta as backend; backend.build_{kind}({kind!r})"
    run(sys.executable, "-c", program, cwd=tree)
    (built,) = (tree / kind).iterdir()
    return built


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def sources():
    """Names of the files that git tracks, or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not (ROOT / ".git").exists() or shutil.which(command[0]) is None:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    names = set(run(*command, cwd=ROOT).split("\0")) - {""}
    return {name for name in names if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def tree(sources, tmp_path_factory):
    """Copy the sources: a build leaves files behind, and picks up those it finds."""
    copy = tmp_path_factory.mktemp("tree")
    for name in sources:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    return copy


@pytest.fixture(scope="module")
def wheel(tree):
    return build(tree, "wheel")


@pytest.fixture(scope="module")
def sdist(tree, wheel):
    """Build an sdist where a wheel was built, a module compiled and a benchmark tried before."""
    for leftover in ("bench/quick/machine/cp.json", "bench/__pycache__/run.pyc"):
        (tree / leftover).parent.mkdir(parents=True)
        (tree / leftover).touch()
    return build(tree, "sdist")


def test_wheel_holds_the_library_and_nothing_else(wheel):
    library = [*ROOT.glob("tensorfast/**/*.py"), *ROOT.glob("kernels/**/*.py")]
    library += [*ROOT.glob("csrc/cuda/*.cu"), *ROOT.glob("csrc/cuda/*.cuh")]
    names = {path.relative_to(ROOT).as_posix() for path in library}
    # Through a link or not, what is linked to belongs under the package.
    for link, folder in LINKS.items():
        names = {re.sub(f"^{folder}/", f"{link}/", name) for name in names}

    installed = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert installed == names | {"tensorfast/py.typed"}


def test_wheel_metadata(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents(wheel))


def test_sdist_holds_the_sources_and_nothing_else(sources, sdist):
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if not member.isdir()}
    made = {"PKG-INFO", "setup.cfg"}
    assert made < files
    files = {name for name in files - made if ".egg-info/" not in name}
    assert files == sources - CHECKOUT_ONLY
    assert {"docs/cp.md", "examples/indian_pines.py", "bench/run.py"} < files


def test_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        # Before Python 3.11.4 there were no filters.
        archive.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    (unpacked,) = tmp_path.iterdir()
    assert contents(build(unpacked, "wheel")) == contents(wheel)


def test_kernels_are_imported_from_the_package_only():
    run(sys.executable, "-c", "import tensorfast.kernels", cwd=ROOT)
    with pytest.raises(AssertionError, match=r"ImportError: .* import it as tensorfast.kernels"):
        run(sys.executable, "-c", "import kernels", cwd=ROOT)


def test_installed_wheel_decomposes_an_array(wheel, tmp_path):
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)

    # The environment borrows torch and what torch needs; a path in a .pth file brings no
    # editable install along.
    (packages,) = environment.glob("[Ll]ib/**/site-packages")
    borrowed = {str(Path(module.__file__).parents[1]) for module in (np, torch)}
    (packages / "borrowed.pth").write_text("\n".join(borrowed))

    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np, tensorfast, tensorfast.kernels\n"
        "x = np.einsum('i,j,k->ijk', *[np.arange(1.0, n) for n in (5, 6, 7)])\n"
        "weights, factors = tensorfast.cp_als(x, 1, seed=0)\n"
        "assert all(isinstance(f, np.ndarray) for f in factors)\n"
        "assert np.allclose(np.einsum('r,ir,jr,kr->ijk', weights, *factors), x)\n"
        "print(tensorfast.__file__, tensorfast.kernels.__file__, sep='\\n')\n"
    )
    loaded = run(scripts / "python", "-I", program, cwd=tmp_path).split()
    assert all(Path(file).is_relative_to(packages) for file in loaded)
