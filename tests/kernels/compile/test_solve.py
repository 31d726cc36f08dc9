"""What no result under the interpreter can tell: where threads wait, and the width of constants."""

import re

import pytest

from bench import sass
from bench.cases import SMALL, Case


def intermediate(op, rank, capability=90):
    """Return the program of an operation as Triton has it before it decides over layouts."""
    with sass.compiling_for(capability) as compiled:
        Case(op, (512, 512, 512), (0, 1, 2), (0,), rank, "float64", "ieee").run(capability)
    return compiled[0].asm["ttir"]


#: Loads, stores and barriers as they stand in the program.
PHASES = {
    # H; its diagonal, twice; a tile; four rows and what they give; the ridge and the flag, NaN.
    ("factorize", 16): "LLS|LLSS|LLS|" + "L" * 22 + "SSSS|LLS|SS",
    # The same, but for the terms above a block on its diagonal, L^T beside L^-1, and after a
    # barrier the blocks left and right of the diagonal.
    ("factorize", 200): "LLS|LLSS|LLLLS|" + "L" * 22 + "SSSSSSSS|LLLLSLLLLLSS|LLS|SS",
    # The flag; M, the shift, the current factor, L^-1; the first product, L^-1 and the factor;
    # the Gram matrix.
    ("solve", 16): "LLLLLLS|LLS|S",
    ("solve", 200): "LLLLLLS|LLS|",
    # T, twice, W; four columns; their lengths; those of others, values, vectors.
    ("eigenvectors", 16): "LLS|LLSS|LS|LSLS",
    ("eigenvectors", 200): "LLS|LLSS|LS|LSLS",
}


@pytest.mark.parametrize(("op", "rank"), PHASES)
def test_phases_wait_for_each_other(op, rank):
    # Triton 3.6 says gpu.barrier, later ones ttg.barrier all.
    found = re.findall(r"(?:gpu|ttg)\.(barrier)|tt\.(store|load)\b", intermediate(op, rank))
    marks = {"barrier": "|", "store": "S", "load": "L"}
    assert "".join(marks[barrier or access] for barrier, access in found) == PHASES[op, rank]


@pytest.mark.parametrize("rank", [16, 200])
@pytest.mark.parametrize("op", SMALL)
def test_nothing_is_computed_in_32_bits(op, rank):
    code = intermediate(op, rank)
    assert "f64" in code
    assert "f32" not in code
