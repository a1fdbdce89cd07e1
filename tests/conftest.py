"""Fixtures and hooks of all tests."""

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
    """Turn a skip into a failure in CI, where everything has to be installed.

    Its reason says what is missing.
    """
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
    """Print the summaries of the tests, such as the numbers of injected faults."""
    for title, summary_lines in SUMMARY.items():
        lines = summary_lines()
        if lines:
            terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)
