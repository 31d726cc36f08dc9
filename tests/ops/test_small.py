"""Bases by Cholesky factors, and who finds eigenvectors."""

import pytest
import torch

from tensorfast.kernels import jacobi
from tensorfast.ops import small
from tests.ahead.standins import factorize

KINDS = [
    "good",
    *(f"condition 1e{k}" for k in (4, 8, 12, 16)),
    "rank 1",
    "half the rank",
    "zero",
    "zero columns",
    "equal",
    "unit vectors twice",
    "graded",
    "wide range",
]


def matrix(kind, rows, columns):
    g = torch.Generator().manual_seed(rows + columns)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def spread(low, high):
        return torch.logspace(low, high, columns, dtype=torch.float64)

    if kind.startswith("condition"):
        u, v = torch.linalg.qr(normal(rows, columns)).Q, torch.linalg.qr(normal(columns, columns)).Q
        return u * spread(0, -float(kind.rpartition("e")[2])) @ v
    a = normal(rows, columns)
    if kind == "zero columns":
        a[:, ::2] = 0
    half = columns // 2 + 1
    return {
        "rank 1": a[:, :1] @ a[:1],
        "half the rank": a[:, :half] @ normal(half, columns),
        "zero": torch.zeros_like(a),
        "equal": a[:, :1].expand(-1, columns).clone(),
        "unit vectors twice": torch.eye(rows, dtype=a.dtype)[:, torch.arange(columns) // 2],
        "graded": a * spread(-30, 30),
        "wide range": a * spread(-150, 150),
    }.get(kind, a)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (3, 1), (7, 7), (40, 6), (60, 24), (256, 96), (24, 24)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_basis_is_orthonormal_and_spans_the_columns(kind, rows, columns, dtype):
    if kind == "wide range" and dtype == torch.float32:
        pytest.skip("float32 does not hold it")
    a = matrix(kind, rows, columns).to(dtype)
    q = small.cholesky_qr(a, factorize)
    assert q.dtype == dtype
    eps, q = torch.finfo(dtype).eps, q.double()
    gap = q.T @ q - torch.eye(columns, dtype=q.dtype)
    assert float(gap.abs().max()) <= 8 * columns**0.5 * eps
    # Columns of length 1, of which rounding may be lost.
    largest = a.double().abs().amax(0)
    unit = a.double() / torch.where(largest > 0, largest, 1.0)
    unit = unit / torch.linalg.vector_norm(unit, dim=0).clamp(min=0.5)
    left = unit - q @ (q.T @ unit)
    assert float(torch.linalg.vector_norm(left, dim=0).max()) <= 8 * columns * eps


def test_a_basis_is_the_same_every_time():
    a = matrix("half the rank", 60, 24)
    assert torch.equal(small.cholesky_qr(a, factorize), small.cholesky_qr(a, factorize))


def test_on_a_cpu_it_is_lapack():
    a = matrix("good", 40, 6)
    assert not small.by_kernels(a)
    assert torch.equal(small.orthonormal(a), torch.linalg.qr(a).Q)
    values, vectors = small.eigenvectors(a.T @ a)
    assert values.diff().max() <= 0
    torch.testing.assert_close(a.T @ a @ vectors, vectors * values)


def test_the_largest_matrix_is_that_of_the_kernel():
    assert small.LARGEST == jacobi.LARGEST
