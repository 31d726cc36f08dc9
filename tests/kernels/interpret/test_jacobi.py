"""Eigenvectors on the device, against their definition and against LAPACK's eigenvalues."""

import pytest
import torch
from triton import knobs

from tensorfast.kernels import jacobi
from tensorfast.precision import unit_roundoff
from tensorfast.testing import normal as drawn

#: Under the interpreter on the CPU, else on a GPU.
DEVICE = "cpu" if knobs.runtime.interpret else "cuda"
pytestmark = [] if knobs.runtime.interpret else pytest.mark.gpu

ROUNDING = unit_roundoff(torch.float64)


def normal(*arguments):
    return drawn(*arguments).to(DEVICE)


def rotated(values, seed=3):
    """Return a matrix of these eigenvalues, in random directions."""
    q = torch.linalg.qr(normal((len(values), len(values)), torch.float64, seed))[0]
    matrix = (q * values.to(DEVICE)) @ q.t()
    return (matrix + matrix.t()) / 2


def logspace(start, end, n):
    return torch.logspace(start, end, n, dtype=torch.float64)


def matrix_of(n, kind):
    """Return a positive semidefinite matrix of a certain kind."""
    rows = {"rank one": 1, "deficient": -(-n // 3)}.get(kind, 2 * n)
    x = normal((rows, n), torch.float64, 1)
    if kind == "scaled":
        x *= logspace(-60, 60, n).to(DEVICE)
    if kind == "blocks":
        x[:n, n // 2 :], x[n:, : n // 2] = 0, 0
    gram = x.t() @ x
    if kind == "large":
        return gram * 1e150
    if kind == "small":
        return gram * 1e-150
    if kind == "zero":
        return torch.zeros_like(gram)
    if kind == "ascending":
        return torch.diag(torch.arange(n, dtype=torch.float64, device=DEVICE))
    if kind == "graded":
        return rotated(logspace(0, -16, n))
    if kind == "repeated":
        return rotated(1.0 + torch.arange(n, dtype=torch.float64) % 3)
    if kind == "nearly repeated":
        return rotated(1.0 + torch.arange(n, dtype=torch.float64) % 2 + 1e-12 * torch.rand(n))
    if kind == "nearly diagonal":
        # Its leading third, as where a space is extended.
        third = -(-n // 3)
        gram[:third, :third] = torch.diag(logspace(4, 3, third).to(DEVICE))
    return gram


KINDS = [
    "good",
    "deficient",
    "rank one",
    "zero",
    "scaled",
    "blocks",
    "large",
    "small",
    "ascending",
    "graded",
    "repeated",
    "nearly repeated",
    "nearly diagonal",
]


def check(matrix, values, vectors):
    """Hold values and vectors to orthonormality, the residual and the order.

    Cosines of at most ``sqrt(n) u``, few of which are near that, have a norm of about ``n u``, and
    the product that shows them leaves as much. A rotation leaves ``2 u`` of its columns, at random,
    so ``s`` sweeps leave ``2 sqrt(n s) u |T + I|`` of every column, of all together ``sqrt(n)``
    times that, with ``s < 16`` at most ``8 n u |T|``.
    """
    n, unit = len(matrix), matrix.abs().amax().clamp(min=1e-300)
    t, values = matrix / unit, values / unit
    size = torch.linalg.matrix_norm(t, 2)
    identity = torch.eye(n, dtype=torch.float64, device=DEVICE)
    assert torch.linalg.matrix_norm(vectors.t() @ vectors - identity, 2) <= 3 * n * ROUNDING
    left = torch.linalg.matrix_norm(t @ vectors - vectors * values, 2)
    assert left <= 8 * n * ROUNDING * size
    assert torch.all(values[:-1] >= values[1:])
    assert torch.all(values >= 0)
    expected = torch.linalg.eigvalsh(t).flip(0)
    assert torch.all((values - expected).abs() <= 8 * n * ROUNDING * size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 13])
def test_eigenvectors(n, kind):
    matrix = matrix_of(n, kind)
    check(matrix, *jacobi.eigenvectors(matrix))


@pytest.mark.parametrize(
    ("n", "kind"), [(18, "good"), (35, "deficient"), (66, "rank one"), (130, "ascending")]
)
def test_larger_tiles(n, kind):
    test_eigenvectors(n, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [24, 64])
def test_the_sizes_in_use(n, kind):
    test_eigenvectors(n, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "kind"), [(96, "good"), (96, "nearly repeated"), (192, "good")])
def test_the_largest_sides(n, kind):
    test_eigenvectors(n, kind)


@pytest.mark.parametrize(("n", "kind"), [(13, "deficient"), (15, "ascending"), (16, "good")])
def test_several_tiles_a_step(monkeypatch, n, kind):
    monkeypatch.setitem(jacobi.TILES, 16, (2, 2, 1))
    test_eigenvectors(n, kind)


@pytest.fixture
def sweeps(monkeypatch):
    """Count sweeps; only the interpreter runs what takes the place of a function of a kernel."""
    if not knobs.runtime.interpret:
        pytest.skip("counted under the interpreter")
    step, calls = jacobi._step, []
    monkeypatch.setattr(jacobi, "_step", lambda *args: calls.append(args) or step(*args))

    def count(matrix):
        calls.clear()
        jacobi.eigenvectors(matrix)
        return len(calls) // (2 * -(-len(matrix) // 4) - 1)

    return count


#: Of 24 columns, one more than the most that four such matrices took in a NumPy model.
MOST = {
    "good": 8,
    "deficient": 9,
    "rank one": 4,
    "scaled": 6,
    "graded": 15,
    "repeated": 9,
    "nearly diagonal": 8,
}


@pytest.mark.parametrize(("kind", "most"), MOST.items())
def test_few_sweeps_are_made(sweeps, kind, most):
    assert sweeps(matrix_of(24, kind)) <= most


@pytest.mark.parametrize("kind", ["zero", "ascending"])
def test_what_is_diagonal_takes_one_sweep(sweeps, kind):
    matrix = matrix_of(9, kind)
    assert sweeps(matrix) == 1
    values, vectors = jacobi.eigenvectors(matrix)
    identity = torch.eye(9, dtype=torch.float64, device=DEVICE)
    assert torch.equal(vectors, identity if kind == "zero" else identity.flip(1))
    assert torch.equal(values, matrix.diagonal().flip(0))


def test_what_small_angles_leave_takes_no_other_sweep(sweeps):
    matrix = torch.diag(torch.arange(1, 9, dtype=torch.float64, device=DEVICE)) + 1e-9
    assert sweeps(matrix) == 1
    check(matrix, *jacobi.eigenvectors(matrix))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("n", "row", "column"), [(1, 0, 0), (5, 4, 4), (5, 0, 3), (17, 16, 2)])
def test_what_is_not_finite_gives_nan(n, row, column, value):
    matrix = matrix_of(n, "good")
    matrix[row, column] = matrix[column, row] = value
    values, vectors = jacobi.eigenvectors(matrix)
    assert values.isnan().all()
    assert vectors.isnan().all()


@pytest.mark.parametrize("power", [-1000, -500, 500, 1010])
def test_a_power_of_two_changes_no_digit(power):
    matrix = matrix_of(6, "good")
    # Of few digits, so that none is lost where numbers end.
    matrix = (matrix / matrix.max() * 2**20).round() / 2**20
    values, vectors = jacobi.eigenvectors(matrix)
    found = jacobi.eigenvectors(matrix * 2.0**power)
    assert torch.equal(found[0], values * 2.0**power)
    assert torch.equal(found[1], vectors)


def test_the_largest_numbers():
    matrix = torch.diag(torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64, device=DEVICE))
    values, vectors = jacobi.eigenvectors(matrix * 2.0**1023)
    assert torch.equal(values, 2.0**1023 * matrix.diagonal()[[1, 0, 2]])
    assert torch.equal(vectors, torch.eye(3, dtype=torch.float64, device=DEVICE)[:, [1, 0, 2]])


def test_the_same_bits_every_time_and_any_strides():
    matrix = matrix_of(9, "good")
    before = matrix.clone()
    values, vectors = jacobi.eigenvectors(matrix)
    assert torch.equal(matrix, before)
    wide = torch.full((9, 18), float("nan"), dtype=torch.float64, device=DEVICE)
    wide[:, ::2] = matrix
    for other in (matrix, matrix.t().contiguous().t(), wide[:, ::2]):
        found = jacobi.eigenvectors(other)
        assert torch.equal(found[0], values)
        assert torch.equal(found[1], vectors)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((0, 0), torch.float64),
        ((193, 193), torch.float64),
        ((3, 4), torch.float64),
        ((2, 2, 2), torch.float64),
        ((3, 3), torch.float32),
    ],
    ids=str,
)
def test_matrices_that_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"eigenvectors: matrix .* of float64, of 1 to 192"):
        jacobi.eigenvectors(torch.zeros(shape, dtype=dtype, device=DEVICE))
