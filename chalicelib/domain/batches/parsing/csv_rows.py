"""Read the rows of a batch from CSV: a header that names the columns, then one row a record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice

from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.parsing.csv_records import (
    DETECTED_LENGTH,
    PROMPT_COLUMNS,
    Record,
    Records,
    detect_delimiter,
    has_prompt_column,
    split_line,
)
from chalicelib.domain.batches.parsing.line_splitter import lines
from chalicelib.domain.batches.parsing.problems import LINE_ENDS_LOST, PROMPT_NAMES, ParsedRow, ProblemCollector, UnreadableInput, quoted
from chalicelib.domain.batches.row import Row
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.template import match_names, name_key, names, trimmed
from chalicelib.domain.validation.schema_messages import shortened

PROMPT = "prompt"
ID_COLUMNS = ("id", "custom_id")
PRIORITY = "priority"
DEPENDENCY_COLUMNS = frozenset(["depends_on", "on_parent_failure"])
MAX_TITLE_LINES = 20  # below an unusable header, among which the real one is looked for


def csv_rows(
    pieces: Iterable[bytes], options: BatchOptions, found: ProblemCollector, default_delimiter: str | None = None
) -> Iterator[ParsedRow]:
    """Yield each row with the line on which it begins.

    An invalid row is left out and its problem added to `found`.

    Raises:
        UnreadableInput: the records cannot be separated, or the header is unusable.
    """
    records = iter(Records(lines(pieces), options.delimiter, default_delimiter))
    first = next(records, None)
    if first is None:
        return
    header = Header.parse(first, records, options)
    below = next(records, None)
    if below is None:
        found.explain_emptiness(
            first.location, f"is the header, and no row stands below it: {quoted(first.line)}. If there were rows, {LINE_ENDS_LOST}"
        )
        return
    for record in chain([below], records):
        if row := header.row(record, found):
            yield ParsedRow(record.location, row, header.content, header.asked)


def _advice(following: Iterator[Record]) -> str:
    """Return what to do about a header without a prompt column: there may be a real one below it, or no lines at all."""
    needed = f"it needs a column `prompt` (or {', '.join(PROMPT_COLUMNS[1:])}); `id`, `priority` and any other columns are optional"
    is_alone = True
    with suppress(UnreadableInput):
        for record in islice(following, MAX_TITLE_LINES):
            is_alone = False
            line = record.line[:DETECTED_LENGTH]
            if has_prompt_column(split_line(line, detect_delimiter(line))):
                return f"{record.location} looks like the header: remove the lines above it"
    return f"{needed}. There is no other line: {LINE_ENDS_LOST}" if is_alone else needed


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a CSV: what each column holds."""

    names: tuple[str, ...]  # the column names as written, without what surrounds them; "": it has none
    columns: tuple[tuple[int, str], ...]  # index and name of each column with a name
    prompt: int | None  # index of the prompt column
    id: int | None  # index of the id column
    priority: int | None  # index of the priority column
    prompt_names: tuple[str, ...]  # the names of the prompt in a template, where they are no columns
    asked: str | None = None  # the name of the prompt column, unless a template leaves it out

    @property
    def content(self) -> str:
        """The name of the prompt column, for error paths."""
        return PROMPT if self.prompt is None else name_key(self.names[self.prompt])

    @property
    def known(self) -> tuple[str, ...]:
        """What a template may refer to."""
        return (*self.prompt_names, *(name for _, name in self.columns))

    @classmethod
    def parse(cls, first: Record, following: Iterator[Record], options: BatchOptions) -> Header:
        """Return the header.

        Args:
            following: the records below it; read only to find the real header if this is none.

        Raises:
            UnreadableInput: a column name is repeated or not allowed, there is no prompt column, or
                the template needs another column.
        """
        header = cls._from_names(tuple(trimmed(cell) for cell in first.cells), first)
        asked = {name_key(name) for name in names(options.prompt_template or "")}
        if header.prompt is None and (options.prompt_template is None or asked & set(PROMPT_NAMES)):
            raise UnreadableInput(first.location, header._missing_prompt_message(first, _advice(following)))
        used = names(match_names(options.prompt_template or "", header.known))
        for name in used:
            if name not in header.known:
                columns = ", ".join(shortened(f"{{{{{column}}}}}", quoted=False) for column in sorted(header.known)[:20])
                raise UnreadableInput("prompt_template", f"refers to {shortened(name, quoted=False)}, but the columns are {columns}")
        column = None if header.prompt is None else header.names[header.prompt]
        is_asked = options.prompt_template is None or bool(set(used) & {column, *header.prompt_names})
        return replace(header, asked=column if is_asked else None)

    @classmethod
    def _from_names(cls, written: tuple[str, ...], first: Record) -> Header:
        keys = [name_key(name) for name in written]
        repeated = next((name for index, name in enumerate(keys) if name and name in keys[:index]), None)
        if repeated is not None:
            message = f"has two columns {shortened(repeated)}: each column needs its own name: {quoted(first.line)}"
            raise UnreadableInput(first.location, message)
        dependency = next((name for name in keys if name in DEPENDENCY_COLUMNS), None)
        if dependency is not None:
            raise UnreadableInput(first.location, f"has a column {dependency}: send rows that depend on others as JSON or JSON lines")
        prompt, row_id, priority = (_index_of_first(keys, columns) for columns in (PROMPT_COLUMNS, ID_COLUMNS, (PRIORITY,)))
        columns = tuple((index, name) for index, name in enumerate(written) if name)
        prompt_names = () if prompt is None else tuple(name for name in PROMPT_NAMES if name not in keys)
        return cls(written, columns, prompt, row_id, priority, prompt_names)

    def _missing_prompt_message(self, first: Record, advice: str) -> str:
        columns = ", ".join(shortened(name, 40) for _, name in self.columns[:10])
        return (
            f"has no column `prompt`, only {columns or 'columns without a name'}. "
            f"The first line with text is taken for the header, here {quoted(first.line)}; {advice}"
        )

    def row(self, record: Record, found: ProblemCollector) -> Row | None:
        """Return the row of this record, or None after adding its problem to `found`."""
        cells, location = record.cells, record.location
        problem = self._width_problem(cells)
        if problem is not None:
            found.add(location, f"{problem}: {quoted(record.line)}")
            return None
        lane = None if self.priority is None else trimmed(cells[self.priority]).lower() or None
        if lane is not None and lane not in LANES:
            found.add(f"{location}.priority", f"must be one of {', '.join(LANES)}, not {shortened(lane)}")
            return None
        special = {self.prompt, self.id, self.priority}
        prompt = None if self.prompt is None else cells[self.prompt]
        return Row(
            number=0,
            id=None if self.id is None else trimmed(cells[self.id]) or None,
            prompt=prompt,
            priority=lane,
            metadata={name: cells[index] for index, name in self.columns if index not in special},
            values={**dict.fromkeys(self.prompt_names, prompt), **{name: cells[index] for index, name in self.columns}},
        )

    def _width_problem(self, cells: list[str]) -> str | None:
        """Return why these fields do not fit the header; fields with nothing in them do."""
        width = len(self.names)
        if len(cells) == width == len(self.columns):
            return None
        if len(cells) <= self.columns[-1][0] or any(not _is_blank(cell) for cell in cells[width:]):
            hint = "; put a field that contains the delimiter in quotes" if len(cells) > width else ""
            return f"has {len(cells)} field{'' if len(cells) == 1 else 's'}, but the header has {width}{hint}"
        # Programs write the numbers of the rows into a first column without a name.
        for index in range(1, min(len(cells), width)):
            if not self.names[index] and not _is_blank(cells[index]):
                hint = "name the column, or put a field that contains the delimiter in quotes"
                return f"has {shortened(cells[index])} in column {index + 1}, which has no name in the header; {hint}"
        return None


def _is_blank(cell: str) -> bool:
    return not trimmed(cell)


def _index_of_first(keys: list[str], candidates: tuple[str, ...]) -> int | None:
    return next((keys.index(name) for name in candidates if name in keys), None)
