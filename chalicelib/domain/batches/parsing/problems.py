"""Collect what is wrong with a batch while it is read."""

from __future__ import annotations

from typing import NamedTuple

from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail
from chalicelib.domain.validation.schema import MAX_DETAILS

PROMPT_NAMES = ("input", "prompt")  # the names by which a template refers to the content of a row


class ParsedRow(NamedTuple):
    """A row as it was read, before its prompt is rendered."""

    location: str  # in the input: `line 17`, `items.3`
    row: Row
    content: str = "prompt"  # the field or column that holds its prompt, for error paths


class UnreadableInput(Exception):
    """The input cannot be parsed beyond this location.

    `BatchReader` turns it into a detail of `InvalidRequest`.
    """

    def __init__(self, location: str, message: str) -> None:
        super().__init__(message)
        self.detail = Detail(location, message)


class TooManyProblems(Exception):
    """The maximum number of problems was found. `BatchReader` stops reading and reports them."""


class ProblemCollector:
    """The problems found so far, at most `MAX_DETAILS`."""

    def __init__(self) -> None:
        self.details: list[Detail] = []

    def __bool__(self) -> bool:
        return bool(self.details)

    def add(self, location: str, message: str) -> None:
        """Add a problem.

        Raises:
            TooManyProblems: the maximum is reached.
        """
        self.extend([Detail(location, message)])

    def extend(self, details: list[Detail] | tuple[Detail, ...]) -> None:
        """Add several problems; raises as `add` does."""
        self.details = [*self.details, *details][:MAX_DETAILS]
        if len(self.details) >= MAX_DETAILS:
            raise TooManyProblems
