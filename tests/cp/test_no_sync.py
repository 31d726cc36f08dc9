"""Nothing in a sweep on a GPU waits for the device: run without data, and read line by line."""

import ast
from pathlib import Path

import pytest
import torch

from bench import sass
from tensorfast import baseline
from tensorfast.cp.ahead import sweeps_of
from tensorfast.cp.algebra import FusedAlgebra
from tensorfast.cp.iterate import Iterate
from tensorfast.cp.operand import DenseOperand
from tensorfast.cp.schedule import all_schedules
from tensorfast.cp.update import LeastSquares
from tensorfast.ops.fused import Fused

ROOT = Path(__file__).resolve().parents[2]

#: What a sweep runs through, but for the host's half of it.
PATH = [
    "tensorfast/cp/algebra.py",
    "tensorfast/cp/iterate.py",
    "tensorfast/ahead/standing.py",
    "tensorfast/ahead/sweeps.py",
    "tensorfast/cp/tree.py",
    "tensorfast/ops/fused.py",
    "kernels/contraction.py",
    "kernels/partial.py",
    "kernels/cholesky.py",
    "kernels/solve.py",
    "kernels/judge.py",
    "kernels/jacobi.py",
    "kernels/gram.py",
]

#: Methods that wait for the device, functions that do, and conversions that do of a tensor; also
#: what copies numbers of the host, `torch.tensor`.
METHODS = {"item", "cpu", "tolist", "numpy", "nonzero", "synchronize", "is_nonzero", "tensor"}
FUNCTIONS = {"bool", "float", "equal", "allclose", "unique", "nonzero"}


class _Waits(ast.NodeVisitor):
    def __init__(self):
        self.found = []

    def visit_FunctionDef(self, node):
        jitted = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
        # What predicts a cost has plain numbers only.
        if not jitted and node.name not in ("cost", "expected"):
            self.generic_visit(node)

    def visit_Call(self, node):
        method, name = getattr(node.func, "attr", ""), getattr(node.func, "id", "")
        if method in METHODS or name in FUNCTIONS:
            self.found.append(f"line {node.lineno}: {ast.unparse(node)}")
        self.generic_visit(node)


def waits(source):
    """Return what in a module may wait for the device, outside of kernels."""
    visitor = _Waits()
    visitor.visit(ast.parse(source))
    return visitor.found


@pytest.mark.parametrize("path", PATH)
def test_no_line_of_a_sweep_waits(path):
    assert waits((ROOT / path).read_text()) == []


def test_what_waits_is_found():
    assert len(waits("def f(x):\n    if x.item() > float(x.sum()):\n        return x.cpu()")) == 3
    assert len(waits("torch.tensor([1.0], device=x.device)")) == 1
    assert waits("@triton.jit\ndef f(x):\n    return float(x)") == []


@pytest.fixture
def launches(monkeypatch):
    """Note launches on tensors without data, of which nothing can be read."""
    monkeypatch.setattr(baseline, "sum_of_squares", lambda x: torch.ones(()))
    names = []
    with sass.launching(lambda kernel, args, options: names.append(kernel.__name__)):
        yield names


def sweeps_on_nothing(shape, rank, schedule, dtype, algebra=None):
    x = torch.empty(shape, dtype=dtype, device="meta")
    operand = DenseOperand(x, Fused("ieee"))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    start = [torch.empty(n, rank, dtype=wide, device="meta") for n in shape]
    fit = Iterate.room_for(operand, start, rows=8)
    fit.begin(operand, start, tol=1e-6)
    algebra = (algebra or FusedAlgebra)(operand.fused)
    return operand, sweeps_of(operand, schedule, fit, algebra, range(len(shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(40, 30), (16, 40, 24), (8, 9, 10, 11), (4, 5, 6, 7, 8)], ids=str
)
def test_a_sweep_runs_without_data(launches, shape, dtype):
    modes = range(len(shape))
    for schedule in all_schedules(modes):
        operand, sweeps = sweeps_on_nothing(shape, 5, schedule, dtype)
        for _ in range(schedule.sweeps + 1):
            sweeps.launch()
        assert operand.schedule(5, modes).seconds > 0
    assert len(launches) > 3 * len(shape)


def test_a_sweep_that_waits_does_not_run_without_data(launches):
    class Waiting(FusedAlgebra):
        def update(self, fit, mode, product):
            LeastSquares()(fit.grams[0], product, fit.factors[mode])

    about = (8, 9, 10), 5, next(all_schedules(range(3))), torch.float32
    _, sweeps = sweeps_on_nothing(*about, algebra=Waiting)
    with pytest.raises((RuntimeError, NotImplementedError)):
        sweeps.launch()
