"""The kernels on a GPU, by way of the operations, against float64 on the CPU."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import tensorfast as tf
from tensorfast import reference
from tensorfast.testing import assert_close, normal

pytestmark = pytest.mark.gpu

SHAPES = [(300, 200), (65, 33, 70), (1, 40, 1, 90), (8, 2000, 30), (2000, 5, 60), (12, 7, 9, 11, 5)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_mttkrp(x, mode, rank, precision="ieee"):
    """``x`` on the GPU, any strides; held to the rounding of its arithmetic."""
    factors = [normal((n, rank), wide(x.dtype), k) for k, n in enumerate(x.shape)]
    found = tf.mttkrp(x, [f.cuda() for f in factors], mode, precision=precision, impl="triton")
    others = [f.double() for k, f in enumerate(factors) if k != mode]
    here = x.cpu().double()
    expected = reference.mttkrp(here, others, mode)
    scale = reference.mttkrp(here.abs(), [f.abs() for f in others], mode)
    length = x.numel() // x.shape[mode] + x.ndim
    assert_close(found.cpu(), expected, scale, length, dtype=wide(x.dtype), precision=precision)


@pytest.mark.parametrize("rank", [1, 7, 16, 40, 64, 100, 300])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mttkrp(shape, rank):
    for mode in range(len(shape)):
        check_mttkrp(normal(shape).cuda(), mode, rank)


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types_and_precisions(dtype, precision):
    for mode in range(3):
        check_mttkrp(normal((65, 128, 70), dtype).cuda(), mode, 33, precision)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(65, 33, 70), (8, 2000, 300), (300, 4000)], ids=str)
def test_ieee_is_as_exact_as_float32_on_the_cpu(shape, dtype):
    """A bound on single entries grows with the sum and would let plain TF32 pass; this does not."""
    x, factors = normal(shape, dtype), [normal((n, 24), seed=n) for n in shape]
    for mode in range(len(shape)):
        others = [f for k, f in enumerate(factors) if k != mode]
        exact = reference.mttkrp(x.double(), [f.double() for f in others], mode)
        there = tf.mttkrp(x.cuda(), [f.cuda() for f in factors], mode, impl="triton").cpu()
        here = tf.mttkrp(x, factors, mode)
        error, bound = (torch.linalg.norm(m.double() - exact) for m in (there, here))
        assert error <= 4 * bound


def test_strides():
    x = normal((60, 80, 50, 9)).cuda()
    for view in (
        x.permute(2, 0, 3, 1),
        x[::2, 1:, :, ::3],
        x[:1].expand(4, 80, 50, 9),
        torch.as_strided(x, (70, 70, 50), (90, 90, 1)),
    ):
        for mode in range(view.ndim):
            check_mttkrp(view, mode, 20)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ttm_gram_and_khatri_rao(dtype):
    x = normal((65, 33, 70), dtype)
    for mode, transpose in itertools.product(range(3), (False, True)):
        a = normal((x.shape[mode], 40) if transpose else (40, x.shape[mode]), wide(dtype))
        found = tf.ttm(x.cuda(), a.cuda(), mode, transpose=transpose, impl="triton")
        expected = reference.ttm(x.double(), a.double(), mode, transpose)
        scale = reference.ttm(x.double().abs(), a.double().abs(), mode, transpose)
        assert_close(found.cpu(), expected, scale, x.shape[mode], dtype=wide(dtype))
    for mode, double in itertools.product(range(3), (False, True)):
        found = tf.gram(x.cuda(), mode, double=double, impl="triton")
        expected = reference.gram(x.double(), mode, torch.float64)
        scale = reference.gram(x.double().abs(), mode, torch.float64)
        length = x.numel() // x.shape[mode]
        assert_close(found.cpu(), expected, scale, length, dtype=found.dtype)
        assert torch.equal(found, found.t())
    factors = [normal((n, 20), dtype, n) for n in (7, 1, 30)]
    found = tf.khatri_rao([f.cuda() for f in factors])
    expected = reference.khatri_rao([f.double() for f in factors])
    assert_close(found.cpu(), expected, expected.abs(), 3, dtype=wide(dtype))


def test_gradients_and_compiled_graphs():
    x, factors = normal((20, 30, 25)), [normal((n, 6), seed=n) for n in (20, 30, 25)]

    def loss(x, factors):
        return (
            tf.mttkrp(x, factors, 1).square().sum() + tf.ttm(x, factors[0], 0, transpose=True).sum()
        )

    def gradients(device, call):
        leaves = [t.to(device).requires_grad_() for t in (x, *factors)]
        call(leaves[0], leaves[1:]).backward()
        return [t.grad for t in leaves]

    here = gradients("cpu", loss)
    for call in (loss, torch.compile(loss, fullgraph=True)):
        for a, b in zip(gradients("cuda", call), here, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-3)


def test_the_same_bits_every_time_on_every_stream_and_thread():
    x, factors = normal((64, 500, 70)).cuda(), [normal((n, 40)).cuda() for n in (64, 500, 70)]
    first = tf.mttkrp(x, factors, 0, impl="triton")
    torch.cuda.synchronize()

    def again(_):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            out = tf.mttkrp(x, factors, 0, impl="triton")
        stream.synchronize()
        return out

    with ThreadPoolExecutor(4) as pool:
        for out in pool.map(again, range(40)):
            assert torch.equal(out, first)


@pytest.mark.slow
def test_more_than_two_to_the_31_elements():
    x = torch.empty(2049, 1024, 1025, dtype=torch.bfloat16, device="cuda").normal_()
    factors = [normal((n, 8)).cuda() for n in x.shape]
    for mode in range(3):
        found = tf.mttkrp(x, factors, mode, impl="triton")
        rows = torch.tensor([0, x.shape[mode] // 2, x.shape[mode] - 1], device="cuda")
        part = x.index_select(mode, rows)
        expected = tf.mttkrp(part.float(), factors, mode, impl="torch")
        scale = math.sqrt(x.numel() / x.shape[mode])
        assert (found[rows] - expected).abs().max() < 1e-4 * scale
    last = tf.ttm(x, factors[2].t()[:2].contiguous(), 2, impl="triton")
    torch.testing.assert_close(last[-1], x[-1].float() @ factors[2][:, :2], rtol=1e-4, atol=1e-3)
