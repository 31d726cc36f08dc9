"""The eleven functions against TensorLy's core, over whatever its signatures admit."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tensorfast.testing import assert_close

from .calls import LAWS, Call
from .common import (
    FUNCTIONS,
    REFUSALS,
    arrays_of,
    core,
    found,
    magnitude,
    mapped,
    outcome,
    plain,
    tl,
    wide,
)
from .operands import Operands, values

import tensorfast.backends.tensorly as backend  # isort: skip

pytestmark = pytest.mark.filterwarnings("ignore:Khatri-rao of a series of vectors:UserWarning")

FEW = hypothesis.settings(max_examples=60, report_multiple_bugs=False)
MANY = hypothesis.settings(FEW, max_examples=2000)

OWN = ("float32", "float64", "complex64", "complex128")
# What is none of our types, or a mixture: TensorLy's core answers, bit for bit or in its precision.
EXACT = ("int64", "int32", "int16", "uint8", "float16")
MIXED = (*OWN, "int64")
OTHERS = [*((name,) for name in EXACT), MIXED, MIXED]


def ours(name: str, kwargs: dict[str, Any], positional: int = 0) -> Any:
    """Call by way of tl.tenalg, the first arguments by position."""
    items = list(kwargs.items())
    with backend.active():
        return getattr(tl.tenalg, name)(
            *(value for _, value in items[:positional]), **dict(items[positional:])
        )


def widened(change: Callable[[Any], Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: mapped(change, value) for key, value in kwargs.items()}


def in_torch(array: Any) -> torch.Tensor:
    return plain(wide(array))


def exactly(call: Call, change: Callable[[Any], Any] = wide) -> torch.Tensor:
    """Answer in double precision, of the same numbers or of their magnitudes."""
    if call.mended:
        return call.mended(**widened(lambda a: in_torch(change(a)), call.kwargs))
    return plain(core(call.name)(**widened(change, call.kwargs)))


def same_kind(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if isinstance(actual, torch.Tensor):
        assert actual.device == expected.device
        assert actual.requires_grad == expected.requires_grad
        # Whoever asks for NumPy of a lazy conjugate is refused.
        assert actual.is_conj() <= expected.is_conj()
        assert actual.is_neg() <= expected.is_neg()
    elif isinstance(actual, np.ndarray):
        assert actual.flags.writeable >= expected.flags.writeable


def coarsest(arrays: Sequence[Any]) -> torch.dtype:
    types = [plain(a).dtype for a in arrays]
    floats = [d for d in types if d.is_floating_point or d.is_complex]
    return max(floats, key=lambda d: torch.finfo(d).eps, default=torch.float64)


def check(o: Operands, call: Call) -> None:
    ours_to_do = len(o.types) == 1 and o.types[0] in OWN
    if (call.mended or call.refused) and (o.bad or not ours_to_do):
        return
    arrays = found(list(call.kwargs.values()))
    before = [plain(a).clone() for a in arrays]
    expected = outcome(core(call.name), **call.kwargs)
    actual = outcome(ours, call.name, call.kwargs, o.integer(0, len(call.kwargs)))

    # Core stumbles over some that is empty, and we need not.
    empty = any(0 in a.shape for a in arrays)
    wrong = call.refused or (isinstance(expected, Exception) and not call.mended)
    if isinstance(actual, Exception):
        known = empty or isinstance(actual, (*REFUSALS, type(expected)))
        if not (wrong or o.bad or (empty and call.mended)) or not known:
            raise actual
        return
    if wrong:
        assert empty, f"core: {expected!r}"
        return

    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(plain(array), kept)
    if call.mended:
        # NumPy's mean of numbers is no array.
        scalar = isinstance(actual, np.generic) and o.library == "numpy" and not actual.ndim
        assert scalar or type(actual) is type(o.made[0])
        assert actual.dtype == o.made[0].dtype
    else:
        same_kind(actual, expected)
        if set(o.types) <= set(EXACT) or tl.tensor(actual).dtype == tl.int64:
            np.testing.assert_array_equal(plain(actual), plain(expected))
            return
    exact, scale = exactly(call), exactly(call, magnitude).abs()
    assert_close(plain(actual), exact, scale, call.terms, dtype=coarsest(arrays))
    # Nothing at all is TensorLy's to make, weights dropped or not.
    if o.library == "pytorch" and ours_to_do and o.flag() and scale.numel():
        check_gradients(o, call)


def check_gradients(o: Operands, call: Call) -> None:
    """Let some of the operands want gradients: they get those of core, up to rounding."""
    want = {id(a): o.flag() for a in o.made}

    def leaves(change: Callable[[Any], Any]) -> tuple[dict[str, Any], list[torch.Tensor]]:
        known: dict[int, torch.Tensor] = {}

        def leaf(array: torch.Tensor) -> torch.Tensor:
            if id(array) not in known:
                changed = change(array).detach()
                known[id(array)] = changed.requires_grad_(want.get(id(array), False))
            return known[id(array)]

        kwargs = widened(leaf, call.kwargs)
        return kwargs, [a for a in known.values() if a.requires_grad]

    def gradients(function, change, cotangent):
        kwargs, wanted = leaves(change)
        result = function(**kwargs)
        # An answer that is an operand, or that none of them enters, has no history.
        if not wanted or not result.requires_grad:
            return []
        return torch.autograd.grad(result, wanted, cotangent, materialize_grads=True)

    exact = call.mended or core(call.name)
    shape = exactly(call).shape
    dtype = coarsest(o.made)
    cotangent = torch.from_numpy(values(o, shape, str(dtype).removeprefix("torch.")))
    actual = gradients(lambda **k: ours(call.name, k), torch.Tensor.detach, cotangent)
    expected = gradients(exact, wide, wide(cotangent))
    scale = gradients(exact, magnitude, magnitude(cotangent))
    assert len(actual) == len(expected)
    terms = call.terms + max(1, math.prod(shape))
    for got, right, size in zip(actual, expected, scale, strict=True):
        assert got.dtype == dtype
        assert_close(got, right, size, terms)


def fuzz(law: str, types: Sequence[str], data: st.DataObject) -> None:
    o = Operands(data.draw, types)
    call = LAWS[law](o)
    if any(size > 3e5 for size in (a.numel() for a in map(plain, o.made))):
        hypothesis.reject()
    with arrays_of(o.library), pytest.MonkeyPatch.context() as patch:
        # What is too small to gain is left to core.
        if data.draw(st.integers(0, 3)):
            patch.setattr("tensorfast.backends.tensorly.algebra.SMALL", 0)
        check(o, call)


@pytest.mark.parametrize("law", FUNCTIONS)
@hypothesis.settings(FEW)
@hypothesis.given(data=st.data())
def test_equals_core(law, data):
    fuzz(law, (data.draw(st.sampled_from(OWN)),), data)


@pytest.mark.parametrize("law", FUNCTIONS)
@hypothesis.settings(FEW)
@hypothesis.given(data=st.data())
def test_what_we_do_not_do_core_does(law, data):
    fuzz(law, data.draw(st.sampled_from(OTHERS)), data)


@pytest.mark.slow
@pytest.mark.parametrize("law", FUNCTIONS)
@hypothesis.settings(MANY)
@hypothesis.given(data=st.data())
def test_equals_core_in_thousands_of_examples(law, data):
    own = data.draw(st.integers(0, 3))
    types = (data.draw(st.sampled_from(OWN)),) if own else data.draw(st.sampled_from(OTHERS))
    fuzz(law, types, data)
