"""Separate the records of a CSV as programs really write it: find the delimiter, and read around blanks."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from chalicelib.domain.batches.parsing.line_splitter import MAX_LINE_LENGTH, EmptyLines
from chalicelib.domain.batches.parsing.problems import UnreadableInput, quoted
from chalicelib.domain.template import name_key

MAX_FIELD_LENGTH = 1_048_576  # characters
MAX_COLUMNS = 256
DETECTED_LENGTH = 65_536  # characters of the header by which the delimiter is detected
MAX_DELIMITER_LINE = 2 * MAX_COLUMNS  # characters of a line that only names the delimiter
DELIMITERS = (",", ";", "\t", "|")
# Names of the prompt column; the first that exists is used.
PROMPT_COLUMNS = ("prompt", "input", "content", "text", "question")
# The line by which spreadsheets are told the delimiter; some programs quote it, some fill it up with delimiters.
_DELIMITER_LINE = re.compile(r'"?sep=([^"\r\n]?)"?[,;|\t]*+[ \r\n]*', re.IGNORECASE)
_UNCLOSED = "a quote is probably not closed"


class Record(NamedTuple):
    """A record with the line on which it begins."""

    location: str
    cells: list[str]
    line: str


class _RecordTooLong(Exception):
    """A record has more characters than a line may have."""


def detect_delimiter(line: str) -> str:
    """Return the delimiter with which the header has a prompt column and most columns."""

    def score(delimiter: str) -> tuple[bool, int]:
        cells = split_line(line, delimiter)
        return has_prompt_column(cells), len(cells)

    return max(DELIMITERS, key=score)


def split_line(line: str, delimiter: str) -> list[str]:
    """Return the cells of one line."""
    return next(csv.reader([line], delimiter=delimiter), [])


def has_prompt_column(names: list[str]) -> bool:
    keys = {name_key(name) for name in names}
    return any(name in keys for name in PROMPT_COLUMNS)


class Records:
    """Iterates over the records of a CSV, without empty ones.

    Args:
        source: the lines with their ends.
        delimiter: what the caller says. None: the line `sep=;` says it, or else `default`, or else
            it is detected from the header.

    Raises:
        UnreadableInput: the records cannot be separated.
    """

    def __init__(self, source: Iterator[str], delimiter: str | None, default: str | None = None) -> None:
        self._lines, self._delimiter, self._default = source, delimiter, default
        self._empty = EmptyLines()
        self._line, self._record_length = "", 0  # the first line of the record that is read, and its characters so far

    def __iter__(self) -> Iterator[Record]:
        first, before = self._first_line()
        # A process-wide setting; nothing else here reads CSV.
        csv.field_size_limit(MAX_FIELD_LENGTH)
        delimiter = self._delimiter or self._default or detect_delimiter(first[:DETECTED_LENGTH])
        self._around_quotes = AroundQuotes(delimiter)
        reader = csv.reader(self._measured(first), delimiter=delimiter, strict=True)
        while True:
            location = f"line {before + reader.line_num + 1}"
            cells = self._next(reader, location)
            if cells is None:
                return
            if len(cells) > MAX_COLUMNS:
                cells = _without_trailing_blanks(cells)
            if len(cells) > MAX_COLUMNS:
                raise UnreadableInput(location, f"has {len(cells):,} columns; the maximum is {MAX_COLUMNS}")
            if any(cell and not cell.isspace() for cell in cells):
                yield Record(location, cells, self._line)
            else:
                self._empty.add()

    def _first_line(self) -> tuple[str, int]:
        """Return the first line that is neither empty nor names the delimiter, and how many were before it."""
        before = 0
        for line in self._lines:
            named = _DELIMITER_LINE.fullmatch(line) if len(line) <= MAX_DELIMITER_LINE else None
            if named and before == self._empty.count:  # else it is a record
                self._default = named.group(1) or self._default
            elif line.strip():
                return line, before
            else:
                self._empty.add()
            before += 1
        return "", before

    def _next(self, reader: Iterator[list[str]], location: str) -> list[str] | None:
        """Return the cells of the next record; None at the end."""
        self._record_length = 0
        try:
            return next(reader, None)
        except csv.Error as exc:
            raise UnreadableInput(location, f"{_explain_csv_error(str(exc))}: {quoted(self._line)}") from exc
        except _RecordTooLong as exc:
            message = f"begins a record of more than {MAX_LINE_LENGTH:,} characters: {_UNCLOSED}: {quoted(self._line)}"
            raise UnreadableInput(location, message) from exc

    def _measured(self, first: str) -> Iterator[str]:
        """Yield the lines of the reader, and count the characters of the record that it reads.

        A record may have many lines, each within a quoted field.
        """
        without_blanks = self._around_quotes.without_blanks
        for line in chain([first], self._lines):
            before = self._record_length
            self._record_length = before + len(line)
            if self._record_length > MAX_LINE_LENGTH:
                raise _RecordTooLong
            if not before:
                self._line = line
            yield without_blanks(line, within_quotes=before > 0) if '"' in line else line


class AroundQuotes:
    """Removes the blanks between a delimiter and a quoted field: `1, "a, b" ,2`.

    The module `csv` takes such a field for one without quotes. No program that writes CSV correctly
    writes an unquoted field with a quote in it, so nothing else is changed. The time is linear.
    """

    def __init__(self, delimiter: str) -> None:
        blank = "".join(character for character in (" ", "\t", "\u00a0") if character != delimiter)
        self._delimiter = delimiter
        self._suspicion = re.compile(rf'(?:^|{re.escape(delimiter)})[{blank}]+"|"[{blank}]+(?:{re.escape(delimiter)}|[\r\n]|$)')
        self._blanks = re.compile(f"[{blank}]*")
        self._quoted = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
        self._rest_of_quoted = re.compile(r'[^"]*+(?:""[^"]*+)*+"')

    def without_blanks(self, line: str, *, within_quotes: bool) -> str:
        """Return the line. `within_quotes`: it begins within a quoted field of the line before."""
        if not self._suspicion.search(line):
            return line
        end, kept, copied, field = len(line.rstrip("\r\n")), list[str](), 0, 0
        for _ in range(MAX_COLUMNS + 1):  # a record with more fields is refused anyway
            if field > end:
                break
            begin = field if within_quotes else self._end_of_blanks(line, field)
            if not within_quotes and line[begin : begin + 1] != '"':
                field = (line.find(self._delimiter, field) + 1) or end + 1
                continue
            match = (self._rest_of_quoted if within_quotes else self._quoted).match(line, begin)
            within_quotes = False
            if match is None:  # it goes on in the next line
                kept.append(line[copied:field])
                copied = begin
                break
            behind = self._end_of_blanks(line, match.end())
            if behind != end and line[behind] != self._delimiter:  # no quoted field
                field = (line.find(self._delimiter, field if begin != field else end) + 1) or end + 1
                continue
            kept += [line[copied:field], match.group()]
            copied, field = behind, behind + 1
        return "".join((*kept, line[copied:]))

    def _end_of_blanks(self, line: str, start: int) -> int:
        match = self._blanks.match(line, start)
        return match.end() if match else start


def _without_trailing_blanks(cells: list[str]) -> list[str]:
    """Return the cells without blank ones beyond the maximum: spreadsheets write delimiters for columns that were used once."""
    length = len(cells)
    while length > MAX_COLUMNS and not cells[length - 1].strip():
        length -= 1
    return cells[:length]


def _explain_csv_error(error: str) -> str:
    """Translate the message of a `csv.Error` into one that says what to fix."""
    if "field larger" in error:
        return f"has a field of more than 1 MB: {_UNCLOSED}"
    if "unexpected end" in error:
        return "begins a quoted field that is never closed"
    if "expected after" in error:
        return 'has text after a closing quote: write a quote within a quoted field twice, as ""'
    return f"cannot be read as CSV ({error})"
