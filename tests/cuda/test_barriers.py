"""Nothing is read in shared memory that another thread writes with no barrier between.

Each kernel is built for ThreadSanitizer, and taken through all that it does. That a barrier is
missing is found: each of them is removed once.
"""

import re
import shutil
import subprocess

import pytest

from tensorfast.cuda import sources

BARRIER = re.compile(r"(?:__sync(?:threads|warp)|cluster_barrier)\(\);")
MACROS = {
    "cp_als_small": (("REAL", "float"), ("WIDTH", "8"), ("CLUSTERED", "1")),
    "sthosvd_small": (("REAL", "float"),),
    "hooi_small": (("REAL", "float"),),
}
#: A block for each tensor, and not a cluster.
ALONE = (("CLUSTERED", "0"),)
# Without what only the device has for the barriers themselves.
DEVICE = re.compile(r"#if CLUSTERED && !defined\(ON_HOST\).*?#endif", re.DOTALL)
TEXTS = {kernel: DEVICE.sub("", sources.expanded(f"{kernel}.cu")) for kernel in MACROS}
PLACES = {
    kernel: [match.span() for match in BARRIER.finditer(text)] for kernel, text in TEXTS.items()
}
# In a sum over the block, where rows are gathered, and where a mode's rows are solved for; between
# steps of rotations; after a projection.
QUICK = {"cp_als_small": (0, 2, 10), "sthosvd_small": (6,), "hooi_small": (9,)}


@pytest.fixture(scope="module")
def watched(build):
    """Return a function that builds and runs a kernel's program with another text."""

    def run(kernel, text, macros=()):
        options = ("-fsanitize=thread", "-Wno-tsan")
        chosen = {**dict(MACROS[kernel]), **dict(macros)}.items()
        try:
            program = build(f"{kernel}_watched.cpp", chosen, text, *options)
        except subprocess.CalledProcessError:
            pytest.skip("the C++ compiler has no ThreadSanitizer")
        # The sanitizer wants memory where addresses are not drawn too far apart.
        quiet = [shutil.which("setarch"), "-R"] if shutil.which("setarch") else []
        return subprocess.run([*quiet, program], capture_output=True, text=True, check=False)

    return run


def without(text, place):
    """Return a text with a barrier less."""
    return text[: place[0]] + text[place[1] :]


# What each is taken through: the ends, a ridge, and the residual in double precision.
SAID = {
    "cp_als_small": [
        "20 sweeps, status 4",
        "20 sweeps, status 4",
        "20 sweeps, status 4",
        "1 sweeps, status 2",
        "20 sweeps, status 4",
    ],
    "sthosvd_small": ["status 1"] * 4,
    "hooi_small": [
        "4 sweeps, status 4",
        "2 sweeps, status 1",
        "4 sweeps, status 4",
        "4 sweeps, status 4",
    ],
}


@pytest.mark.parametrize(
    ("kernel", "macros"), [*((kernel, ()) for kernel in MACROS), ("cp_als_small", ALONE)]
)
def test_no_two_threads_race(watched, kernel, macros):
    done = watched(kernel, TEXTS[kernel], macros)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    starts = [re.split(", (?:ridge|error)", line)[0] for line in said]
    assert starts == SAID[kernel]
    if kernel == "cp_als_small":
        assert "ridge 0e+00" not in said[3]
    else:
        assert float(said[-1].rpartition(" ")[2]) < 1e-6


@pytest.mark.parametrize(
    ("kernel", "number"),
    [
        (kernel, n) if n in QUICK[kernel] else pytest.param(kernel, n, marks=pytest.mark.slow)
        for kernel, places in PLACES.items()
        for n in range(len(places))
    ],
)
def test_a_barrier_that_is_missing_is_found(watched, kernel, number):
    done = watched(kernel, without(TEXTS[kernel], PLACES[kernel][number]))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert done.returncode != 0


def test_a_barrier_that_not_all_threads_reach_is_found(watched):
    text, (place, _) = TEXTS["cp_als_small"], PLACES["cp_als_small"][0]
    done = watched("cp_als_small", text[:place] + "if (threadIdx.x)" + text[place:])
    assert "a barrier that not all threads reach" in done.stdout
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("kernel", "sound", "short"),
    [
        ("cp_als_small", "in.end = in.x +", "in.end = in.x - 2 * item +"),
        ("sthosvd_small", "in.end = in.tensor[1] +", "in.end = in.tensor[1] - 2 * item +"),
        ("hooi_small", "in.end = at;", "in.end = at - 16;"),
    ],
)
def test_a_write_behind_the_end_is_found(watched, kernel, sound, short):
    assert sound in TEXTS[kernel]
    done = watched(kernel, TEXTS[kernel].replace(sound, short))
    assert "a write behind the end of shared memory" in done.stdout
