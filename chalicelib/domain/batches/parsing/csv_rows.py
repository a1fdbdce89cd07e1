"""Rows out of CSV: a header that says what each column is, then a row each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.parsing.line_splitter import lines
from chalicelib.domain.batches.parsing.problems import OF_THE_PROMPT, ParsedRow, ProblemCollector, UnreadableInput
from chalicelib.domain.batches.row import Row
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.template import names
from chalicelib.domain.validation.schema_messages import shortened

MAX_FIELD_LENGTH = 1_048_576  # characters
MAX_COLUMNS = 256
DELIMITERS = (",", ";", "\t")
PROMPT = "prompt"
PROMPTS = (PROMPT, "input", "content", "text", "question")  # what the prompt's column may be called, the first that is there
IDS = ("id", "custom_id")
PRIORITY = "priority"
DEPENDENCY_COLUMNS = frozenset(["depends_on", "on_parent_failure"])


def csv_rows(pieces: Iterable[bytes], terms: BatchOptions, flaws: ProblemCollector) -> Iterator[ParsedRow]:
    """Each row at its line, that of its beginning. What is wrong with a row goes to `flaws`, and the row is left out.

    Raises:
        Unreadable: its lines cannot be told apart any more, or there is no header that can be used.
    """
    source = _Source(lines(pieces), terms.delimiter)
    header = None
    for place, cells in source:
        if header is None:
            header = Header.of(cells, place, terms)
        elif row := header.row(cells, place, flaws):
            yield ParsedRow(place, row, header.content)


class _Source:
    """Records of a CSV and the line on which each begins. Lines with nothing in them, or only delimiters, are left out."""

    def __init__(self, source: Iterator[str], delimiter: str | None) -> None:
        self._lines, self._delimiter = source, delimiter

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        first, before = "", 0
        for first in self._lines:
            if first.strip():
                break
            before += 1
        csv.field_size_limit(MAX_FIELD_LENGTH)  # of the whole process, which reads nothing else as CSV
        reader = csv.reader(_chained(first, self._lines), delimiter=self._delimiter or detect_delimiter(first), strict=True)
        while True:
            place = f"line {before + reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as wrong:
                raise UnreadableInput(place, _in_words(str(wrong))) from wrong
            if any(cell and not cell.isspace() for cell in cells):
                yield place, cells


def detect_delimiter(line: str) -> str:
    """The one by which the header names a prompt and the most columns; the comma, where it makes no difference."""

    def score(delimiter: str) -> tuple[bool, int]:
        cells = [_key(cell) for cell in next(csv.reader([line], delimiter=delimiter), [])]
        return any(name in cells for name in PROMPTS), len(cells)

    return max(DELIMITERS, key=score)


@dataclass(frozen=True, slots=True)
class Header:
    """Which column is what. `names` are the columns as they were written, without the spaces around them."""

    names: tuple[str, ...]
    prompt: int | None
    id: int | None
    priority: int | None

    @property
    def content(self) -> str:
        return PROMPT if self.prompt is None else _key(self.names[self.prompt])

    @classmethod
    def of(cls, cells: list[str], place: str, terms: BatchOptions) -> Header:
        """The header of these cells.

        Raises:
            Unreadable: it is none, or not what the template needs.
        """
        header = cls._named(tuple(cell.strip() for cell in cells), place)
        asked = names(terms.prompt_template or "")
        if header.prompt is None and (terms.prompt_template is None or set(asked) & set(OF_THE_PROMPT)):
            raise UnreadableInput(place, header.without_prompt())
        known = {*header.names, *(OF_THE_PROMPT if header.prompt is not None else ())}
        for name in asked:
            if name not in known:
                there = ", ".join(f"{{{{{column}}}}}" for column in sorted(known)[:20])
                raise UnreadableInput("prompt_template", f"asks for {shortened(name, quoted=False)}, but the columns are {there}")
        return header

    @classmethod
    def _named(cls, written: tuple[str, ...], place: str) -> Header:
        keys = [_key(name) for name in written]
        if len(keys) > MAX_COLUMNS:
            raise UnreadableInput(place, f"has {len(keys)} columns; {MAX_COLUMNS} are the most")
        if "" in keys:
            raise UnreadableInput(place, f"names no column {keys.index('') + 1}: the first line is the header and names each column")
        twice = next((name for index, name in enumerate(keys) if name in keys[:index]), None)
        if twice is not None:
            raise UnreadableInput(place, f"has two columns {shortened(twice)}: each needs a name of its own")
        graph = next((name for name in keys if name in DEPENDENCY_COLUMNS), None)
        if graph is not None:
            raise UnreadableInput(place, f"has a column {graph}: rows that depend on others are sent as JSON or JSON lines")
        return cls(written, *(_first(keys, these) for these in (PROMPTS, IDS, (PRIORITY,))))

    def without_prompt(self) -> str:
        found = ", ".join(shortened(name, 40) for name in self.names[:10])
        return (
            f"names no column `prompt`, only {found}. The first line is the header: a column `prompt` "
            f"(or {', '.join(PROMPTS[1:])}), and `id`, `priority` or what else you like"
        )

    def row(self, cells: list[str], place: str, flaws: ProblemCollector) -> Row | None:
        """A row; None where it is no row of this header."""
        if len(cells) != len(self.names):
            hint = "; a field with a delimiter in it is put in quotes" if len(cells) > len(self.names) else ""
            flaws.add(place, f"has {len(cells)} fields where the header has {len(self.names)}{hint}")
            return None
        lane = None if self.priority is None else cells[self.priority].strip().lower() or None
        if lane is not None and lane not in LANES:
            flaws.add(f"{place}.priority", f"must be one of {', '.join(LANES)}, not {shortened(lane)}")
            return None
        own = {self.prompt, self.id, self.priority}
        prompt = None if self.prompt is None else cells[self.prompt]
        values = {} if prompt is None else dict.fromkeys(OF_THE_PROMPT, prompt)
        return Row(
            number=0,
            id=None if self.id is None else cells[self.id].strip() or None,
            prompt=prompt,
            priority=lane,
            metadata={name: cells[index] for index, name in enumerate(self.names) if index not in own},
            values=values | dict(zip(self.names, cells, strict=True)),
        )


def _first(keys: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((keys.index(name) for name in wanted if name in keys), None)


def _key(name: str) -> str:
    return name.strip().casefold()


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _in_words(problem: str) -> str:
    """Python's words for what is wrong with CSV, with what to do about it."""
    if "field larger" in problem:
        return "has a field of more than 1 MB: is a quote never closed?"
    if "unexpected end" in problem:
        return "begins a field in quotes that is never closed"
    if "expected after" in problem:
        return 'has something behind a closing quote: a quote within a field in quotes is written twice, as ""'
    return f"cannot be read as CSV ({problem})"
