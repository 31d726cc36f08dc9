"""What `explain` says that a fit takes against what it allocates, launches noted and not made."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tensorfast as tf
from bench import sass
from tensorfast import baseline
from tensorfast.cp import explained
from tensorfast.cp.ahead import als_ahead
from tensorfast.cp.algebra import FusedAlgebra
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.schedule import all_schedules
from tensorfast.cp.workspace import SCRAPS
from tensorfast.kernels import residual
from tensorfast.ops import norms
from tensorfast.ops.fused import Fused
from tensorfast.precision import compute_dtype

#: As many sweeps as it takes to note the components three times.
SWEEPS = 66

#: An error that three scalars do not resolve, so small that the residual is formed in double.
ERROR = 5e-5


#: Bytes by which torch's allocator gives memory.
PIECE = 512


class Allocations(TorchDispatchMode):
    """Follows the bytes that live, as two allocators of which neither gives anything back.

    Attributes
    ----------
    pool : int
        Which of them is in use.
    peaks : list of int
        The most of each so far.
    """

    def __init__(self):
        super().__init__()
        self.pool, self.peaks = 0, [0, 0]
        self._live = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        self._live = {at: held for at, held in self._live.items() if not held[0].expired()}
        for storage in (t.untyped_storage() for t in tensors(result)):
            at = storage._cdata
            if at not in given and at not in self._live:
                size = -(-storage.nbytes() // PIECE) * PIECE
                self._live[at] = StorageWeakRef(storage), size, self.pool
        now = sum(size for _, size, pool in self._live.values() if pool == self.pool)
        self.peaks[self.pool] = max(self.peaks[self.pool], now)
        return result


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Device:
    """Stands for a GPU: every sweep asks for attention, and what is recorded is the judgement."""

    def __init__(self, allocations):
        self.allocations, self.recorded = allocations, None

    def act(self, kernel, args, options):
        if kernel.__name__ == "residual_kernel":
            args[3].fill_(ERROR**2 / len(args[3]))
        elif kernel.__name__ == "judge_kernel":
            state = args[4:7]
            if self.recorded is None:
                judge(*state)
            else:
                self.recorded.append(state)

    def capture(self, step):
        self.recorded, self.allocations.pool = [], 1
        step()
        graph = Graph(self.recorded)
        self.recorded, self.allocations.pool = None, 0
        return graph


class Graph:
    def __init__(self, recorded):
        self.recorded = recorded

    def replay(self):
        for state in self.recorded:
            judge(*state)


def judge(log, active, count):
    if active:
        log[int(count) % len(log)].fill_(1.0)
        count.add_(1)
        active.fill_(False)


def allocated(x, rank, schedule, monkeypatch):
    """Return the bytes of a whole fit besides ``x``."""
    monkeypatch.setattr(baseline, "sum_of_squares", lambda x: torch.ones(()))
    monkeypatch.setattr(norms, "squared_residual", residual.residual)
    wide = compute_dtype(x.dtype)
    free = sorted({mode for run in schedule.runs for mode in run})
    allocations = Allocations()
    device = Device(allocations)
    with sass.launching(device.act), allocations, torch.inference_mode():
        operand = DenseOperand(x, Fused("ieee"))
        start = [torch.zeros(n, rank, dtype=wide) for n in x.shape]
        _, info = als_ahead(
            operand,
            start,
            FusedAlgebra(operand.fused),
            n_iter_max=SWEEPS,
            tol=0.0,
            free=free,
            schedule=schedule,
            capture=device.capture,
        )
    assert info.rel_errors == pytest.approx([ERROR] * SWEEPS)
    return sum(allocations.peaks)


def predicted(x, rank, schedule, monkeypatch):
    monkeypatch.setattr(explained, "fused_for", lambda *_: Fused("ieee"))
    monkeypatch.setattr(explained, "schedule_of", lambda *_: schedule)
    free = {mode for run in schedule.runs for mode in run}
    fixed = [mode for mode in range(x.ndim) if mode not in free]
    plan = tf.explain("cp_als", x, rank, fixed_modes=fixed)
    assert plan.engine == "kernels"
    return plan.workspace


#: Where partial results, the solve of rows, that of wide matrices, Gram matrices, the components
#: that are noted, and the residual take most; and next to nothing.
PROBLEMS = [
    ((100, 90, 80), 33, torch.float32),
    ((200, 150, 100), 16, torch.bfloat16),
    ((64, 64, 64), 64, torch.float32),
    ((40, 50, 60), 200, torch.float32),
    ((20, 30, 40), 512, torch.float64),
    ((20000, 50), 64, torch.float32),
    ((2000, 1500), 100, torch.float64),
    ((20000, 400), 17, torch.float32),
    ((24, 20, 16, 12), 10, torch.float32),
    ((6, 5, 4, 6, 5), 256, torch.float64),
    ((4,) * 8, 2, torch.float32),
]


@pytest.mark.parametrize(("shape", "rank", "dtype"), PROBLEMS, ids=str)
def test_a_fit_takes_what_is_predicted(shape, rank, dtype, monkeypatch):
    x, order = torch.empty(shape, dtype=dtype), len(shape)
    schedules = [*all_schedules(range(order)), *all_schedules(range(order - 1), fixed=True)]
    for schedule in schedules[:: order // 2]:
        taken = allocated(x, rank, schedule, monkeypatch)
        most = predicted(x, rank, schedule, monkeypatch)
        assert taken <= most <= 1.2 * taken + SCRAPS, schedule


def test_allocations_are_followed():
    with Allocations() as allocations:
        a = torch.empty(1000, dtype=torch.float64)
        b = a[1:] * 2
        del a, b
        c = torch.empty(128)
        allocations.pool = 1
        d = torch.empty(1, dtype=torch.int8)
        assert len(c) > len(d)
    assert allocations.peaks == [2 * 8192, 512]
