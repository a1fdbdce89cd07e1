"""Read the rows of a batch from CSV: a header that names the columns, then one row a record."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.parsing.line_splitter import MAX_LINE_LENGTH, EmptyLines, lines
from chalicelib.domain.batches.parsing.problems import PROMPT_NAMES, ParsedRow, ProblemCollector, UnreadableInput
from chalicelib.domain.batches.row import Row
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.template import names
from chalicelib.domain.validation.schema_messages import shortened

MAX_FIELD_LENGTH = 1_048_576  # characters
MAX_COLUMNS = 256
DETECTED_LENGTH = 65_536  # characters of the header by which the delimiter is detected
DELIMITERS = (",", ";", "\t")
PROMPT = "prompt"
# Names of the prompt column; the first that exists is used.
PROMPT_COLUMNS = (PROMPT, "input", "content", "text", "question")
ID_COLUMNS = ("id", "custom_id")
PRIORITY = "priority"
DEPENDENCY_COLUMNS = frozenset(["depends_on", "on_parent_failure"])


def csv_rows(pieces: Iterable[bytes], options: BatchOptions, found: ProblemCollector) -> Iterator[ParsedRow]:
    """Yield each row with the line on which it begins.

    An invalid row is left out and its problem added to `found`.

    Raises:
        UnreadableInput: the records cannot be separated, or the header is unusable.
    """
    records = _Records(lines(pieces), options.delimiter)
    header = None
    for location, cells in records:
        if header is None:
            header = Header.parse(cells, location, options)
        elif row := header.row(cells, location, found):
            yield ParsedRow(location, row, header.content)


_UNCLOSED = "a quote is probably not closed"


class _RecordTooLong(Exception):
    """A record has more characters than a line may have."""


class _Records:
    """Iterates over the records of a CSV and the lines on which they begin, without empty ones."""

    def __init__(self, source: Iterator[str], delimiter: str | None) -> None:
        self._lines, self._delimiter = source, delimiter

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        first, empty = "", EmptyLines()
        for first in self._lines:
            if first.strip():
                break
            empty.add()
        # A process-wide setting; nothing else here reads CSV.
        csv.field_size_limit(MAX_FIELD_LENGTH)
        before, self._record_length = empty.count, 0
        reader = csv.reader(self._measured(first), delimiter=self._delimiter or detect_delimiter(first[:DETECTED_LENGTH]), strict=True)
        while True:
            location = f"line {before + reader.line_num + 1}"
            try:
                self._record_length, cells = 0, next(reader)
            except StopIteration:
                return
            except csv.Error as exc:
                raise UnreadableInput(location, _explain_csv_error(str(exc))) from exc
            except _RecordTooLong as exc:
                raise UnreadableInput(location, f"begins a record of more than {MAX_LINE_LENGTH:,} characters: {_UNCLOSED}") from exc
            if len(cells) > MAX_COLUMNS:
                raise UnreadableInput(location, f"has {len(cells):,} columns; the maximum is {MAX_COLUMNS}")
            if any(cell and not cell.isspace() for cell in cells):
                yield location, cells
            else:
                empty.add()

    def _measured(self, first: str) -> Iterator[str]:
        """Yield the lines of the reader, and count the characters of the record that it reads.

        A record may have many lines, each within a quoted field.
        """
        for line in chain([first], self._lines):
            self._record_length += len(line)
            if self._record_length > MAX_LINE_LENGTH:
                raise _RecordTooLong
            yield line


def detect_delimiter(line: str) -> str:
    """Return the delimiter with which the header has a prompt column and most columns."""

    def score(delimiter: str) -> tuple[bool, int]:
        cells = [_key(cell) for cell in next(csv.reader([line], delimiter=delimiter), [])]
        return any(name in cells for name in PROMPT_COLUMNS), len(cells)

    return max(DELIMITERS, key=score)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a CSV: what each column holds."""

    names: tuple[str, ...]  # the column names as written, without surrounding spaces
    prompt: int | None  # index of the prompt column
    id: int | None  # index of the id column
    priority: int | None  # index of the priority column

    @property
    def content(self) -> str:
        """The name of the prompt column, for error paths."""
        return PROMPT if self.prompt is None else _key(self.names[self.prompt])

    @classmethod
    def parse(cls, cells: list[str], location: str, options: BatchOptions) -> Header:
        """Return the header.

        Raises:
            UnreadableInput: a column name is missing, repeated or not allowed, or the template
                needs another column.
        """
        header = cls._from_names(tuple(cell.strip() for cell in cells), location)
        template_names = names(options.prompt_template or "")
        if header.prompt is None and (options.prompt_template is None or set(template_names) & set(PROMPT_NAMES)):
            raise UnreadableInput(location, header._missing_prompt_message())
        known = {*header.names, *(PROMPT_NAMES if header.prompt is not None else ())}
        for name in template_names:
            if name not in known:
                columns = ", ".join(f"{{{{{column}}}}}" for column in sorted(known)[:20])
                raise UnreadableInput("prompt_template", f"refers to {shortened(name, quoted=False)}, but the columns are {columns}")
        return header

    @classmethod
    def _from_names(cls, written: tuple[str, ...], location: str) -> Header:
        keys = [_key(name) for name in written]
        if "" in keys:
            message = f"has no name for column {keys.index('') + 1}: the first line is the header and must name each column"
            raise UnreadableInput(location, message)
        repeated = next((name for index, name in enumerate(keys) if name in keys[:index]), None)
        if repeated is not None:
            raise UnreadableInput(location, f"has two columns {shortened(repeated)}: each column needs its own name")
        dependency = next((name for name in keys if name in DEPENDENCY_COLUMNS), None)
        if dependency is not None:
            raise UnreadableInput(location, f"has a column {dependency}: send rows that depend on others as JSON or JSON lines")
        return cls(written, *(_index_of_first(keys, columns) for columns in (PROMPT_COLUMNS, ID_COLUMNS, (PRIORITY,))))

    def _missing_prompt_message(self) -> str:
        columns = ", ".join(shortened(name, 40) for name in self.names[:10])
        return (
            f"has no column `prompt`, only {columns}. The first line is the header. It needs a column `prompt` "
            f"(or {', '.join(PROMPT_COLUMNS[1:])}); `id`, `priority` and any other columns are optional"
        )

    def row(self, cells: list[str], location: str, found: ProblemCollector) -> Row | None:
        """Return the row of these cells, or None after adding its problem to `found`."""
        if len(cells) != len(self.names):
            hint = "; put a field that contains the delimiter in quotes" if len(cells) > len(self.names) else ""
            found.add(location, f"has {len(cells)} fields, but the header has {len(self.names)}{hint}")
            return None
        lane = None if self.priority is None else cells[self.priority].strip().lower() or None
        if lane is not None and lane not in LANES:
            found.add(f"{location}.priority", f"must be one of {', '.join(LANES)}, not {shortened(lane)}")
            return None
        special = {self.prompt, self.id, self.priority}
        prompt = None if self.prompt is None else cells[self.prompt]
        values = {} if prompt is None else dict.fromkeys(PROMPT_NAMES, prompt)
        return Row(
            number=0,
            id=None if self.id is None else cells[self.id].strip() or None,
            prompt=prompt,
            priority=lane,
            metadata={name: cells[index] for index, name in enumerate(self.names) if index not in special},
            values=values | dict(zip(self.names, cells, strict=True)),
        )


def _index_of_first(keys: list[str], candidates: tuple[str, ...]) -> int | None:
    return next((keys.index(name) for name in candidates if name in keys), None)


def _key(name: str) -> str:
    return name.strip().casefold()


def _explain_csv_error(error: str) -> str:
    """Translate the message of a `csv.Error` into one that says what to fix."""
    if "field larger" in error:
        return f"has a field of more than 1 MB: {_UNCLOSED}"
    if "unexpected end" in error:
        return "begins a quoted field that is never closed"
    if "expected after" in error:
        return 'has text after a closing quote: write a quote within a quoted field twice, as ""'
    return f"cannot be read as CSV ({error})"
