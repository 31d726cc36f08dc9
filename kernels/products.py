"""The product of two tiles in every precision that the operations offer."""

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

__all__ = ["MODES", "product"]

#: What the ``PRECISION`` of a kernel may be. Operands are ``x`` as stored and ``w`` in the
#: computing type (of ``half``, as stored); products of parts are exact, sums are float32 (of
#: float64, float64). What is left out is told for one term and relative to it;
#: ``bench/splitting.py`` models every rounding.
#:
#: ``ieee``      fused multiply-adds, no tensor cores (float64: whatever the chip has for it)
#: ``bf16x6``    float32 as three bfloat16 parts each, six products: 2^-24
#: ``bf16x5``    float16 as the two parts that hold it, ``w`` as three, five products: 2^-25
#: ``bf16w3``    bfloat16 as it is, ``w`` as three parts, three products: nothing
#: ``bf16x3``    float32 as two parts each, three products: 2^-15
#: ``half``      both in half precision, one product: nothing
#: ``tf32``      both rounded to TF32, one product: 2^-10
#: ``bf16``      both rounded to bfloat16, one product: 2^-7
MODES = ("ieee", "bf16x6", "bf16x5", "bf16w3", "bf16x3", "half", "tf32", "bf16")

#: Triton's interpreter multiplies the bits of bfloat16 tiles as integers; there they are widened,
#: which changes no product.
_INTERPRETED = tl.constexpr(knobs.runtime.interpret)


@triton.jit
def _dot(a, b, acc):
    """Return ``a @ b + acc`` of half-precision tiles, products exact, sums float32."""
    if _INTERPRETED:
        out = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        # Without the bound the compiler adds to the caller's sum inside the tensor core, whose
        # accumulator drops bits; the caller's own addition is what keeps long sums exact.
        out = tl.dot(a, b, acc, max_num_imprecise_acc=a.shape[1])
    return out


@triton.jit
def _split3(a):
    """Return a float32 tile as the sum of three bfloat16 tiles, the largest first."""
    high = a.to(tl.bfloat16)
    rest = a - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
    return high, middle, low


@triton.jit
def _nearest_tf32(a):
    """Round to nearest, as the tensor core would cut; NaN stays NaN."""
    rounded = (a.to(tl.int32, bitcast=True) + 0x1000).to(tl.float32, bitcast=True)
    return tl.where(a == a, rounded, a)


@triton.jit
def _product_of_parts(x, w, PRECISION: tl.constexpr):
    """Return ``x @ w``, small parts first, so that they are not lost against the large ones."""
    acc = tl.zeros([x.shape[0], w.shape[1]], tl.float32)
    w1, w2, w3 = _split3(w)
    if PRECISION == "bf16w3":
        acc = _dot(x, w1, _dot(x, w2, _dot(x, w3, acc)))
    else:
        x1, x2, x3 = _split3(x.to(tl.float32))
        if PRECISION == "bf16x6":
            acc = _dot(x3, w1, acc)
        if PRECISION != "bf16x3":
            acc = _dot(x2, w2, _dot(x1, w3, acc))
        acc = _dot(x1, w1, _dot(x1, w2, _dot(x2, w1, acc)))
    return acc


@triton.jit
def product(x, w, PRECISION: tl.constexpr):
    """Return ``x [M, K] @ w [K, R]``, sums of K terms in the type of ``w``, or float32."""
    # One way out: what follows a return is compiled all the same.
    if PRECISION == "ieee":
        out = tl.dot(x.to(w.dtype), w, input_precision="ieee", out_dtype=w.dtype)
    elif PRECISION == "tf32":
        a, b = _nearest_tf32(x.to(tl.float32)), _nearest_tf32(w)
        out = tl.dot(a, b, input_precision="tf32", max_num_imprecise_acc=x.shape[1])
    elif PRECISION == "half":
        out = _dot(x, w, tl.zeros([x.shape[0], w.shape[1]], tl.float32))
    elif PRECISION == "bf16":
        zeros = tl.zeros([x.shape[0], w.shape[1]], tl.float32)
        out = _dot(x.to(tl.bfloat16), w.to(tl.bfloat16), zeros)
    else:
        out = _product_of_parts(x, w, PRECISION)
    return out
