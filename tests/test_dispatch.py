"""Which implementation runs, and why each of the others does not."""

import dataclasses

import numpy as np
import pytest

import tensorfast as tf
from tensorfast import _dispatch
from tensorfast._dispatch import Cost, Implementation, Problem, choose, explain, register, runner

X = np.ones((4, 5, 6), dtype=np.float32)
U = [np.ones((n, 2), dtype=np.float32) for n in X.shape]
PROBLEM = Problem("mttkrp", X.shape, "float32", "cpu", mode=1, rank=2, strides=(30, 6, 1))
NOTHING = Cost(0.0, 0.0, 0.0)

CALLS = {
    "mttkrp": (X, U, 1),
    "ttm": (X, np.ones((3, 5)), 1),
    "gram": (X, 1),
    "khatri_rao": (U,),
}


def fails(*_):
    raise AssertionError("nothing may be computed")


@pytest.fixture
def registry(monkeypatch):
    """Give a copy of the registry in which a test may register."""
    copy = {op: dict(implementations) for op, implementations in _dispatch._registry.items()}
    monkeypatch.setattr(_dispatch, "_registry", copy)
    return copy


@pytest.fixture
def triton(registry):
    """Register a kernel for MTTKRP with two conditions, cheaper than all others."""

    def reasons(problem):
        found = []
        if problem.device != "cuda":
            found.append(f"the device is {problem.device}; it runs on cuda")
        if problem.dtype != "float16":
            found.append(f"the type is {problem.dtype}; it has float16")
        return found

    kernel = Implementation("triton", fails, cost=lambda p: NOTHING, unsupported_reasons=reasons)
    register("mttkrp", kernel)
    return kernel


@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("by", ["name", "function"])
def test_explain_names_the_choice_and_a_reason_for_every_other(op, by):
    explanation = explain(op if by == "name" else getattr(tf, op), *CALLS[op])
    assert explanation.chosen == "torch"
    assert set(explanation.reasons) == {"cuda", "triton", "cpp", "reference"}
    assert all(explanation.reasons.values())
    assert explanation.reasons["triton"] == ("x is on cpu; the kernels run on CUDA",)
    assert explanation.reasons["cpp"] == ("this installation has no compiled CPU kernel for it",)
    assert explanation.reasons["reference"][0].startswith("supported; predicted ")
    assert explanation.problem.op == op


def test_explain_prints_a_table():
    text = str(explain("mttkrp", X, U, -2))
    first, *rows = text.splitlines()
    assert first == "mttkrp of shape (4, 5, 6), float32, cpu: torch"
    assert [row.split()[0] for row in rows] == ["torch", "cuda", "triton", "cpp", "reference"]
    assert rows[0].split()[:3] == ["torch", "runs;", "predicted"]
    assert rows[0].endswith(" s, 4.8e-07 GFLOP, 1e-06 GB")


def test_explain_describes_the_problem_as_the_call_would():
    problem = explain("mttkrp", X, U, -2, precision="tf32").problem
    assert problem == dataclasses.replace(PROBLEM, precision="tf32")
    problem = explain("ttm", X.astype(np.complex128), np.ones((5, 7)), 1, transpose=True).problem
    assert (problem.dtype, problem.mode, problem.rank) == ("complex128", 1, 7)
    assert explain("ttm", X, np.ones(5), 1).problem.rank == 1
    assert explain("gram", X, 2, double=True).problem.rank == 6
    assert explain("khatri_rao", U, np.ones(2), skip=0).problem.shape == (5, 6)
    assert explain("khatri_rao", U).problem.shape == (4, 5, 6)


@pytest.mark.usefixtures("registry")
def test_explain_computes_nothing():
    for op, call in CALLS.items():
        register(op, Implementation("torch", fails, cost=lambda p: NOTHING))
        assert explain(op, *call).chosen == "torch"
    with pytest.raises(AssertionError, match="nothing may be computed"):
        tf.gram(X, 1)


def test_explain_follows_impl():
    explanation = explain("mttkrp", X, U, 1, impl="reference")
    assert explanation.chosen == "reference"
    assert explanation.reasons["torch"] == ("impl='reference' was asked for",)


def test_explain_checks_its_arguments_as_the_call_does():
    with pytest.raises(ValueError, match=r"mttkrp: mode is 3 but x has 3 modes"):
        explain("mttkrp", X, U, 3)
    with pytest.raises(TypeError, match=r"gram: x is str; expected an array"):
        explain("gram", "x", 0)
    with pytest.raises(ValueError, match=r"impl='cuda' cannot serve this call: this installation"):
        explain("mttkrp", X, U, 1, impl="cuda")


