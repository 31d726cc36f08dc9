"""Every CUDA C++ kernel compiled by NVRTC for GPUs that are not there."""

import dataclasses

import pytest

from bench import cuda_kernels
from tensorfast.cuda import compiler, cp_plan
from tensorfast.kernels.devices import CHIPS

pytestmark = pytest.mark.skipif(bool(compiler.missing()), reason="; ".join(compiler.missing()))


@pytest.fixture(scope="module")
def found():
    return cuda_kernels.reports()


@pytest.mark.parametrize("capability", CHIPS)
def test_no_kernel_has_a_fault(found, capability):
    own = {p: report for p, report in found.items() if p[-1] == capability}
    assert len(own) == (16 if capability in cp_plan.CLUSTERS else 8)
    assert [fault for p, report in own.items() for fault in cuda_kernels.faults(p, report)] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stack": 8}, "spills: 8 bytes"),
        ({"registers": 136}, "136 registers are too many"),
        ({"shared": 400}, "400 bytes of shared memory of its own"),
        ({"counts": {"spills": 2, "shared": 9, "generic": 0}}, "spills: 0 bytes, 2 accesses"),
        ({"counts": {"spills": 0, "shared": 9, "generic": 1}}, "1 accesses do not know"),
    ],
)
def test_a_fault_is_found(found, change, message):
    program, report = next(iter(found.items()))
    (fault,) = cuda_kernels.faults(program, dataclasses.replace(report, **change))
    assert message in fault


def test_the_page_is_up_to_date(found):
    page = cuda_kernels.PAGE.read_text(encoding="utf-8")
    if f"\nNVRTC {compiler.compiler_version()}\n" not in page:
        pytest.skip(f"made with another version than this, {compiler.compiler_version()}")
    assert cuda_kernels.written(found) == page, "python -m bench.cuda_kernels brings it up to date"
