"""Two threads: the same bits again, and the results of one thread up to rounding."""

import os
import subprocess
import sys

import numpy as np
import pytest

RUN = """
import sys, numpy as np, torch, tensorfast as tf
from tensorfast.testing import planted
assert torch.get_num_threads() == int(sys.argv[1])
x = planted((90, 70, 80), 6, noise=0.1, dtype=torch.float32)[0].contiguous()
cp = tf.cp_als(x, 6, seed=0, n_iter_max=8, tol=0, normalize=False)
tucker = tf.hooi(x, 5, n_iter_max=3, tol=0)
np.savez(sys.argv[2], core=tucker.core, *cp.factors, *tucker.factors)
"""


def results(folder, name: str, threads: int) -> dict[str, np.ndarray]:
    path = folder / f"{name}.npz"
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    command = [sys.executable, "-c", RUN, str(threads), str(path)]
    subprocess.run(command, env=os.environ | limits, check=True)
    return dict(np.load(path))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_threads(tmp_path):
    first, again = (results(tmp_path, name, 2) for name in ("first", "again"))
    alone = results(tmp_path, "alone", 1)
    assert len(first) == 7
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        np.testing.assert_allclose(array, alone[name], rtol=0, atol=1e-3 * np.abs(array).max())
