"""A pytest plugin: TensorLy's own tests by a chosen tensor algebra, and a record of how each ended.

Tests leave other backends than they found, and draw random numbers without a seed. So every test
starts from the chosen backends, and from numbers that follow from its name: two runs see the same.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import tensorly
import torch
from tensorly import tenalg

import tensorfast.backends.tensorly as backend
from tensorfast.backends.tensorly import algebra


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tenalg", default="core", help="which tensor algebra runs the tests")
    parser.addoption("--every-size", action="store_true", help="leave no size to TensorLy's")
    parser.addoption("--seed", type=int, default=0, help="what random numbers follow from, too")
    parser.addoption("--record", type=Path, required=True, help="the file to write")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config))


class Counted:
    """A function of a tensor algebra, counted when TensorLy looks it up, as it does for each call.

    Another function around it would stand between it and its caller, and the backend looks there.
    """

    def __init__(self, function: Callable, name: str, calls: Counter[str]) -> None:
        self.function, self.name, self.calls = function, name, calls
        calls[name] = 0

    def __get__(self, instance: Any, owner: type) -> Callable:
        self.calls[self.name] += 1
        return self.function


class HandedBack:
    """TensorLy's functions, counted when one of ours leaves its work to them."""

    def __init__(self, module: ModuleType, counts: Counter[str]) -> None:
        self.module, self.counts = module, counts

    def __getattr__(self, name: str) -> Any:
        self.counts[name] += 1
        return getattr(self.module, name)


def ours() -> tuple[type, dict[str, Callable]]:
    """Return the class that TensorLy knows, and its functions without those of TensorLy."""
    backend.register(share=True)
    known = type(tenalg.load_backend("tensorfast"))
    functions = {name: getattr(known, name) for name in tenalg._functions}
    return known, {n: f for n, f in functions.items() if f.__module__.startswith("tensorfast.")}


def count(calls: Counter[str], handed_back: Counter[str], put: Callable = setattr) -> None:
    """Count from now on how often our functions are called, and leave that to TensorLy's."""
    known, functions = ours()
    for name, function in functions.items():
        put(known, name, Counted(function, name, calls))
    put(algebra, "core", HandedBack(algebra.core, handed_back))


class Recorder:
    """How each test has ended, and what became of TensorLy's calls of our functions."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.numeric = tensorly.get_backend()
        self.tenalg = config.getoption("tenalg")
        self.tests: dict[str, tuple[str, str]] = {}
        self.calls: Counter[str] = Counter()
        self.handed_back: Counter[str] = Counter()
        if self.tenalg == "tensorfast":
            count(self.calls, self.handed_back)
        if config.getoption("every_size"):
            algebra.SMALL = 0

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

    def pytest_sessionfinish(self) -> None:
        record = {
            "tests": self.tests,
            "calls": self.calls,
            "handed_back": self.handed_back,
            "reused": backend.reused(),
        }
        self.config.getoption("record").write_text(json.dumps(record))


def why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the reason that was given for not running a test, or what went wrong."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return report.longreprtext
