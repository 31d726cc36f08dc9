"""One thread count for every library of a run, and each library as its users have it.

BLAS and OpenMP read their settings when they are loaded, so `pin` is called before NumPy, torch or
a rival is imported. This module therefore imports none of them.
"""

import os

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

#: Settings that hold a library to less than the machine can do; some machines come with them.
HELD_BACK = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DEBUG_CPU_TYPE",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
)


def cores():
    """Return how many cores this process may use.

    Returns
    -------
    int
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count():
    """Return the thread count: ``OMP_NUM_THREADS`` where it is set, else the usable cores.

    Returns
    -------
    int
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    return cores()


def pin(threads=None):
    """Set the thread count in every variable that a BLAS or an OpenMP runtime reads.

    What would hold a library to an older instruction set is taken out of the environment.

    Parameters
    ----------
    threads : int, optional
        Default: `count`.

    Returns
    -------
    int
        The thread count set.
    """
    threads = threads or count()
    for variable in VARIABLES:
        os.environ[variable] = str(threads)
    for variable in HELD_BACK:
        os.environ.pop(variable, None)
    return threads
