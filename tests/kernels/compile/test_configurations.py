"""Every configuration that the heuristics ask for does what it should on every chip."""

import random

import pytest

from bench import launches
from bench.cases import DTYPES, OPERATIONS, PRECISIONS, Case, modes_of
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
        assert {launch.case.wide for launch in several} == {False, True}
        # A slab pass always takes 64 bits.
        widths = {None} if kernel == "slab_kernel" else {False, True}
        assert {launch.told("WIDE", None) for launch in several} == widths


@pytest.mark.parametrize("capability", CHIPS)
def test_other_problems_ask_for_no_other_configuration(reports, capability):
    """Drawn at random: the grid is fine enough, in the rank above all."""
    known = {launch.configuration for launch in reports}
    draw = random.Random(0)
    missing = {}
    for _ in range(2000):
        order = draw.sample(range(ndim := draw.randint(2, 5)), ndim)
        shape = tuple(int(2 ** draw.uniform(0, 26 / ndim)) for _ in order)
        op, dtype = draw.choice(list(OPERATIONS)), draw.choice(DTYPES)
        choices = list(modes_of(op, ndim))
        if not choices:
            continue
        if op in ("khatri_rao", "contract_partial"):
            dtype = "float64" if dtype == "float64" else "float32"
        rank = 0 if op.startswith("gram") else draw.randint(1, 512)
        precision = draw.choice(PRECISIONS)
        case = Case(op, shape, tuple(order), draw.choice(choices), rank, dtype, precision)
        key = launches.note(case, capability).configuration
        if key not in known:
            missing.setdefault(key, case)
    assert not missing, "\n".join(f"{key}; {case}" for key, case in missing.items())
