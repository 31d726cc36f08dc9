"""A pytest plugin that writes every outcome as it comes, so that a run cut short tells what passed.

``OUTCOMES`` in the environment names the file: a JSON object a line. With pytest-xdist the
controller writes, and a worker whose GPU context a fault has made unusable ends itself: the tests
after it would all fail, and do not in the fresh worker that takes its place.
"""

import json
import os

import pytest
import torch

from bench.gpu_parts.store import last_lines


def _note(**told):
    with open(os.environ["OUTCOMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def _worker():
    return "PYTEST_XDIST_WORKER" in os.environ


def unusable():
    """Tell whether a fault has left this process without a GPU."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def pytest_collection_finish(session):
    """Write how many tests there are, where one process runs them."""
    if not _worker() and session.items:
        _note(collected=len(session.items))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids):
    """Write how many tests there are; every worker has the same."""
    _note(collected=len(ids))


def pytest_collectreport(report):
    """Write what could not even be collected."""
    if report.failed:
        _note(test=report.nodeid, outcome="failed", lines=last_lines(report.longreprtext))


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    """Write an outcome: that of the call, and of what comes before and after where it failed."""
    if not _worker():
        if report.when == "call" or report.failed or report.skipped:
            lines = last_lines(report.longreprtext) if report.failed else ""
            told = {"test": report.nodeid, "outcome": report.outcome, "lines": lines}
            _note(**told, seconds=report.duration)
    elif report.failed and unusable():
        os._exit(1)
