"""Arrays of other kinds, and what torch does with functions: all as TensorLy's core has it."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from .common import FUNCTIONS, LIBRARIES, REFUSALS, arrays_of, core, outcome, tl, wide

import tensorfast.backends.tensorly as backend  # isort: skip

# Each takes a function that makes an array of a shape, and returns the arguments of a call.
ARGUMENTS: dict[str, Callable[[Callable[..., Any]], tuple[Any, ...]]] = {
    "mode_dot": lambda a: (a(3, 4, 2), a(5, 4), 1),
    "multi_mode_dot": lambda a: (a(3, 4, 2), [a(2, 3), a(4), a(3, 2)], None, None, False),
    "kronecker": lambda a: ([a(2, 3), a(3, 2)],),
    "khatri_rao": lambda a: ([a(2, 3), a(4, 3), a(2, 3)], a(3), 1, a(4)),
    "inner": lambda a: (a(3, 4), a(3, 4)),
    "outer": lambda a: ([a(3), a(2, 2)],),
    "batched_outer": lambda a: ([a(3, 2), a(3, 4)],),
    "higher_order_moment": lambda a: (a(4, 3), 1),
    "_tt_matrix_to_tensor": lambda a: ([a(1, 2, 3, 2), a(2, 2, 2, 1)],),
    "unfolding_dot_khatri_rao": lambda a: (a(3, 4, 2), (a(3), [a(3, 3), a(4, 3), a(2, 3)]), 1),
    "tensordot": lambda a: (a(3, 4, 2), a(5, 4), ([1], [1])),
}
# No entry of these sums more than 24 terms of up to 4 factors, all positive: nothing cancels.
ROUNDINGS = 4 * (24 + 4)


@pytest.fixture(autouse=True)
def never_small(monkeypatch):
    """Leave nothing to core because it is too small to gain."""
    monkeypatch.setattr("tensorfast.backends.tensorly.algebra.SMALL", 0)


def positive(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(0.5, 1.5, shape)


def ours(name: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with backend.active():
            return getattr(tl.tenalg, name)(*args)

    return call


def assert_same(actual: Any, expected: Any) -> None:
    if isinstance(expected, Exception):
        assert isinstance(actual, (*REFUSALS, type(expected))), f"core: {expected!r}"
        return
    if isinstance(actual, Exception):
        raise actual
    assert type(actual) is type(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_allclose(wide(actual), wide(expected), rtol=2 * ROUNDINGS * unit(expected))


def unit(array: Any) -> float:
    """Return the unit roundoff of what holds rounded numbers."""
    if isinstance(array, torch.Tensor):
        exact = not (array.is_floating_point() or array.is_complex())
        return 0 if exact else torch.finfo(array.dtype).eps / 2
    return np.finfo(array.dtype).eps / 2 if array.dtype.kind in "fc" else 0


NUMPY_KINDS = {
    "int": lambda a: (4 * a).astype(int),
    "bool": lambda a: a > 1,
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "big endian": lambda a: a.astype(">f8"),
    "masked": lambda a: np.ma.masked_array(a, a > 1.2),
    "matrix": lambda a: np.asmatrix(a) if a.ndim == 2 else a,
    "subclass": lambda a: a.view(np.recarray),
    "object": lambda a: a.astype(object),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("kind", NUMPY_KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_of_numpy_that_are_not_plain(name, kind):
    args = ARGUMENTS[name](lambda *shape: NUMPY_KINDS[kind](positive(shape)))
    with arrays_of("numpy"):
        expected = outcome(core(name), *args)
        if kind == "object" and not isinstance(expected, Exception):
            np.testing.assert_array_equal(ours(name)(*args), expected)
        else:
            assert_same(outcome(ours(name), *args), expected)


class Logged(torch.Tensor):
    """One whose operations may be looked at."""


TORCH_KINDS = {
    "int": lambda a: (4 * a).int(),
    "bool": lambda a: a > 1,
    "half": lambda a: a.half(),
    "bfloat16": lambda a: a.bfloat16(),
    "subclass": lambda a: a.as_subclass(Logged),
    "parameter": torch.nn.Parameter,
    "wants gradients": lambda a: a.requires_grad_(),
    "meta": lambda a: a.to("meta"),
    "sparse": lambda a: a.to_sparse(),
}


@pytest.mark.parametrize("kind", TORCH_KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_tensors_of_torch_that_are_not_plain(name, kind):
    args = ARGUMENTS[name](lambda *shape: TORCH_KINDS[kind](torch.from_numpy(positive(shape))))
    with arrays_of("pytorch"):
        expected, actual = outcome(core(name), *args), outcome(ours(name), *args)
    if kind == "meta" and not isinstance(expected, Exception):
        assert (actual.device, actual.shape) == (expected.device, expected.shape)
    elif kind == "sparse" and not isinstance(expected, Exception):
        assert actual.layout == expected.layout
        assert_same(actual.to_dense(), expected.to_dense())
    else:
        assert_same(actual, expected)
        assert getattr(actual, "requires_grad", False) == getattr(expected, "requires_grad", False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_of_jax(name):
    jnp = pytest.importorskip("jax.numpy")
    args = ARGUMENTS[name](lambda *shape: jnp.asarray(positive(shape), "float32"))
    with warnings.catch_warnings():
        # TensorLy turns on 64 bits by a function that JAX is about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        with arrays_of("jax"):
            expected, actual = core(name)(*args), ours(name)(*args)
    assert_same(actual, expected)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_of_the_library_that_tensorly_is_not_set_to(name, library):
    make = np.asarray if library == "pytorch" else torch.from_numpy
    args = ARGUMENTS[name](lambda *shape: make(positive(shape)))
    with arrays_of(library):
        refusal, actual = outcome(core(name), *args), outcome(ours(name), *args)
    # Where core refuses, we may.
    if not isinstance(actual, Exception) or not isinstance(refusal, Exception):
        with arrays_of("numpy" if library == "pytorch" else "pytorch"):
            expected = core(name)(*args)
        np.testing.assert_allclose(actual, expected, rtol=ROUNDINGS * 2 * unit(expected))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["khatri_rao", "unfolding_dot_khatri_rao"])
def test_weights_may_be_a_list(name, library):
    def call(function):
        args = ARGUMENTS[name](lambda *shape: make(positive(shape)))
        if name == "khatri_rao":
            return outcome(function, args[0], [2.0, 3.0, 4.0], *args[2:])
        return outcome(function, args[0], ([2.0, 3.0, 4.0], args[1][1]), args[2])

    make = np.asarray if library == "numpy" else torch.from_numpy
    with arrays_of(library):
        assert_same(call(ours(name)), call(core(name)))


# --- what torch does with functions ---


def tensors(seed: int = 0) -> Callable[..., torch.Tensor]:
    return lambda *shape: torch.from_numpy(positive(shape, seed))


def of_arrays(function: Callable[..., Any], args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """See a call as a function of the arrays among its arguments."""
    leaves, tree = torch.utils._pytree.tree_flatten(args)
    places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def call(*arrays: torch.Tensor) -> torch.Tensor:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return function(*torch.utils._pytree.tree_unflatten(filled, tree))

    return call, [leaves[place] for place in places]


def vmapped(function, arrays):
    return torch.func.vmap(function)(*(torch.stack([a, 2 * a, a + 1]) for a in arrays))


def jvp(function, arrays):
    return torch.func.jvp(function, tuple(arrays), tuple(1 / a for a in arrays))[1]


def jacobian(function, arrays):
    return torch.func.jacrev(function)(*arrays)


def batched_gradient(function, arrays):
    """Take the gradient of each sample."""
    gradient = torch.func.grad(lambda *a: function(*a).sum())
    return vmapped(gradient, arrays)


def dual(function, arrays):
    """Differentiate forwards, without a transform."""
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(a, 1 / a) for a in arrays]
        return forward_ad.unpack_dual(function(*duals)).tangent


def inference(function, arrays):
    with torch.inference_mode():
        return function(*arrays).clone()


def autocast(function, arrays):
    with torch.autocast("cpu", torch.bfloat16):
        return function(*(a.float() for a in arrays))


@pytest.mark.parametrize(
    "way", [vmapped, jvp, jacobian, batched_gradient, dual, inference, autocast]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_torch_does_with_a_function(name, way):
    args = ARGUMENTS[name](tensors())
    with arrays_of("pytorch"):
        expected = outcome(way, *of_arrays(core(name), args))
        actual = outcome(way, *of_arrays(ours(name), args))
    if isinstance(expected, tuple):
        for got, want in zip(actual, expected, strict=True):
            assert_same(got, want)
    else:
        assert_same(actual, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_differentiable_twice(name):
    args = ARGUMENTS[name](tensors())
    function, arrays = of_arrays(ours(name), args)
    leaves = [a.requires_grad_() for a in arrays]
    with arrays_of("pytorch"):
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_number_spreads_as_far_as_core_spreads_it(name, library):
    def array(*shape):
        values = positive(shape)
        values.flat[0] = np.nan if len(shape) != 2 else 1.0
        return values if library == "numpy" else torch.from_numpy(values)

    args = ARGUMENTS[name](array)
    with arrays_of(library):
        assert_same(ours(name)(*args), core(name)(*args))


# --- what core gets wrong, and what it answers to what does not fit ---


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("small", [0, 1 << 20])
@pytest.mark.parametrize("mode", [-1, np.int64(-1)], ids=["int", "NumPy's int"])
def test_a_negative_mode_counts_from_the_end(library, mode, small, monkeypatch):
    monkeypatch.setattr("tensorfast.backends.tensorly.algebra.SMALL", small)
    make = np.asarray if library == "numpy" else torch.from_numpy
    x, cp, _ = ARGUMENTS["unfolding_dot_khatri_rao"](lambda *shape: make(positive(shape)))
    with arrays_of(library):
        expected = core("unfolding_dot_khatri_rao")(x, cp, 2)
        assert_same(ours("unfolding_dot_khatri_rao")(x, cp, mode), expected)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("small", [0, 1 << 20])
@pytest.mark.parametrize("rows", [(4, 3, 2), (2, 4, 3), (3, 8, 1), (3, 8), (3, 4, 2, 1)], ids=str)
def test_factors_that_only_fit_as_a_product_are_refused(library, rows, small, monkeypatch):
    monkeypatch.setattr("tensorfast.backends.tensorly.algebra.SMALL", small)
    make = np.asarray if library == "numpy" else torch.from_numpy
    x = make(positive((3, 4, 2)))
    factors = [make(positive((n, 3))) for n in rows]
    with arrays_of(library):
        for mode in range(len(rows)):
            fits = all(
                a == b for n, (a, b) in enumerate(zip(rows, (3, 4, 2), strict=False)) if n != mode
            )
            if not fits or len(rows) != 3:
                with pytest.raises(REFUSALS):
                    ours("unfolding_dot_khatri_rao")(x, (None, factors), mode)
