"""The operations as torch sees them: registered, differentiable, traceable, batched."""

import shutil
import sys

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import tensorfast as tf
from tensorfast.ops.gram import _gram
from tensorfast.ops.khatri_rao import _khatri_rao
from tensorfast.ops.mttkrp import _mttkrp
from tensorfast.ops.ttm import _ttm

from .common import normal, permuted, sliced

FIELDS = [torch.float64, torch.complex128]


def tensors(*shapes, dtype=torch.float64, grad=False) -> list[Tensor]:
    return [
        normal(*shape, dtype=dtype, seed=k).requires_grad_(grad) for k, shape in enumerate(shapes)
    ]


def samples(dtype: torch.dtype, grad: bool = False) -> dict[str, tuple]:
    """Name calls of the registered operations, each in all its variants."""
    x, a, b, c, w = tensors((3, 4, 2), (3, 5), (4, 5), (2, 5), (5,), dtype=dtype, grad=grad)
    one, tall, wide = tensors((1, 4), (4, 2), (2, 4), dtype=dtype, grad=grad)
    end = ("ieee", "auto")
    return {
        "khatri_rao": (_khatri_rao, [a, b, c], None, "auto"),
        "khatri_rao one": (_khatri_rao, [a], None, "auto"),
        "khatri_rao weights": (_khatri_rao, [a, b], w, "auto"),
        "mttkrp first": (_mttkrp, x, [b, c], 0, None, *end),
        "mttkrp middle": (_mttkrp, x, [a, c], 1, None, *end),
        "mttkrp last weights": (_mttkrp, x, [a, b], 2, w, *end),
        "mttkrp reference": (_mttkrp, x, [a, c], 1, w, None, "reference"),
        "mttkrp matrix": (_mttkrp, x[0], [c], 0, None, *end),
        "ttm first": (_ttm, x, tall[:, :1].T[:, :3].contiguous(), 0, False, *end),
        "ttm middle": (_ttm, x, wide, 1, False, *end),
        "ttm adjoint": (_ttm, x, tall, 1, True, *end),
        "ttm vector": (_ttm, x, one, 1, False, *end),
        "ttm last": (_ttm, x, tall, 2, False, *end),
        "gram first": (_gram, x, 0, False, *end),
        "gram middle": (_gram, x, 1, False, *end),
        "gram last double": (_gram, x, 2, True, *end),
    }


NAMES = sorted(samples(torch.float64))


def differentiable(name: str, dtype: torch.dtype) -> tuple:
    """Give the sample as a function of its tensors, and those tensors, as gradcheck wants it."""
    op, *args = samples(dtype)[name]
    flat, spec = torch.utils._pytree.tree_flatten(args)
    places = [k for k, leaf in enumerate(flat) if isinstance(leaf, Tensor)]
    leaves = tuple(flat[k].detach().clone().requires_grad_() for k in places)

    def call(*given: Tensor) -> Tensor:
        filled = list(flat)
        for place, tensor in zip(places, given, strict=True):
            filled[place] = tensor
        return op(*torch.utils._pytree.tree_unflatten(filled, spec))

    return call, leaves


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, dtype):
    op, *args = samples(dtype, grad=True)[name]
    torch.library.opcheck(op, args)


