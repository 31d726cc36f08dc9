"""What several starts, and a sweep over ranks, cost beside runs of their own.

``python -m bench.starts``: one thread; the times of one process in turns, the shortest of each, and
whether the errors agree. Not part of `bench.run`: no rival has starts that share their reads.
"""

import sys
import time

import torch

import tensorfast as tf
from tensorfast.testing import planted

SWEEPS = 50
STARTS = 8
RANKS, EACH = range(1, 11), 5


def cube():
    """Return the Indian Pines image in float32; see examples/indian_pines.py."""
    from tensorly.datasets import load_indian_pines

    return torch.as_tensor(load_indian_pines().tensor, dtype=torch.float32).contiguous()


def of_one_start(laps):
    """Time `STARTS` starts and one, at a fixed number of sweeps; the ratio is to be at most 4."""
    x, _ = planted((200, 200, 200), 8, noise=0.3, dtype=torch.float32)
    options = {"init": "random", "seed": 0, "tol": 0, "n_iter_max": SWEEPS}
    one, several = in_turns(
        laps,
        lambda: [tf.cp_als(x, 8, **options).info],
        lambda: tf.cp_als(x, 8, n_init=STARTS, **options).info.starts,
    )
    report(f"200^3, R 8, {STARTS} starts to one", several, one, several[1][:1])


def of_a_sweep(laps, tol):
    """Time `rank_sweep` and a run for each of its starts; the ratio is to be at most 1/4."""
    x = cube()
    options = {"tol": tol, "n_iter_max": SWEEPS}

    def one_by_one():
        return [
            tf.cp_als(x, rank, init="random" if j else "svd", seed=j, **options).info
            for rank in RANKS
            for j in range(EACH)
        ]

    def sweep():
        found = tf.rank_sweep(x, RANKS, n_init=EACH, seed=0, **options)
        return [info for best in found.infos for info in best.starts]

    runs, together = in_turns(laps, one_by_one, sweep)
    name = f"Indian Pines, ranks 1 to 10, {EACH} starts, tol {tol:g}, to {len(runs[1])} runs"
    report(name, together, runs, together[1])


def in_turns(laps, *calls):
    """Return the shortest time of each call, and its last result."""
    best = [float("inf")] * len(calls)
    results = [None] * len(calls)
    for _ in range(laps):
        for at, call in enumerate(calls):
            begin = time.perf_counter()
            results[at] = list(call())
            best[at] = min(best[at], time.perf_counter() - begin)
    return list(zip(best, results, strict=True))


def report(name, ours, theirs, infos):
    """Print a ratio, and by how much the errors of the same starts differ."""
    gap = max(
        abs(a.rel_errors[-1] - b.rel_errors[-1]) for a, b in zip(infos, theirs[1], strict=True)
    )
    print(
        f"{name}: {ours[0]:.3f} s to {theirs[0]:.3f} s, {ours[0] / theirs[0]:.3f}; "
        f"errors differ by {gap:.1e} at most"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    laps = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread, shortest of {laps}")
    of_one_start(laps)
    of_a_sweep(laps, 0.0)
    of_a_sweep(laps, 1e-6)
