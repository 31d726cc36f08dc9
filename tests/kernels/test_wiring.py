"""The Triton kernels behind the operations: chosen for CUDA tensors, and traced without a GPU."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import tensorfast as tf

SHAPE, RANK = (64, 48, 80), 16


def cuda(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="cuda")


def factors(dtype=torch.float32):
    return [cuda(n, RANK, dtype=dtype) for n in SHAPE]


CALLS = {
    "mttkrp": lambda x, u, **how: tf.mttkrp(x, u, 1, **how),
    "ttm": lambda x, u, **how: tf.ttm(x, u[2], 2, transpose=True, **how),
    "gram": lambda x, u, **how: tf.gram(x, 0, **how),
}
RESULTS = {"mttkrp": (48, RANK), "ttm": (64, 48, RANK), "gram": (64, 64)}


@pytest.fixture(autouse=True)
def _fake():
    with FakeTensorMode():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", CALLS)
def test_fake_tensors_go_through(op, dtype):
    out = CALLS[op](cuda(*SHAPE, dtype=dtype), factors(dtype))
    assert (out.shape, out.device.type) == (RESULTS[op], "cuda")
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert tf.khatri_rao(factors(dtype)).shape == (64 * 48 * 80, RANK)


@pytest.mark.parametrize("op", CALLS)
def test_a_call_is_one_node_of_a_graph(op):
    graph = make_fx(lambda x, *u: CALLS[op](x, u))(cuda(*SHAPE), *factors())
    called = [str(n.target) for n in graph.graph.nodes if "tensorfast" in str(n.target)]
    assert called == [f"tensorfast.{op}.default"]


ARGUMENTS = {
    "mttkrp": lambda x, u: (x, u, 1),
    "ttm": lambda x, u: (x, cuda(RANK, 80), 2),
    "gram": lambda x, u: (x, 0),
    "khatri_rao": lambda x, u: (u,),
}


@pytest.mark.parametrize("op", ARGUMENTS)
def test_explain_predicts_bytes_flops_and_time(op):
    explanation = tf.explain(op, *ARGUMENTS[op](cuda(*SHAPE), factors()))
    assert explanation.chosen == "triton"
    assert explanation.cost.seconds > 0
    assert explanation.cost.flops > 0
    assert explanation.cost.bytes > 0
    first, chosen, *rest = str(explanation).splitlines()
    assert first.endswith(", cuda: triton")
    assert "GFLOP" in chosen
    by_name = {row.split()[0]: row for row in rest}
    assert "no CUDA C++ kernel" in by_name["cuda"]
    assert "supported; predicted" in by_name["torch"]


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16", None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", ["mttkrp", "ttm", "gram"])
def test_explain_knows_every_type_and_precision(op, dtype, precision):
    x, u = cuda(*SHAPE, dtype=dtype), factors(dtype)
    arguments = {"mttkrp": (x, u, 1), "ttm": (x, u[0].t(), 0), "gram": (x, 0)}[op]
    setting = torch.backends.cuda.matmul
    before, setting.fp32_precision = setting.fp32_precision, "tf32"
    try:
        assert tf.explain(op, *arguments, precision=precision).chosen == "triton"
    finally:
        setting.fp32_precision = before


def test_what_widens_the_tensor_is_part_of_the_problem():
    x, u = cuda(*SHAPE), factors()
    wide = [u[0].double(), *u[1:]]
    assert tf.explain("mttkrp", x, wide, 1).problem.dtype == "float64"
    phases = cuda(RANK, dtype=torch.complex64)
    calls = [
        ("mttkrp", x, u, 1, phases),
        ("mttkrp", x, [u[0].to(torch.complex64), *u[1:]], 1),
        ("ttm", x, u[0].t().to(torch.complex64), 0),
        ("khatri_rao", u, phases),
        ("khatri_rao", [u[0], u[1].to(torch.complex128)]),
    ]
    for op, *arguments in calls:
        assert tf.explain(op, *arguments).chosen == "torch"


def test_a_large_mttkrp_is_predicted_to_read_the_tensor_about_once():
    x, u = cuda(512, 512, 512), [cuda(512, 32) for _ in range(3)]
    for mode in range(3):
        cost = tf.explain("mttkrp", x, u, mode).cost
        assert cost.flops == 2 * 512**3 * 32
        assert 4 * 512**3 <= cost.bytes <= 1.15 * 4 * 512**3
        # At 4.8 TB/s.
        assert 1.1e-4 < cost.seconds < 2e-4


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (lambda: torch.empty(SHAPE), "x is on cpu; the kernels run on CUDA"),
        (lambda: cuda(*SHAPE, dtype=torch.complex64), "x is complex64; the kernels have float16, "),
        (lambda: cuda(*[2] * 9), "9 modes; the kernels have up to 8"),
        (lambda: cuda(0, 3, 4), "nothing to compute"),
    ],
)
def test_what_the_kernels_do_not_serve(x, reason):
    tensor = x()
    assert any(reason in why for why in tf.explain("gram", tensor, 0).reasons["triton"])
    with pytest.raises(ValueError, match="impl='triton' cannot serve this call: ") as caught:
        tf.explain("gram", tensor, 0, impl="triton")
    assert reason in str(caught.value)


def test_every_reason_is_given_at_once():
    with pytest.raises(ValueError, match="impl='triton' cannot serve") as caught:
        tf.explain("gram", torch.empty([1] * 9, dtype=torch.complex64), 0, impl="triton")
    for part in ("x is on cpu", "x is complex64", "9 modes"):
        assert part in str(caught.value)
