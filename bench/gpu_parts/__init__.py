"""The parts of ``make gpu``, in order of importance; each is a module here and runs by itself.

What a part is expected to take is reasoned for an H200 with 16 cores, not yet measured. Nothing
here imports torch, so that ``bench/gpu.py --dry-run`` answers at once, anywhere.
"""

import sys
from dataclasses import dataclass

#: What a part may take, in terms of what is predicted.
PATIENCE = 1.5

#: Seconds for a process to start, and of its time that it may not use: to write, and to end.
START, RESERVE = 10.0, 5.0


@dataclass(frozen=True)
class Part:
    """One part, run in a process of its own.

    Attributes
    ----------
    name : str
        Of its module and of its record, ``<name>.json``.
    seconds : float
        What it is expected to take, the start of its process included.
    what : str
        A line about it.
    rest : bool
        Whether it takes all the time that is left.
    """

    name: str
    seconds: float
    what: str
    rest: bool = False

    def command(self, record, seconds, rehearse):
        """Return the command that runs the part.

        Parameters
        ----------
        record : Path
            Where its record is; it has been begun.
        seconds : float
            After which the part has to have ended.
        rehearse : bool
            On a CPU, with tiny sizes.

        Returns
        -------
        list of str
        """
        command = [sys.executable, "-m", "bench.gpu_parts", self.name, str(record)]
        return [*command, f"--seconds={seconds:.1f}", *(["--rehearse"] if rehearse else [])]

    def allowed(self, left):
        """Return the seconds that the part may take where so many are left of the budget."""
        return left if self.rest else min(left, START + PATIENCE * self.seconds)


PARTS = (
    Part("machine", 15, "the GPU, its software, its measured bandwidth and matrix-product rates"),
    Part("tests", 130, "the tests that need a GPU"),
    Part("kernels", 80, "every kernel, by mode, rank, type and precision, beside plain torch"),
    Part("sweep", 110, "CP-ALS a sweep, beside TensorLy, dimension trees and einsum"),
    Part("tucker", 45, "HOOI and ST-HOSVD, beside TensorLy"),
    Part("fit", 25, "CP-ALS to a given fit, beside TensorLy"),
    Part("fits", 28, "many small CP and Tucker fits at once, a thread block each"),
    Part("sync", 15, "where the sweeps wait for the GPU"),
    Part("sanitizer", 60, "compute-sanitizer on small calls of every kernel"),
    Part("tune", 12, "better tiles, with the time that is left", rest=True),
)


def named(names):
    """Return the parts of these names, in their own order.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    list of Part

    Raises
    ------
    ValueError
        Where there is no part of a name.
    """
    names = list(names)
    unknown = sorted(set(names) - {part.name for part in PARTS})
    if unknown:
        known = ", ".join(part.name for part in PARTS)
        raise ValueError(f"unknown parts {unknown}; the parts are {known}")
    return [part for part in PARTS if part.name in names]
