"""Whole decompositions of TensorLy's, with the backend and without, from one start."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from .common import LIBRARIES, arrays_of, found, tl

import tensorfast.backends.tensorly as backend  # isort: skip

decomposition = tl.decomposition

SHAPE, RANK = (20, 20, 20, 20), 32


@pytest.fixture(autouse=True)
def shared():
    yield
    backend.register(share=True)


class Case:
    """A tensor and a start, the same for each run."""

    def __init__(
        self, library: str, dtype: str, shape: tuple[int, ...], rank: int, positive: bool
    ) -> None:
        self.library, self.dtype, self.shape, self.rank = library, dtype, shape, rank
        self.positive = positive
        self.random = np.random.default_rng(0)
        self.x = self.array(*shape)
        self.factors = [self.array(n, rank) for n in shape]

    def array(self, *shape: int) -> Any:
        """Draw what makes well-conditioned problems: of both signs, or half of it zero."""
        values = self.random.standard_normal(shape)
        if self.dtype.startswith("complex"):
            values = values + 1j * self.random.standard_normal(shape)
        if self.positive:
            values = np.maximum(values, 0)
        values = values.astype(self.dtype)
        return values if self.library == "numpy" else torch.from_numpy(values)

    def start(self) -> Any:
        return tl.cp_tensor.CPTensor((None, self.factors))

    def mask(self) -> Any:
        return tl.tensor(self.random.uniform(size=self.shape) > 0.1, **tl.context(self.x))


def parafac(**options: Any) -> Callable[[Case], Any]:
    def fit(case: Case) -> Any:
        # Neither stops early, as the last digits of the error decide on that.
        kept = {"n_iter_max": 3, "tol": 1e-30} | options
        return decomposition.parafac(case.x, case.rank, init=case.start(), **kept)

    return fit


def masked(case: Case) -> Any:
    return parafac(mask=case.mask())(case)


def with_callback(case: Case) -> Any:
    errors: list[Any] = []
    cp = parafac(callback=lambda cp, error: errors.append(error))(case)
    return [cp, tl.tensor(errors)]


def nonnegative(case: Case) -> Any:
    return decomposition.non_negative_parafac(
        case.x, case.rank, n_iter_max=3, init=case.start(), tol=1e-30
    )


def hals(case: Case) -> Any:
    return decomposition.non_negative_parafac_hals(
        case.x, case.rank, n_iter_max=2, init=case.start(), tol=1e-30
    )


def constrained(case: Case) -> Any:
    return decomposition.constrained_parafac(
        case.x, case.rank, n_iter_max=2, init=case.start(), non_negative=True, tol_outer=1e-30
    )


def tucker(case: Case) -> Any:
    # So that no two singular values are close.
    for mode in range(len(case.shape)):
        scales = tl.tensor([0.7**n for n in range(case.shape[mode])], **tl.context(case.x))
        case.x = tl.moveaxis(tl.moveaxis(case.x, mode, -1) * scales, -1, mode)
    return decomposition.tucker(case.x, [5] * len(case.shape), n_iter_max=3, tol=1e-30)


def nonnegative_tucker(case: Case) -> Any:
    return decomposition.non_negative_tucker(
        case.x, [5] * len(case.shape), n_iter_max=3, tol=1e-30, random_state=0, init="random"
    )


# What each asks for MTTKRPs, and may thus share.
SHARING: dict[str, Callable[[Case], Any]] = {
    "parafac": parafac(),
    "fixed modes": parafac(fixed_modes=[1]),
    "fixed first": parafac(fixed_modes=[0]),
    "normalized": parafac(normalize_factors=True),
    "orthogonalised": parafac(orthogonalise=True),
    "line search": parafac(linesearch=True, n_iter_max=10),
    "regularised": parafac(l2_reg=0.1),
    "sparse part": parafac(sparsity=20),
    "svd": lambda case: decomposition.parafac(case.x, 5, n_iter_max=3, init="svd", tol=1e-30),
    "mask": masked,
    "callback": with_callback,
    "non-negative": nonnegative,
    "hals": hals,
    "constrained": constrained,
}
OTHERS = {"tucker": tucker, "non-negative tucker": nonnegative_tucker}


POSITIVE = ("non-negative", "hals", "constrained", "non-negative tucker")


def run(fit: Callable[[Case], Any], *case: Any) -> list[np.ndarray]:
    result = fit(Case(*case))
    if hasattr(result, "factors"):
        core = getattr(result, "core", None)
        result = [result.weights if core is None else core, result.factors]
    return [np.array(a.numpy() if isinstance(a, torch.Tensor) else a) for a in found([*result])]


def distance(actual: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return the largest difference of an array, relative to its largest entry."""
    assert [a.shape for a in actual] == [a.shape for a in expected] != []
    pairs = zip(actual, expected, strict=True)
    return max(float(abs(a - b).max() / (abs(b).max() or 1)) for a, b in pairs)


