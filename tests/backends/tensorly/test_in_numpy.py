"""By NumPy's products comes out what comes out by torch's, and no thread of torch's is woken."""

import math

import numpy as np
import pytest
import torch
from tensorly import decomposition, tenalg
from torch.utils._python_dispatch import TorchDispatchMode

import tensorfast.backends.tensorly as backend
from tensorfast.backends.tensorly import algebra, in_numpy, in_torch, sharing
from tensorfast.matmul import LONG
from tensorfast.testing import normal

#: Left of the contracted axes, these, and right of them; long sums are added in parts.
SIDES = [
    (1, 30, 7),
    (30, 7, 1),
    (6, 5, 8),
    (3, 2 * LONG + 5, 2),
    (1, LONG + 1, 1),
    (4, 1, 4),
    (4, 30, 20),
]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def assert_same(found, expected, length):
    """Compare sums of so many products of standard normal numbers."""
    eps = torch.finfo(expected.dtype).eps
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert (found - expected).abs().max() <= 4 * eps * (length + 10 * math.sqrt(length))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("rank", [1, 5])
def test_contractions_are_the_same(sides, rank, dtype):
    x, k = normal(sides, dtype=dtype), normal((sides[1], rank), dtype=dtype, seed=1)
    expected = in_torch.contract_data(x, 1, 2, k)
    assert_same(in_numpy.contract_data(x, 1, 2, k), expected, sides[1])
    room = torch.empty(expected.numel() + 3, dtype=dtype)
    found = in_numpy.contract_data(x, 1, 2, k, room)
    assert_same(found, expected, sides[1])
    assert found.data_ptr() == room.data_ptr()
    small = in_numpy.contract_data(x, 1, 2, k, room[: expected.numel() - 1])
    assert_same(small, expected, sides[1])
    p = normal((*sides, rank), dtype=dtype)
    expected = in_torch.contract_partial(p, 1, 2, k)
    assert_same(in_numpy.contract_partial(p, 1, 2, k), expected, sides[1])


@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (5, 4, 3), (900, 40, 30), (30, 40, 900), (2, 3, 4, 5)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_a_middle_mode_needs_no_copy_of_the_tensor(shape, dtype):
    x = normal(shape, dtype=dtype)
    left, right = (normal((n, 6), dtype=dtype, seed=n) for n in (shape[0], math.prod(shape[2:])))
    expected = in_torch.contract_sides(x, 1, 2, left, right)
    found = in_numpy.contract_sides(x, 1, 2, left, right)
    assert_same(found, expected, shape[0] * math.prod(shape[2:]))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_operations_are_the_same(order, dtype):
    x = normal((4, 5, 6, 7), dtype=dtype).permute(order)
    factors = [normal((n, 3), dtype=dtype, seed=n) for n in x.shape]
    for mode in range(4):
        others = [factor for n, factor in enumerate(factors) if n != mode]
        expected = in_torch.mttkrp(x, others, mode)
        assert_same(in_numpy.mttkrp(x, others, mode), expected, 4 * 5 * 6 * 7)
        matrix = normal((2, x.shape[mode]), dtype=dtype, seed=mode)
        for a, transpose in [(matrix, False), (matrix.t(), True)]:
            expected = in_torch.ttm(x, a, mode, transpose)
            assert_same(in_numpy.ttm(x, a, mode, transpose), expected, x.shape[mode])
    weights = normal((3,), dtype=dtype)
    for given in (None, weights):
        expected = in_torch.khatri_rao(factors, given)
        assert_same(in_numpy.khatri_rao(factors, given), expected, 10)


@pytest.mark.parametrize("shape", [(2000, 3, 3), (500, 8, 4, 2)])
@pytest.mark.parametrize("by", [in_numpy, in_torch])
def test_tiny_matrices_are_no_batch(by, shape, monkeypatch):
    """A call for each takes longer than a copy that makes one of all."""
    x = normal(shape)
    expected = torch.einsum(
        "iaj,ba->ibj", x.reshape(shape[0], shape[1], -1), torch.ones(4, shape[1])
    )
    multiply, dimensions = np.matmul, set()

    def watched(a, b, **options):
        dimensions.add(max(a.ndim, b.ndim))
        return multiply(a, b, **options)

    monkeypatch.setattr(np, "matmul", watched)
    with Computed() as computed:
        found = by.ttm(x, torch.ones(4, shape[1]), 1)
        contracted = by.contract_data(x, 1, 2, torch.ones(shape[1], 4))
    assert "bmm" not in computed.names
    assert max(dimensions, default=2) == 2
    expected = expected.reshape(found.shape)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(contracted, expected.movedim(1, -1), atol=1e-5)