@pytest.mark.parametrize("op", ["svd", "unfold", tf.sthosvd, tf.fold, 3], ids=range(5))
def test_explain_knows_its_operations(op):
    with pytest.raises(ValueError, match=r"explain: op is .*; expected one of \['cp_als', 'gram'"):
        explain(op)


@pytest.mark.parametrize("op", ["mttkrp", "ttm", "gram"])
@pytest.mark.parametrize(
    ("impl", "message"),
    [
        ("fastest", "impl is 'fastest'; expected 'auto' or one of ('cuda', 'triton', 'cpp',"),
        (None, "impl is None; expected 'auto' or one of"),
        (3, "impl is 3; expected 'auto' or one of"),
        ("cuda", "impl='cuda' cannot serve this call: this installation has no CUDA C++ kernel"),
        ("triton", "impl='triton' cannot serve this call: x is on cpu; the kernels run on CUDA"),
        ("cpp", "impl='cpp' cannot serve this call: this installation has no compiled CPU kernel"),
    ],
)
def test_an_implementation_that_cannot_serve_says_why(op, impl, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        getattr(tf, op)(*CALLS[op], impl=impl)
    assert f"{op}: {message}" in str(caught.value)


@pytest.mark.usefixtures("triton")
def test_every_reason_is_in_the_error():
    message = (
        r"mttkrp: impl='triton' cannot serve this call: "
        r"the device is cpu; it runs on cuda; the type is float32; it has float16"
    )
    with pytest.raises(ValueError, match=message):
        tf.mttkrp(X, U, 1, impl="triton")
    half_right = dataclasses.replace(PROBLEM, device="cuda")
    with pytest.raises(ValueError, match=r"serve this call: the type is float32; it has float16$"):
        choose(half_right, "triton")


def test_reasons_stand_in_the_table(triton):
    explanation = explain("mttkrp", X, U, 1)
    assert explanation.reasons["triton"] == (
        "the device is cpu; it runs on cuda",
        "the type is float32; it has float16",
    )
    assert triton.name not in explanation.reasons["reference"][0]


def test_the_cheapest_that_supports_the_problem_is_chosen(triton):
    able = dataclasses.replace(PROBLEM, device="cuda", dtype="float16")
    assert choose(able) is triton
    assert choose(able, "reference").name == "reference"
    assert choose(dataclasses.replace(able, dtype="float32")).name == "torch"
    assert runner(able) is triton.run


@pytest.mark.usefixtures("registry")
def test_cost_decides_and_may_depend_on_the_problem():
    register(
        "gram", Implementation("cpp", fails, cost=lambda p: Cost(-1.0 if p.rank > 8 else 1e9, 0, 0))
    )
    small = Problem("gram", (4, 4), "float32", "cpu", rank=4)
    assert choose(small).name == "torch"
    assert choose(dataclasses.replace(small, rank=9)).name == "cpp"


def test_an_operation_nobody_serves_names_every_implementation(registry):
    registry["gram"].clear()
    for name in ("torch", "reference"):
        register(
            "gram",
            Implementation(name, fails, lambda p: NOTHING, lambda p, n=name: [f"{n} is shy"]),
        )
    with pytest.raises(TypeError, match=r"gram: no implementation serves .*") as caught:
        tf.gram(X, 0)
    for part in (
        "cuda: this inst",
        "triton: this",
        "cpp: this",
        "torch is shy",
        "reference is shy",
    ):
        assert part in str(caught.value)


@pytest.mark.usefixtures("registry")
def test_an_exception_is_not_swallowed_into_a_fallback():
    def breaks(*_):
        raise MemoryError("the kernel broke")

    register("gram", Implementation("torch", breaks, cost=lambda p: NOTHING))
    with pytest.raises(MemoryError, match="the kernel broke"):
        tf.gram(X, 0)


def test_a_name_outside_the_list_is_not_registered():
    with pytest.raises(ValueError, match=r"register: name is 'numba'; expected one of \('cuda',"):
        register("gram", Implementation("numba", fails, cost=lambda p: NOTHING))
    assert "numba" not in _dispatch._registry["gram"]


@pytest.mark.parametrize("op", CALLS)
def test_costs_grow_with_the_problem(op):
    for implementation in _dispatch._registry[op].values():
        for device in ("cpu", "cuda"):
            costs = [
                implementation.cost(
                    Problem(op, (n,) * 3, "float32", device, rank=8, strides=(n * n, n, 1))
                )
                for n in (4, 40, 400)
            ]
            for one in (lambda c: c.seconds, lambda c: c.flops, lambda c: c.bytes):
                assert 0 < one(costs[0]) < one(costs[1]) < one(costs[2])


def test_torch_is_preferred_to_the_reference_at_every_size():
    for op in CALLS:
        for n in (1, 10, 1000):
            problem = Problem(op, (n, n, n), "float32", "cpu", rank=n)
            assert choose(problem).name == "torch"