@pytest.mark.parametrize("layout", [permuted, sliced], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_other_layouts(name, layout):
    call = samples(torch.float32)[name]
    op, *args = torch.utils._pytree.tree_map_only(Tensor, layout, call)
    torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("dtype", FIELDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name, dtype):
    assert gradcheck(*differentiable(name, dtype))


@pytest.mark.parametrize("dtype", FIELDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_second_gradients(name, dtype):
    assert gradgradcheck(*differentiable(name, dtype), fast_mode=dtype.is_complex)


MIXED = {
    "mttkrp": lambda r, z: tf.mttkrp(r[0], [z[1], z[2], z[3]], 1),
    "mttkrp complex x": lambda r, z: tf.mttkrp(z[0], [r[1], z[2], r[3]], 1, r[4]),
    "ttm": lambda r, z: tf.ttm(r[0], z[2], 1, transpose=True),
    "ttm complex x": lambda r, z: tf.ttm(z[0], r[2][:, 0], 1),
    "khatri_rao": lambda r, z: tf.khatri_rao([r[1], z[2], r[3]], r[4]),
}


@pytest.mark.parametrize("call", MIXED.values(), ids=MIXED.keys())
def test_gradients_of_real_arguments_among_complex_ones_are_real(call):
    shapes = (3, 4, 2), (3, 5), (4, 5), (2, 5), (5,)
    real, complex_ = (tensors(*shapes, dtype=dtype, grad=True) for dtype in FIELDS)
    inputs = (*real, *complex_)
    assert gradcheck(lambda *t: call(t[:5], t[5:]).abs().square().sum(), inputs)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_gradients_have_the_types_of_their_arguments(stored):
    x, a, b, c = tensors((3, 4, 2), (3, 5), (4, 5), (2, 5), dtype=stored, grad=True)
    v = tensors((4,), grad=True)[0]
    loss = tf.mttkrp(x, [a, b, c], 1).sum() + tf.ttm(x, v, 1).sum() + tf.gram(x, 0).sum()
    (loss + tf.khatri_rao([a, b, c]).sum()).backward()
    for leaf in (x, a, b, c, v):
        assert leaf.grad.dtype == leaf.dtype
        assert leaf.grad.shape == leaf.shape


@pytest.mark.parametrize("wanted", [0, 1, 2, 4], ids=["x", "first", "second", "weights"])
def test_a_gradient_alone_equals_the_one_among_all(wanted):
    leaves = tensors((3, 4, 2), (3, 5), (4, 5), (2, 5), (5,))

    def gradient_of(asked: set[int]) -> Tensor:
        x, *factors, w = (t.clone().requires_grad_(k in asked) for k, t in enumerate(leaves))
        tf.mttkrp(x, factors, 2, w).square().sum().backward()
        return [x, *factors, w][wanted].grad

    assert torch.equal(gradient_of({wanted}), gradient_of(set(range(5))))


def pipeline(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Every public function of the algebra in one graph."""
    m = tf.mttkrp(x, [a, None, c], 1, weights=a[0])
    back = tf.fold(m @ tf.khatri_rao([a, b, c], skip=1).T, 1, x.shape)
    core = tf.multi_ttm(x + back, [a, b, c[:, 0]], transpose=True)
    row = tf.ttm(core, core[0], 1)
    return tf.gram(row, -1, double=True).sum(0) + tf.unfold(core, 1).sum()


def pipeline_operands(size: int = 3, dtype: torch.dtype = torch.float32, **how) -> list[Tensor]:
    return tensors((size, 4, 2), (size, 5), (4, 5), (2, 5), dtype=dtype, **how)


@pytest.mark.parametrize(
    ("dynamic", "dtype"),
    [(None, torch.float64), (None, torch.complex128), (True, torch.float64)],
    ids=["default-real", "default-complex", "dynamic-real"],
)
def test_compiles_without_a_graph_break(dynamic, dtype):
    torch._dynamo.reset()
    compiled = torch.compile(pipeline, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    # By default torch compiles for the first size, and at the second for any.
    for size in (3, 6):
        eager, traced = (pipeline_operands(size, dtype, grad=True) for _ in range(2))
        expected, out = pipeline(*eager), compiled(*traced)
        torch.testing.assert_close(out, expected)
        expected.abs().sum().backward()
        out.abs().sum().backward()
        for ours, theirs in zip(traced, eager, strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")) or sys.platform == "win32",
    reason="inductor needs a C++ compiler",
)
def test_compiles_with_inductor():
    torch._dynamo.reset()
    x, *factors = pipeline_operands()

    def scaled(x: Tensor, *factors: Tensor) -> Tensor:
        return 2 * tf.mttkrp(x, factors, 1) + 1

    out = torch.compile(scaled, fullgraph=True)(x, *factors)
    torch.testing.assert_close(out, scaled(x, *factors))


class Pipeline(torch.nn.Module):
    def forward(self, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return pipeline(x, a, b, c)


def test_exports():
    operands = tuple(pipeline_operands())
    exported = torch.export.export(Pipeline(), operands)
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    for name in ("mttkrp", "khatri_rao", "ttm", "gram"):
        assert f"tensorfast.{name}.default" in called
    torch.testing.assert_close(exported.module()(*operands), pipeline(*operands))


VMAPS = {
    "mttkrp x": (lambda x, a, b, c, w: tf.mttkrp(x, [a, b, c], 1, w), (0, None, None, None, None)),
    "mttkrp all": (lambda x, a, b, c, w: tf.mttkrp(x, [a, b, c], 0, w), (0, 1, 2, 0, 1)),
    "mttkrp one factor": (lambda x, a, b, c, w: tf.mttkrp(x, [a, b, c], 2), (None, 0, None, 0, 0)),
    "khatri_rao": (lambda x, a, b, c, w: tf.khatri_rao([a, b, c], w), (None, 0, None, 2, 0)),
    "ttm x": (lambda x, a, b, c, w: tf.ttm(x, b, 1, transpose=True), (3, None, None, None, None)),
    "ttm both": (lambda x, a, b, c, w: tf.ttm(x, a, 0, transpose=True), (1, 0, None, 0, 0)),
    "ttm vector": (lambda x, a, b, c, w: tf.ttm(x, c[:, 0], 2), (0, None, None, 1, 0)),
    "gram": (lambda x, a, b, c, w: tf.gram(x, -1), (2, None, None, 0, 0)),
}


@pytest.mark.parametrize(("function", "in_dims"), VMAPS.values(), ids=VMAPS.keys())
def test_vmap_equals_a_loop(function, in_dims):
    batch = 3
    shapes = [(3, 4, 2), (3, 5), (4, 5), (2, 5), (5,)]
    operands = [
        normal(*(shape if dim is None else (*shape[:dim], batch, *shape[dim:])), seed=k)
        for k, (shape, dim) in enumerate(zip(shapes, in_dims, strict=True))
    ]
    out = torch.func.vmap(function, in_dims=in_dims)(*operands)
    for n in range(batch):
        one = [t if d is None else t.select(d, n) for t, d in zip(operands, in_dims, strict=True)]
        torch.testing.assert_close(out[n], function(*one))


@pytest.mark.parametrize("dtype", [torch.float16, torch.complex128], ids=str)
@pytest.mark.parametrize(("function", "in_dims"), VMAPS.values(), ids=VMAPS.keys())
def test_vmap_over_nothing_gives_an_empty_result(function, in_dims, dtype):
    shapes = [(3, 4, 2), (3, 5), (4, 5), (2, 5), (5,)]
    one = function(*tensors(*shapes, dtype=dtype))
    operands = [
        torch.ones(shape if dim is None else (*shape[:dim], 0, *shape[dim:]), dtype=dtype)
        for shape, dim in zip(shapes, in_dims, strict=True)
    ]
    out = torch.func.vmap(function, in_dims=in_dims)(*operands)
    assert out.shape == (0, *one.shape)
    assert (out.dtype, out.device) == (one.dtype, one.device)


def test_gradients_flow_through_vmap():
    x, *factors = tensors((4, 3, 4, 2), (3, 5), (4, 5), (2, 5), grad=True)
    torch.func.vmap(lambda x: tf.mttkrp(x, factors, 1))(x).square().sum().backward()
    through_vmap = [leaf.grad.clone() for leaf in (x, *factors) if leaf.grad is not None]

    again, *others = tensors((4, 3, 4, 2), (3, 5), (4, 5), (2, 5), grad=True)
    torch.stack([tf.mttkrp(one, others, 1) for one in again]).square().sum().backward()
    one_by_one = [leaf.grad for leaf in (again, *others) if leaf.grad is not None]
    assert len(one_by_one) == 3
    torch.testing.assert_close(through_vmap, one_by_one)


@pytest.mark.parametrize("name", sorted({"mttkrp", "khatri_rao", "ttm", "gram"}))
def test_is_registered_in_the_namespace_of_the_library(name):
    assert hasattr(torch.ops.tensorfast, name)


def test_meta_tensors_give_shapes_and_compute_nothing():
    x, *factors = (t.to("meta") for t in tensors((3, 4, 2), (3, 5), (4, 5), (2, 5)))
    for mode, size in enumerate(x.shape):
        assert tf.mttkrp(x, factors, mode).shape == (size, 5)
        assert tf.gram(x, mode, double=True).shape == (size, size)
        assert tf.ttm(x, factors[mode], mode, transpose=True).shape[mode] == 5
    assert tf.khatri_rao(factors).shape == (24, 5)
    assert tf.khatri_rao(factors).device.type == "meta"


def test_the_samples_cover_every_operation_in_every_mode():
    ops = {call[0] for call in samples(torch.float64).values()}
    assert ops == {_khatri_rao, _mttkrp, _ttm, _gram}
    modes = {(call[0], call[2]) for call in samples(torch.float64).values() if call[0] is _gram}
    assert modes == {(_gram, n) for n in range(3)}
