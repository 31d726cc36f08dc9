"""What no result under the interpreter can tell, as that runs one thread: where threads wait."""

import re

from bench import sass
from bench.cases import Case


def test_the_phases_of_a_slab_pass_wait_for_each_other():
    with sass.compiling_for(90) as compiled:
        Case("slab_pass", (512, 512, 512), (0, 1, 2), (0, 1), 512, "float32", "ieee").run(90)
    code = compiled[0].asm["ttgir"]
    # Triton 3.6 says gpu.barrier, later ones ttg.barrier all.
    marks = {"barrier": "|", "store": "S", "load": "L"}
    found = re.findall(r"(?:gpu|ttg)\.(barrier)|tt\.(store|load)\b", code)
    events = "".join(marks[barrier or access] for barrier, access in found)
    # Y and M are added to and stored; M and H^-1 read, A stored; A, Y and Z read, Z stored.
    assert events == "LLLSS|LLS|LLLS|"
