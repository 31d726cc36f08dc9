"""Decomposed layers do what the layers do: exactly at full rank, and at the rank that is there."""

import math

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn

from tensorfast.nn import decompose_conv, decompose_linear

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
PADDINGS = ("zeros", "reflect", "replicate", "circular")


@st.composite
def convolutions(draw):
    """Return what makes a convolution, and the length of its input along each axis."""
    dimension = draw(st.integers(1, 3))

    def each(least, most):
        return tuple(draw(st.integers(least, most)) for _ in range(dimension))

    groups = draw(st.integers(1, 3))
    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    same = draw(st.booleans()) and set(stride) == {1}
    options = {
        "in_channels": groups * draw(st.integers(1, 4)),
        "out_channels": groups * draw(st.integers(1, 4)),
        "kernel_size": kernel,
        "stride": stride,
        "padding": "same" if same else each(0, 2),
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(PADDINGS)),
    }
    sizes = [(k - 1) * d + 3 + n for n, (k, d) in enumerate(zip(kernel, dilation, strict=True))]
    return KINDS[dimension], options, sizes


def built(kind, options, dtype, seed=0):
    torch.manual_seed(seed)
    return kind(**options, dtype=dtype)


def assert_same(one, other, sizes, digits):
    """Compare two modules on noise, relative to what rounding may do to sums of that length."""
    parameters = next(one.parameters())
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, one.in_channels, *sizes, generator=rng, dtype=parameters.dtype)
    expected = one(x)
    assert other(x).shape == expected.shape
    assert (other(x) - expected).norm() <= digits * expected.norm() + digits


DIGITS = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("method", ["tucker2", "cp"])
@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(made=convolutions())
def test_at_full_rank_it_is_the_convolution(method, dtype, made):
    kind, options, sizes = made
    conv = built(kind, options, dtype)
    if method == "cp":
        rank = math.prod(conv.weight[: conv.out_channels // conv.groups].shape)
    else:
        rank = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    assert_same(conv, decompose_conv(conv, rank, method=method), sizes, DIGITS[dtype])


def of_rank(conv, method, rank):
    """Give a convolution a kernel of that rank in each group."""
    outputs, inputs, *taps = conv.weight.unflatten(0, (conv.groups, -1)).shape[1:]
    for group in conv.weight.data.view(conv.groups, outputs, inputs, -1):
        rng = torch.Generator().manual_seed(len(group))

        def normal(*sizes, rng=rng):
            return torch.randn(*sizes, generator=rng, dtype=torch.float64)

        if method == "tucker2":
            core = normal(*rank, math.prod(taps))
            made = torch.einsum(
                "abk,oa,ib->oik", core, normal(outputs, rank[0]), normal(inputs, rank[1])
            )
        else:
            letters = "hwd"[: len(taps)]
            along = [normal(n, rank) for n in taps]
            formula = "or,ir," + ",".join(f"{n}r" for n in letters) + f"->oi{letters}"
            made = torch.einsum(formula, normal(outputs, rank), normal(inputs, rank), *along)
        group.copy_(made.reshape(group.shape))


@pytest.mark.parametrize("method", ["tucker2", "cp"])
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(made=convolutions(), data=st.data())
def test_the_rank_that_is_there_is_enough(method, made, data):
    kind, options, sizes = made
    outputs, inputs = (options[f"{end}_channels"] // options["groups"] for end in ("out", "in"))
    conv = built(kind, options, torch.float64)
    if method == "tucker2":
        rank = tuple(data.draw(st.integers(1, size)) for size in (outputs, inputs))
        digits = 1e-11
    else:
        # Of rank 1 there is one model, and ALS finds it.
        rank, digits = 1, 1e-11
    of_rank(conv, method, rank)
    assert_same(conv, decompose_conv(conv, rank, method=method), sizes, digits)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6), (1, 4)])
def test_linear_layers(shape, bias):
    linear = nn.Linear(*shape, bias=bias, dtype=torch.float64)
    x = torch.randn(3, shape[0], dtype=torch.float64)
    torch.testing.assert_close(decompose_linear(linear, min(shape))(x), linear(x))
