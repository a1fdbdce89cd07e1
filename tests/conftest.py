"""What every test gets."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.kit.time import JumpingLoop
from tests.summary import SUMMARY


@pytest.fixture(autouse=True)
def _close_loops() -> Iterator[None]:
    yield
    while JumpingLoop.made:
        JumpingLoop.made.pop().close()


def _not_skipped(report: Any) -> Any:
    """In CI nothing may be missing: a skip is a failure, and its reason says what to install."""
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _not_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _not_skipped((yield))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the tests have to tell: how many faults there were, and what became of them."""
    for title, tell in SUMMARY.items():
        lines = tell()
        if lines:
            terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)
