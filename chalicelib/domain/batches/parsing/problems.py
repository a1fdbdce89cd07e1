"""Collect what is wrong with a batch while it is read."""

from __future__ import annotations

from typing import NamedTuple

from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail
from chalicelib.domain.text import repair_surrogates, visible
from chalicelib.domain.validation.schema import MAX_DETAILS

PROMPT_NAMES = ("input", "prompt")  # the names by which a template refers to the content of a row


LINE_ENDS_LOST = "each row stands on a line of its own; send a file with curl --data-binary, because -d removes its line ends"
MAX_QUOTED = 80  # characters of a line in a message


def quoted(line: str) -> str:
    """Return a line as a message shows it: the beginning, with what is invisible made visible."""
    text = line.rstrip("\r\n")
    return f"`{visible(repair_surrogates(text[:MAX_QUOTED]))}{'…' if len(text) > MAX_QUOTED else ''}`"


class ParsedRow(NamedTuple):
    """A row as it was read, before its prompt is rendered."""

    location: str  # in the input: `line 17`, `items.3`
    row: Row
    content: str = "prompt"  # the field or column that holds its prompt, for error paths
    column: str | None = None  # the name of the column of CSV that is asked, as it is written


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
        self.emptiness: Detail | None = None  # where and why the input has no row; said if the whole batch has none

    def of_file(self, name: str) -> ProblemCollector:
        """Return a collector whose problems are added to these, each with the name of the file."""
        return _FileProblems(self, name)

    def __bool__(self) -> bool:
        return bool(self.details)

    def add(self, location: str, message: str) -> None:
        """Add a problem.

        Raises:
            TooManyProblems: the maximum is reached.
        """
        self.extend([Detail(location, message)])

    def explain_emptiness(self, location: str, message: str) -> None:
        """Say why no row was found here. That is a problem only if there is none anywhere."""
        self.emptiness = self.emptiness or Detail(location, message)

    def extend(self, details: list[Detail] | tuple[Detail, ...]) -> None:
        """Add several problems; raises as `add` does."""
        self.details = [*self.details, *details][:MAX_DETAILS]
        if len(self.details) >= MAX_DETAILS:
            raise TooManyProblems


class _FileProblems(ProblemCollector):
    """The problems of one of several files, as problems of the batch."""

    def __init__(self, whole: ProblemCollector, name: str) -> None:
        self._whole, self._name = whole, name

    @property
    def details(self) -> list[Detail]:  # type: ignore[override]
        return self._whole.details

    def explain_emptiness(self, location: str, message: str) -> None:
        self._whole.explain_emptiness(location_in(self._name, location), message)

    def extend(self, details: list[Detail] | tuple[Detail, ...]) -> None:
        self._whole.extend([in_file(self._name, detail) for detail in details])


def in_file(name: str, detail: Detail) -> Detail:
    """Return the problem with the file before its place: `jan.csv: line 17`."""
    return Detail(location_in(name, detail.path), detail.message)


def location_in(name: str, location: str) -> str:
    return f"{name}: {location}" if location else name
