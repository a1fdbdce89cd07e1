"""Errors that end a command, each with the exit code that scripts see.

CliError
├── UsageError     the command line makes no sense as it was given            2
├── HelpShown      a command without its arguments: the help                  2
├── ApiError       the API answered with an error                             2 or 4
└── Unreachable    no answer, or an answer that is not from this API          4
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes. `exit_for` maps the status of a job to one of them."""

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


class CliError(Exception):
    """An error to show to the user.

    `hint` says what to do about it; `json_code` is its code in `--json` output.
    """

    exit_code = Exit.USAGE
    json_code = "problem"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def as_json(self) -> dict[str, Any]:
        return {"success": False, "error": {"code": self.json_code, "message": self.message, "details": []}}


class UsageError(CliError):
    """The command line makes no sense as it was given."""

    json_code = "misused"


class HelpShown(CliError):
    """A command that needs arguments was called without any: its help is the message."""

    json_code = "misused"


class Unreachable(CliError):
    """The API did not answer, or the answer is not from this API."""

    exit_code = Exit.NO_ACCESS
    json_code = "unreachable"

    def __init__(self, message: str, hint: str | None = None, *, may_pass: bool = True) -> None:
        """`may_pass`: the same request may succeed a little later."""
        super().__init__(message, hint)
        self.may_pass = may_pass


class ApiError(CliError):
    """The API answered with an error, in the shape that all of its errors have."""

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
