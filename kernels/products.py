"""The product of two tiles in every precision that the operations offer."""

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

__all__ = ["MODES", "product"]

#: Triton's interpreter multiplies the bits of bfloat16 tiles as integers; there they are widened,
#: which changes no product.
_INTERPRETED = tl.constexpr(knobs.runtime.interpret)

#: What the ``PRECISION`` of a kernel may be. Operands are ``x`` as stored and ``w`` in the
#: computing type; tensor-core products of two halves are exact, sums are float32 (of float64,
#: float64).
#:
#: ``ieee``      fused multiply-adds, no tensor cores (float64: whatever the chip has for it)
#: ``tf32x3``    float32 as two TF32 parts each, three products: 2^-22 a term
#: ``bf16x6``    float32 as three bfloat16 parts each, six products: 2^-23 a term
#: ``bf16x3``    float32 as two bfloat16 parts each, three products: 2^-16 a term
#: ``bf16w3``    bfloat16 ``x``, ``w`` as three bfloat16 parts, three products: 2^-24 a term
#: ``tf32``      both rounded to TF32, one product: 2^-11 a term
#: ``bf16``      both rounded to bfloat16, one product: 2^-8 a term
MODES = ("ieee", "tf32x3", "bf16x6", "bf16x3", "bf16w3", "tf32", "bf16")


@triton.jit
def _dot(a, b, acc):
    """Return ``a @ b + acc`` of bfloat16 tiles, products exact, sums float32."""
    if _INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a, b, acc)


@triton.jit
def _split3(a):
    """Return a float32 tile as the sum of three bfloat16 tiles, the largest first."""
    high = a.to(tl.bfloat16)
    rest = a - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
    return high, middle, low


@triton.jit
def product(x, w, PRECISION: tl.constexpr):
    """Return ``x [M, K] @ w [K, R]``, sums of K terms in the type of ``w``."""
    if PRECISION == "ieee" or PRECISION == "tf32" or PRECISION == "tf32x3":
        return tl.dot(x.to(w.dtype), w, input_precision=PRECISION, out_dtype=w.dtype)
    acc = tl.zeros([x.shape[0], w.shape[1]], tl.float32)
    if PRECISION == "bf16":
        return _dot(x.to(tl.bfloat16), w.to(tl.bfloat16), acc)
    # Small parts first, so that they are not lost against the large ones.
    w1, w2, w3 = _split3(w)
    if PRECISION == "bf16w3":
        return _dot(x, w1, _dot(x, w2, _dot(x, w3, acc)))
    x1, x2, x3 = _split3(x.to(tl.float32))
    if PRECISION == "bf16x3":
        return _dot(x1, w1, _dot(x1, w2, _dot(x2, w1, acc)))
    acc = _dot(x2, w2, _dot(x3, w1, _dot(x1, w3, acc)))
    return _dot(x1, w1, _dot(x1, w2, _dot(x2, w1, acc)))
