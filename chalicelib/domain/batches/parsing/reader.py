"""Read a batch row by row from CSV, plain text, JSON or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from chalicelib.domain.batches.options import MAX_ROWS, BatchOptions, merge_options, parse_options
from chalicelib.domain.batches.parsing.csv_rows import csv_rows
from chalicelib.domain.batches.parsing.json_rows import json_line_rows, json_rows, parse_json
from chalicelib.domain.batches.parsing.line_splitter import numbered_lines
from chalicelib.domain.batches.parsing.problems import PROMPT_NAMES, ParsedRow, ProblemCollector, TooManyProblems, UnreadableInput
from chalicelib.domain.batches.parsing.validation import RowValidator
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest, UnsupportedMediaType
from chalicelib.domain.template import names

CSV, TEXT, JSON, LINES = "text/csv", "text/plain", "application/json", "application/x-ndjson"
CONTENT_TYPES = {
    CSV: CSV,
    "application/csv": CSV,
    "text/tab-separated-values": CSV,
    TEXT: TEXT,
    JSON: JSON,
    LINES: LINES,
    "application/ndjson": LINES,
    "application/jsonl": LINES,
    "application/x-jsonlines": LINES,
    "application/jsonlines": LINES,
}


def read_batch(content_type: str, pieces: Iterable[bytes], given: Mapping[str, Any]) -> BatchReader:
    """Return a reader of the rows, to be iterated once.

    Args:
        content_type: The media type of the bytes.
        pieces: The bytes as they arrive.
        given: The options of the batch. A JSON body may have options too; both are combined.

    Raises:
        InvalidRequest: the options, or the fields of a JSON body, are invalid.
        UnsupportedMediaType: the content type is not supported.
        TooLarge: a JSON body has more than 4 MB.
    """
    input_format = content_format(content_type)
    if input_format == JSON:
        items, body_options = parse_json(pieces)
        return BatchReader(parse_options(merge_options(given, body_options)), lambda _, found: json_rows(items, found))
    options = parse_options(given)
    if input_format == LINES:
        return BatchReader(options, lambda _, found: json_line_rows(pieces, found))
    if input_format == TEXT:
        return BatchReader(options, lambda options, _: _text_rows(pieces, options))
    if content_type.startswith("text/tab-separated-values") and options.delimiter is None:
        options = replace(options, delimiter="\t")
    return BatchReader(options, lambda options, found: csv_rows(pieces, options, found))


def content_format(content_type: str) -> str:
    """Return the format that a Content-Type header names: one of the four media types above.

    Raises:
        UnsupportedMediaType: it names none of them.
        InvalidRequest: it names another encoding than UTF-8.
    """
    media_type, *parameters = [part.strip().lower() for part in content_type.split(";")]
    if media_type not in CONTENT_TYPES:
        raise UnsupportedMediaType(f"Send a batch as {', '.join((JSON, CSV, TEXT, LINES))}.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8", "us-ascii"):
            raise InvalidRequest(details=(Detail("Content-Type", "must have the charset UTF-8 or none: batches are read as UTF-8"),))
    return CONTENT_TYPES[media_type]


RowSource = Callable[[BatchOptions, ProblemCollector], Iterator[ParsedRow]]


class BatchReader:
    """Iterates over the rows of a batch in the order of the input, without reading ahead.

    After the first problem no more rows are yielded. The rest of the input is checked for further
    problems, and the iteration ends with `InvalidRequest`; the consumer must undo what it did with
    the rows so far. If the only problem is that rows depend on each other in a cycle, it ends with
    `DependencyCycle`.
    """

    def __init__(self, options: BatchOptions, rows: RowSource) -> None:
        self.options = options  # known before the first row is read
        self.count = 0  # rows yielded so far
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        found = ProblemCollector()
        with suppress(TooManyProblems):
            yield from self._valid_rows(found)
        if found:
            raise InvalidRequest("The batch has errors; `details` names each with its location.", details=tuple(found.details))
        if not self.count:
            raise InvalidRequest("The batch has no rows.", details=(Detail("items", "is empty: a batch has at least one row"),))

    def _valid_rows(self, found: ProblemCollector) -> Iterator[Row]:
        validator = RowValidator(self.options.prompt_template, found)
        try:
            for number, parsed in enumerate(self._rows(self.options, found)):
                if number >= MAX_ROWS:
                    raise UnreadableInput(parsed.location, f"exceeds the maximum of {MAX_ROWS:,} rows")
                row = validator.validate(parsed, number)
                if row is not None and not found:
                    self.count += 1
                    yield row
            validator.check_dependencies()
        except UnreadableInput as exc:
            found.extend([exc.detail])


def _text_rows(pieces: Iterable[bytes], options: BatchOptions) -> Iterator[ParsedRow]:
    """Yield one prompt a line. Empty lines are skipped."""
    for name in names(options.prompt_template or ""):
        if name not in PROMPT_NAMES:
            raise UnreadableInput("prompt_template", f"refers to {{{{{name[:80]}}}}}, but rows of plain text have only {{{{input}}}}")
    for number, line in numbered_lines(pieces):
        prompt = line.rstrip("\r\n")
        yield ParsedRow(f"line {number}", Row(number=0, prompt=prompt, values=dict.fromkeys(PROMPT_NAMES, prompt)))
