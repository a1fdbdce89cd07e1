"""What is wrong with what was sent as a batch, collected while it is read."""

from __future__ import annotations

from typing import NamedTuple

from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail
from chalicelib.domain.validation.schema import MAX_DETAILS

OF_THE_PROMPT = ("input", "prompt")  # the template's names for what the row itself asks


class ParsedRow(NamedTuple):
    """A row as it stands in its source, and where: `line 17`, `items.3`. Its prompt is not filled in yet; its values are all it has.

    `content` is the name under which it has its prompt.
    """

    location: str
    row: Row
    content: str = "prompt"


class UnreadableInput(Exception):
    """Nothing behind this place can be told apart any more. Ends the reading; no caller sees it."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.detail = Detail(place, message)


class TooManyProblems(Exception):
    """There are as many flaws as anybody reads. Ends the reading; no caller sees it."""


class ProblemCollector:
    """What was found wrong so far, at most a hundred things."""

    def __init__(self) -> None:
        self.details: list[Detail] = []

    def __bool__(self) -> bool:
        return bool(self.details)

    def add(self, place: str, message: str) -> None:
        """Note one, and end the reading where there are enough."""
        self.extend([Detail(place, message)])

    def extend(self, details: list[Detail] | tuple[Detail, ...]) -> None:
        self.details = [*self.details, *details][:MAX_DETAILS]
        if len(self.details) >= MAX_DETAILS:
            raise TooManyProblems