@pytest.mark.parametrize("by", [in_numpy, in_torch])
@pytest.mark.parametrize(("rank", "cut"), [(4, 3), (5, 50)])
def test_a_middle_mode_by_a_copy_or_by_sides(by, rank, cut, monkeypatch):
    """What comes of one side has as many elements as the tensor, times rank over size."""
    x = normal((3, 50, 4))
    left, right = normal((3, rank)), normal((4, rank))
    seen = []
    ranges = by.contract_sides.__globals__["ranges"]
    name = f"{by.contract_sides.__module__}.ranges"
    monkeypatch.setattr(name, lambda *of: seen.append(of) or ranges(*of))
    found = by.contract_sides(x, 1, 2, left, right)
    assert torch.allclose(found, torch.einsum("iaj,ir,jr->ar", x, left, right), atol=1e-4)
    assert seen[0][0] == cut


class Computed(TorchDispatchMode):
    """The operations of torch that went beyond another view of what is there."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if not operation.is_view and name not in ("new_empty", "empty", "lift_fresh"):
            self.names.add(name)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["parafac", "non_negative_parafac_hals", "tucker"])
@pytest.mark.parametrize("shape", [(70, 60, 80), (30, 31, 17, 32)])
def test_torch_computes_nothing_of_numpys(name, shape):
    x = normal(shape).abs().numpy()
    rank = [20] * len(shape) if name == "tucker" else 20
    before = backend.reused()
    with backend.active(), Computed() as computed:
        getattr(decomposition, name)(x, rank, init="random", random_state=0, n_iter_max=3, tol=-1)
    assert computed.names == set()
    assert name == "tucker" or backend.reused() > before


def test_a_loop_with_a_callback_computes_by_numpy(monkeypatch):
    """It is looked whether the tensor is the same."""
    sharing._random()
    x = normal((30, 31, 17, 32)).numpy()
    before, called = backend.reused(), []
    with backend.active(), Computed() as computed:
        decomposition.parafac(
            x, 20, init="random", random_state=0, n_iter_max=3, callback=lambda *_: called.append(1)
        )
    assert computed.names == set()
    assert called
    assert backend.reused() > before


@pytest.mark.parametrize("by", [in_numpy, in_torch])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_bit_that_changes_changes_the_fingerprint(by, dtype):
    x = normal((3, 1024, 700), dtype=dtype)[..., :699].contiguous()
    before = sharing.fingerprint(x, by)
    assert all(map(by.equal, sharing.fingerprint(x.clone(), by), before))
    for at in (0, 1024 * 699 + 5, x.numel() - 1):
        changed = x.clone()
        changed.view(-1)[at] *= 1 + 4 * torch.finfo(dtype).eps
        assert not all(map(by.equal, sharing.fingerprint(changed, by), before))


def test_torch_computes_what_is_torchs():
    x = normal((70, 60, 80))
    with backend.active(), Computed() as computed:
        tenalg.mode_dot(x, normal((20, 60)), 1)
    assert computed.names & {"mm", "bmm"}


def test_strided_slices_are_no_copy_as_a_whole():
    x = normal((60, 140, 80)).numpy()[:, ::2]
    matrix = np.ones((20, 70), np.float32)
    with backend.active(), Computed() as computed:
        found = tenalg.mode_dot(x, matrix, 1)
    assert computed.names
    assert np.allclose(found, np.einsum("iaj,ba->ibj", x, matrix), atol=1e-4)


def product(name, shape, rows):
    """Return the arguments of one of TensorLy's functions, along the first mode by so many rows."""
    x, a = np.ones(shape, np.float32), np.ones((rows, shape[0]), np.float32)
    factors = [np.ones((n, rows), np.float32) for n in shape]
    return {
        "mode_dot": (x, a, 0),
        "multi_mode_dot": (x, [a], [0]),
        "tensordot": (x, a, ([0], [1])),
        "unfolding_dot_khatri_rao": (x, (None, factors), 0),
    }[name]


@pytest.mark.parametrize(
    ("name", "shape", "rows", "served"),
    [
        ("mode_dot", (64, 64, 64), 15, False),
        ("mode_dot", (64, 64, 64), 16, True),
        ("mode_dot", (64, 4096, 16), 1, True),
        ("mode_dot", (64, 4096, 15), 1, False),
        ("multi_mode_dot", (64, 64, 64), 15, False),
        ("multi_mode_dot", (64, 64, 64), 16, True),
        ("tensordot", (64, 64, 64), 64, True),
        ("tensordot", (16, 64, 64), 16, False),
        ("unfolding_dot_khatri_rao", (64, 64, 64), 15, False),
        ("unfolding_dot_khatri_rao", (64, 64, 64), 16, True),
        ("unfolding_dot_khatri_rao", (64, 64, 8, 8), 3, False),
        ("unfolding_dot_khatri_rao", (64, 64, 8, 8), 4, True),
    ],
)
def test_what_is_too_small_to_gain_is_tensorlys(name, shape, rows, served, monkeypatch):
    asked = []
    own = algebra.operands
    monkeypatch.setattr(algebra, "operands", lambda *given: asked.append(1) or own(*given))
    with backend.active():
        getattr(tenalg, name)(*product(name, shape, rows))
    assert bool(asked) == served
