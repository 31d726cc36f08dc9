"""Nothing is read in shared memory that another thread writes with no barrier between.

The kernel is built for ThreadSanitizer, and taken through all that it does. That a barrier is
missing is found: each of them is removed once.
"""

import re
import shutil
import subprocess

import pytest

from tensorfast.cuda import sources

SOURCE, BARRIER = "cp_als_small.cu", "__syncthreads();"
MACROS = (("REAL", "float"), ("WIDTH", "8"))
TEXT = sources.expanded(SOURCE)
PLACES = [match.start() for match in re.finditer(re.escape(BARRIER), TEXT)]
# In a sum over the block, and where a mode's rows are solved for.
QUICK = (0, 5)


@pytest.fixture(scope="module")
def watched(build):
    """Return a function that builds and runs the program with another text of the kernel."""

    def run(text):
        options = ("-fsanitize=thread", "-Wno-tsan")
        try:
            program = build("cp_als_small_watched.cpp", MACROS, text, *options)
        except subprocess.CalledProcessError:
            pytest.skip("the C++ compiler has no ThreadSanitizer")
        # The sanitizer wants memory where addresses are not drawn too far apart.
        quiet = [shutil.which("setarch"), "-R"] if shutil.which("setarch") else []
        return subprocess.run([*quiet, program], capture_output=True, text=True, check=False)

    return run


def without(place):
    """Return the text with a barrier less."""
    return TEXT[:place] + TEXT[place + len(BARRIER) :]


def test_no_two_threads_race(watched):
    done = watched(TEXT)
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
    odd = TEXT[: PLACES[1]] + "if (threadIdx.x)" + TEXT[PLACES[1] :]
    done = watched(odd)
    assert "a barrier that not all threads reach" in done.stdout
    assert done.returncode != 0


def test_a_write_behind_the_end_is_found(watched):
    done = watched(TEXT.replace("in.end = in.x +", "in.end = in.x - 2 * item +"))
    assert "a write behind the end of shared memory" in done.stdout
