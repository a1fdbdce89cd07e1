"""What can go wrong between a person and the API, each with the exit code that scripts see.

Problem
├── Misused        the command cannot mean anything                         2
├── Refused        the API answered with an error                          2 or 4
└── Unreachable    nothing answered, or nothing that we understand         4
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes; those of a job's end come from `exit_for`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ENDED_EARLY = 3
    NO_ACCESS = 4
    INTERRUPTED = 130


def exit_for(status: str) -> Exit:
    """The exit code of a command that waited for a job."""
    if status == "completed":
        return Exit.OK
    return Exit.FAILED if status == "failed" else Exit.ENDED_EARLY


class Problem(Exception):
    """Something that the person should read; `hint` says what to do about it."""

    exit_code = Exit.USAGE

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def as_json(self) -> dict[str, Any]:
        return {"success": False, "error": {"code": type(self).__name__.lower(), "message": self.message, "details": []}}


class Misused(Problem):
    """The command as it was given cannot mean anything."""


class Unreachable(Problem):
    """Nothing answered, or something that is not this API."""

    exit_code = Exit.NO_ACCESS


class Refused(Problem):
    """The API answered with an error of its one shape."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message") or f"The API answered {status}."))
        self.status = status
        self.code = str(error.get("code") or status)
        self.details = [detail for detail in error.get("details") or [] if isinstance(detail, dict)]
        self.request_id = error.get("request_id")
        self.error = error
        self.exit_code = Exit.NO_ACCESS if status in (401, 403) or status == 429 or status >= 500 else Exit.USAGE
        if status == 401:
            self.hint = "Log in with `headrace login`, or set HEADRACE_KEY."

    def as_json(self) -> dict[str, Any]:
        return {"success": False, "error": {"code": self.code, "message": self.message, **self.error}}
