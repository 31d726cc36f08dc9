"""Small calls of every kernel, for compute-sanitizer to watch: ``python -m ...small_calls DEVICE``.

The results are held to float64 as well: under the sanitizer memory is poisoned differently.
"""

import sys

import torch

from bench.gpu_parts.calls import Call, Maker
from tensorfast.cuda.compiler import missing

#: No multiples of a tile, more than one tile.
SHAPE = (37, 70, 45)

CALLS = (
    *(Call("mttkrp", SHAPE, mode, 20) for mode in range(3)),
    Call("mttkrp", SHAPE, 1, 40, precision="tf32"),
    Call("mttkrp", SHAPE, 0, 20, dtype="bfloat16"),
    Call("mttkrp", SHAPE, 2, 20, dtype="float16"),
    Call("mttkrp", SHAPE, 0, 20, dtype="float64"),
    Call("ttm", SHAPE, 1, 20),
    Call("gram", SHAPE, 0),
    Call("gram", SHAPE, 2),
    Call("khatri_rao", SHAPE[:2], 0, 20),
    Call("partial", SHAPE[:2], 0, 20),
    Call("partial", SHAPE[:2], 1, 20),
    Call("slab", SHAPE, 0, 20),
    Call("slab", SHAPE, 2, 20),
    # A tile of normal equations, and blocks of them.
    Call("sweeps", SHAPE, rank=20),
    Call("sweeps", SHAPE, rank=70),
    Call("residual", SHAPE, rank=20),
    Call("residual", SHAPE, rank=70),
)

#: What NVRTC has to be there for: a side of one mode and of several, all widths of a tile.
FITS = (
    Call("fits", (3, 7, 6, 5), rank=3),
    Call("fits", (3, 40, 6, 5), rank=5),
    Call("fits", (3, 3, 4, 2, 3), rank=9, dtype="float64"),
    Call("fits", (3, 2, 3, 2, 3, 2), rank=17),
    # Dealt to the blocks of a cluster, where there are clusters.
    Call("fits", (2, 44, 40, 37), rank=3),
)

#: What of these is not measured by itself.
PARTS_OF_A_FIT = {"sweeps", "residual", "fits"}

#: Far above rounding in any of these types, far below a wrong entry.
TOLERANCE = 1e-2


def main(device):
    """Make all calls; 1 where a result is wrong.

    Parameters
    ----------
    device : str
    """
    maker, wrong = Maker(torch.device(device)), 0
    absent = missing() if device == "cuda" else ()
    for reason in absent:
        print(f"no small fits: {reason}", flush=True)
    for call in CALLS if absent else CALLS + FITS:
        error = maker.make(call)
        error = error.error(error.ours())
        wrong += not error < TOLERANCE
        print(f"{call}: error {error:.1e}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
