"""What the kernels take of each GPU on typical problems: the tables of ``docs/kernels.md``.

``python -m bench.kernel_table`` compiles and writes them, ``--check`` tells whether they are out of
date. All numbers are the compiler's, so the page names its version.
"""

from pathlib import Path

import triton

from bench.cases import Case
from bench.kernel_checks import meant_unit
from bench.launches import compiled, note
from bench.tables import between, keep, table
from tensorfast.kernels.devices import CHIPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kernels.md"

#: What is stored, and the user's precision.
ARITHMETICS = (
    ("float32", "ieee"),
    ("float32", "tf32"),
    ("float32", "bf16"),
    ("bfloat16", "ieee"),
    ("float16", "ieee"),
    ("float64", "ieee"),
)

CUBE, C_ORDER = (512, 512, 512), (0, 1, 2)

#: Calls by the name of their table: operation, modes, rank, arithmetics.
CALLS = {
    "mttkrp-first": ("mttkrp", (0,), 32, ARITHMETICS),
    "mttkrp-last": ("mttkrp", (2,), 32, ARITHMETICS),
    "ttm": ("ttm", (0,), 64, ARITHMETICS[:3]),
    "slab": ("slab_pass", (0, 1), 32, ARITHMETICS),
    "gram": ("gram", (0,), 0, ARITHMETICS),
    "partial": ("contract_partial", (1,), 32, (ARITHMETICS[0], ARITHMETICS[-1])),
    "residual": ("residual", (0, 1, 2), 32, ARITHMETICS[::3] + ARITHMETICS[-1:]),
    "norm": ("squared_norm", (0, 1, 2), 0, ARITHMETICS[::3] + ARITHMETICS[-1:]),
    "eigenvectors": ("eigenvectors", (0,), 96, ARITHMETICS[-1:]),
    "khatri-rao": ("khatri_rao", (1, 2), 32, (ARITHMETICS[0], ARITHMETICS[-1])),
}

HEAD = [
    "stored",
    "`precision`",
    "GPU",
    "mode",
    "tile",
    "warps",
    "registers",
    "shared memory",
    "tensor cores",
    "multiply-adds",
    "16-byte loads",
    "spills",
]


def cells(launch, report):
    """Return a row of a table.

    Parameters
    ----------
    launch : bench.launches.Launch
    report : bench.sass.Report

    Returns
    -------
    list of str
    """
    key, counts, unit = launch.configuration, report.counts, meant_unit(launch.configuration)
    moved = "stores" if key.kernel == "khatri_rao_kernel" else "loads"
    return [
        launch.case.dtype,
        f'`"{launch.case.precision}"`',
        f"sm_{key.capability}",
        f"`{key.mode}`" if key.mode else "",
        " x ".join(map(str, key.product)),
        str(report.warps),
        str(report.registers),
        f"{report.shared / 1024:.1f} KiB",
        f"{counts[unit]} {unit}" if unit and report.products else "",
        str(counts["DFMA" if key.dtypes[-1] == "float64" else "FFMA"]),
        f"{counts[f'16-byte {moved}']} of {counts[moved]}",
        str(counts["spills"]),
    ]


def rows():
    """Compile all calls.

    Returns
    -------
    dict of str to str
        The tables by name.
    """
    launches = {
        name: [
            note(Case(op, CUBE, C_ORDER, modes, rank, dtype, precision), capability)
            for dtype, precision in arithmetics
            for capability in CHIPS
        ]
        for name, (op, modes, rank, arithmetics) in CALLS.items()
    }
    reports = compiled(list({launch for several in launches.values() for launch in several}))
    return {
        name: table(
            [title.replace("loads", "stores") if name == "khatri-rao" else title for title in HEAD],
            [cells(launch, reports[launch]) for launch in several],
        )
        for name, several in launches.items()
    }


def written():
    """Return the page as it should be.

    Returns
    -------
    str
    """
    text = between(PAGE.read_text(encoding="utf-8"), "compiler", f"Triton {triton.__version__}")
    for name, content in rows().items():
        text = between(text, name, content)
    return text


if __name__ == "__main__":
    keep(PAGE, written, __doc__, "bench.kernel_table")
