"""Nothing is read in shared memory that another thread writes with no barrier between.

The kernel is built for ThreadSanitizer, and taken through all that it does. That a barrier is
missing is found: each of them is removed once.
"""

import re
import shutil
import subprocess

import pytest

from tensorfast.cuda import sources

SOURCE, BARRIER = "cp_als_small.cu", re.compile(r"(__syncthreads|cluster_barrier)\(\);")
MACROS = (("REAL", "float"), ("WIDTH", "8"))
# Without what only the device has for the barriers themselves.
TEXT = re.sub(
    r"#if CLUSTERED && !defined\(ON_HOST\).*?#endif", "", sources.expanded(SOURCE), flags=re.DOTALL
)
PLACES = list(BARRIER.finditer(TEXT))
# In a sum over the block, where rows are gathered, and where a mode's rows are solved for.
QUICK = (0, 2, 10)


@pytest.fixture(scope="module")
def watched(build):
    """Return a function that builds and runs the program with another text of the kernel."""

    def run(text, clustered=1):
        options = ("-fsanitize=thread", "-Wno-tsan")
        try:
            program = build(
                "cp_als_small_watched.cpp", (*MACROS, ("CLUSTERED", clustered)), text, *options
            )
        except subprocess.CalledProcessError:
            pytest.skip("the C++ compiler has no ThreadSanitizer")
        # The sanitizer wants memory where addresses are not drawn too far apart.
        quiet = [shutil.which("setarch"), "-R"] if shutil.which("setarch") else []
        return subprocess.run([*quiet, program], capture_output=True, text=True, check=False)

    return run


def without(place):
    """Return the text with a barrier less."""
    return TEXT[: place.start()] + TEXT[place.end() :]


@pytest.mark.parametrize("clustered", [0, 1], ids=["a block", "a cluster"])
def test_no_two_threads_race(watched, clustered):
    done = watched(TEXT, clustered)
    assert (done.returncode, done.stderr) == (0, "")
    # What it is taken through: the ends, a ridge, and the residual in double precision.
    said = done.stdout.splitlines()
    assert [line.partition(", ridge")[0] for line in said] == [
        "20 sweeps, status 4",
        "20 sweeps, status 4",
        "20 sweeps, status 4",
        "1 sweeps, status 2",
        "20 sweeps, status 4",
    ]
    assert "ridge 0e+00" not in said[3]


@pytest.mark.parametrize(
    "number",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in range(len(PLACES))],
)
def test_a_barrier_that_is_missing_is_found(watched, number):
    done = watched(without(PLACES[number]))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert done.returncode != 0


def test_a_barrier_that_not_all_threads_reach_is_found(watched):
    at = PLACES[QUICK[0]].start()
    odd = TEXT[:at] + "if (threadIdx.x)" + TEXT[at:]
    done = watched(odd)
    assert "a barrier that not all threads reach" in done.stdout
    assert done.returncode != 0


def test_a_write_behind_the_end_is_found(watched):
    done = watched(TEXT.replace("in.end = in.x +", "in.end = in.x - 2 * item +"))
    assert "a write behind the end of shared memory" in done.stdout