def check(
    fit: Callable[[Case], Any], library: str, dtype: str, *case: Any, shares: bool = True
) -> None:
    """Hold the fit to TensorLy's own, in single precision by way of that in double."""
    double = dtype.replace("float32", "float64").replace("complex64", "complex128")
    with arrays_of(library):
        stock = run(fit, library, dtype, *case)
        exact = stock if double == dtype else run(fit, library, double, *case)
        tolerance = 1e-10 if double == dtype else max(1e-5, 4 * distance(stock, exact))
        for share in (False, True):
            with backend.active():
                backend.register(share=share)
                before = backend.reused()
                actual = run(fit, library, dtype, *case)
            assert [a.dtype for a in actual] == [a.dtype for a in stock]
            assert distance(actual, exact) <= tolerance
            assert share or backend.reused() == before
            assert not (share and shares) or backend.reused() > before


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", [*SHARING, *OTHERS])
def test_a_fit(name, library, dtype):
    # With NumPy's float32, constrained_parafac goes on in float64 for all but the tensor.
    promoted = (name, library, dtype) == ("constrained", "numpy", "float32")
    shares = name in SHARING and name != "svd" and not promoted
    check((SHARING | OTHERS)[name], library, dtype, SHAPE, RANK, name in POSITIVE, shares=shares)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("dtype", "shape", "rank"),
    [
        ("complex128", SHAPE, RANK),
        ("float64", (60, 60, 60), 64),
        ("float32", (60, 60, 60), 64),
        ("float64", (40, 40, 40, 40), 16),
        ("float32", (12, 12, 12, 12, 12), 16),
        ("float64", (200, 100), 16),
        ("float64", (40, 40, 40, 40), 1),
        ("float64", (2, 300, 200), 16),
        ("float64", (3, 1, 100, 2, 90), 16),
    ],
    ids=str,
)
def test_fits_of_other_tensors(library, dtype, shape, rank):
    check(
        parafac(), library, dtype, shape, rank, False, shares=min(shape) == max(shape) and rank > 1
    )


LAYOUTS = {
    "transposed": lambda x: x.mT,
    "rotated": lambda x: tl.moveaxis(x, 0, -1),
    "every second": lambda x: tl.concatenate([x, x])[::2],
    "repeated": lambda x: torch.as_tensor(x)[:1].expand(x.shape),
    "backwards": lambda x: x[::-1] if isinstance(x, np.ndarray) else x.flip(0),
    "conjugate": lambda x: torch.as_tensor(x).conj(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("library", "dtype"),
    [("numpy", "float64"), ("pytorch", "float64"), ("pytorch", "complex128")],
)
def test_fits_of_tensors_laid_out_differently(library, dtype, layout):
    def factors():
        case = Case(library, dtype, SHAPE, RANK, False)
        laid = LAYOUTS[layout](case.x)
        case.x = np.asarray(laid) if library == "numpy" else laid
        before = case.x * 1
        result = parafac()(case).factors
        assert tl.all(case.x == before)
        return [np.asarray(f) for f in result]

    with arrays_of(library):
        expected = factors()
        with backend.active():
            assert distance(factors(), expected) <= 1e-10


def test_gradients_through_a_fit():
    def gradient():
        case = Case("pytorch", "float64", (6, 5, 4), 2, False)
        case.x.requires_grad_()
        result = parafac(n_iter_max=2)(case)
        (gradient,) = torch.autograd.grad(result.factors[0].square().sum(), case.x)
        return [gradient.numpy()]

    with arrays_of("pytorch"), pytest.MonkeyPatch.context() as patch:
        expected = gradient()
        patch.setattr("tensorfast.backends.tensorly.algebra.SMALL", 0)
        with backend.active():
            assert distance(gradient(), expected) < 1e-10
