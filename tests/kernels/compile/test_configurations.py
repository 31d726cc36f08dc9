"""Every configuration that the heuristics ask for does what it should on every chip."""

import pytest

from bench import launches
from bench.cases import DTYPES, SMALL, drawn
from bench.kernel_checks import faults
from tensorfast.kernels.devices import CHIPS
from tensorfast.kernels.products import MODES


@pytest.mark.parametrize("capability", CHIPS)
def test_no_configuration_has_a_fault(reports, capability):
    found = [
        f"{launch}: {fault}"
        for launch, report in reports.items()
        if launch.configuration.capability == capability
        for fault in faults(launch, report)
    ]
    if found:
        pytest.fail("\n".join([f"{len(found)} faults", *found]), pytrace=False)


def test_the_grid_reaches_everything(reports):
    keys = {launch.configuration for launch in reports}
    assert {key.kernel for key in keys} == set(launches.SIDES)
    assert {key.mode for key in keys} == {None, *MODES}
    assert {key.dtypes[0] for key in keys} == set(DTYPES)
    assert {key.get("SWEEP") for key in keys} == {None, "inner", "outer"}
    for kernel in launches.SIDES:
        several = [launch for launch in reports if launch.configuration.kernel == kernel]
        if several[0].case.op in SMALL:
            # Offsets are told apart by hand: those of a factor in 64 bits, others within 32.
            assert {launch.told("WIDE", None) for launch in several} == {None}
            continue
        assert {launch.case.wide for launch in several} == {False, True}
        assert {launch.told("WIDE", None) for launch in several} == {False, True}
    of_residual = [launch for launch in reports if launch.configuration.kernel == "residual_kernel"]
    types = {launch.configuration.dtypes for launch in of_residual}
    long = {launch.configuration.dtypes for launch in of_residual if launch.told("LONG", False)}
    assert long == types


@pytest.mark.parametrize("capability", CHIPS)
def test_other_problems_ask_for_no_other_configuration(reports, capability):
    known = {launch.configuration for launch in reports}
    others = [launches.note(case, capability) for case in drawn(2000, seed=1)]
    assert [str(launch) for launch in others if launch.configuration not in known] == []
