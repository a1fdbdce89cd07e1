"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from infra.cloud import Cloud


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # something does not work, or could not be checked
    PROBLEM = "problem"  # the stage does not work, or not for long


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    text: str  # one sentence; for a warning or a problem what to do


Check = Callable[[Cloud], Iterator[Finding]]


def ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str) -> Finding:
    return Finding(Level.WARNING, subject, text)


def problem(subject: str, text: str) -> Finding:
    return Finding(Level.PROBLEM, subject, text)
