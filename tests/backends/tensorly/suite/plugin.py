"""A pytest plugin: TensorLy's own tests by a chosen tensor algebra, and a record of how each ended.

Tests leave other backends than they found, and draw random numbers without a seed. So every test
starts from the chosen backends, and from numbers that follow from its name: two runs see the same.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import tensorly
import torch
from tensorly import tenalg

import tensorfast.backends.tensorly as backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tenalg", default="core", help="which tensor algebra runs the tests")
    parser.addoption("--seed", type=int, default=0, help="what random numbers follow from, too")
    parser.addoption("--record", type=Path, help="the file to write")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config))


class Counted:
    """A method of a tensor algebra that is counted whenever TensorLy looks it up, to call it.

    A function around it would stand between it and its caller, which the backend looks at.
    """

    def __init__(self, function: Callable, name: str, calls: Counter) -> None:
        self.function, self.name, self.calls = function, name, calls
        calls[name] = 0

    def __get__(self, instance, owner):
        self.calls[self.name] += 1
        return self.function


def registered() -> tuple[type, dict[str, Callable]]:
    """Return the class that TensorLy looks up, and those of its functions that are ours."""
    backend.register(share=True)
    algebra = type(tenalg.load_backend("tensorfast"))
    functions = {name: getattr(algebra, name) for name in tenalg._functions}
    ours = {n: f for n, f in functions.items() if f.__module__.startswith("tensorfast.")}
    return algebra, ours


class Recorder:
    """What happens in one process; where that starts others, in these too, and it writes."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.tests: dict[str, tuple[str, str]] = {}
        self.calls: Counter[str] = Counter()
        self.reused = 0
        self.numeric = tensorly.get_backend()
        self.tenalg = config.getoption("tenalg")
        if self.tenalg == "tensorfast":
            algebra, functions = registered()
            for name, function in functions.items():
                setattr(algebra, name, Counted(function, name, self.calls))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        tensorly.set_backend(self.numeric)
        tenalg.set_backend(self.tenalg)
        seed = crc32(f"{self.config.getoption('seed')} {item.nodeid}".encode())
        np.random.seed(seed)  # noqa: NPY002 - TensorLy draws from this one
        torch.manual_seed(seed)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        expected = hasattr(report, "wasxfail")
        if report.failed:
            self.tests[report.nodeid] = "failed", report.longreprtext
        elif report.skipped:
            self.tests[report.nodeid] = "xfailed" if expected else "skipped", why(report)
        elif report.when == "call":
            self.tests[report.nodeid] = "xpassed" if expected else "passed", ""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.tests[report.nodeid] = report.outcome, why(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error) -> None:
        there = getattr(node, "workeroutput", {})
        self.calls.update(there.get("calls", {}))
        self.reused += there.get("reused", 0)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput.update(calls=dict(self.calls), reused=backend.reused())
        elif path := self.config.getoption("record"):
            reused = self.reused + backend.reused()
            path.write_text(
                json.dumps({"tests": self.tests, "calls": self.calls, "reused": reused})
            )


def why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the reason that was given for not running a test, or what went wrong."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.longreprtext
