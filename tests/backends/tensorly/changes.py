"""Every way in which NumPy and torch know to change an array in place."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

numpy_ways: list[Callable[[np.ndarray], None]] = []
torch_ways: list[Callable[[torch.Tensor], None]] = []


@numpy_ways.append
def scaled(a):
    a *= 1.5


@numpy_ways.append
def out(a):
    np.negative(a, out=a)


@numpy_ways.append
def one_entry(a):
    a.flat[a.size // 3] += 1


@numpy_ways.append
def a_slice(a):
    a[..., 1:3] -= 1


@numpy_ways.append
def by_its_transpose(a):
    a.T[0] += 1


@numpy_ways.append
def by_a_view_of_a_view(a):
    a[::2].reshape(-1)[:] = 3
    a[1:][::2][..., :5] *= -2


@numpy_ways.append
def flattened(a):
    a.reshape(-1)[::7] *= -1


@numpy_ways.append
def sorted_(a):
    a.sort(axis=0)


@numpy_ways.append
def two_rows_swapped(a):
    a[[0, 1]] = a[[1, 0]]


@numpy_ways.append
def sum_and_norm_kept(a):
    flat = a.reshape(-1)
    flat[[1, 2, 3]] = flat[[3, 1, 2]]


@numpy_ways.append
def by_its_buffer(a):
    np.frombuffer(a, a.dtype)[3:50] = 2


@numpy_ways.append
def one_byte(a):
    a.view(np.uint8).reshape(-1)[1] ^= 0x7F
    a.view(np.uint8).reshape(-1)[a.itemsize - 3] ^= 0x7F


@numpy_ways.append
def by_torch(a):
    torch.from_numpy(a).mul_(-1.1)


@numpy_ways.append
def by_dlpack(a):
    torch.from_dlpack(a)[..., -1] = 0.5


@numpy_ways.append
def copied_to(a):
    np.copyto(a, a[::-1].copy())


@torch_ways.append
def mul_(a):
    a.mul_(1.5)


@torch_ways.append
def torch_out(a):
    torch.neg(a, out=a)


@torch_ways.append
def by_data(a):
    a.data[0].mul_(-2)


@torch_ways.append
def data_replaced(a):
    a.data = a.data * 1.25


@torch_ways.append
def data_of_the_same_storage(a):
    a.data = a.data.flip(0)


@torch_ways.append
def detached(a):
    a.detach().add_(0.5)


@torch_ways.append
def by_numpy(a):
    buffer = a.numpy()
    buffer *= -1.5


@torch_ways.append
def an_entry_by_numpy(a):
    a.numpy().flat[a.numel() // 3] += 1


@torch_ways.append
def torch_slice(a):
    a[..., 1:3] = 0.25


@torch_ways.append
def torch_transpose(a):
    a.mT[..., 0, :].add_(1)


@torch_ways.append
def as_integers(a):
    a.view(torch.int32 if a.dtype == torch.float32 else torch.int64)[..., 0] = 0


@torch_ways.append
def by_its_storage(a):
    a.untyped_storage().copy_((a * 2).untyped_storage())


@torch_ways.append
def set_(a):
    a.set_(a.flip(-1))


@torch_ways.append
def dlpack(a):
    torch.from_dlpack(a)[1].neg_()


@torch_ways.append
def version_kept(a):
    with torch.autograd._unsafe_preserve_version_counter(a):
        a.mul_(-0.5)


@torch_ways.append
def swapped_with_another(a):
    # Torch refuses where anything refers to the tensor weakly.
    with contextlib.suppress(RuntimeError):
        torch.utils.swap_tensors(a, a * 3)


@torch_ways.append
def in_inference_mode(a):
    with torch.inference_mode():
        a.mul_(0.75)


@torch_ways.append
def shrunk_and_grown(a):
    shape = a.shape
    a.resize_(shape[0] // 2, *shape[1:]).fill_(0.5)
    a.resize_(shape).clamp_(-1, 1)


def ways(library: str) -> list[Callable[[Any], None]]:
    return numpy_ways if library == "numpy" else torch_ways
