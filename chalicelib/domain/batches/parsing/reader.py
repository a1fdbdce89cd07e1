"""Read a batch row by row from CSV, plain text, JSON or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from chalicelib.domain.batches.options import MAX_ROWS, BatchOptions, merge_options, parse_options
from chalicelib.domain.batches.parsing.csv_rows import csv_rows
from chalicelib.domain.batches.parsing.forms import FORM, Part, form_parts
from chalicelib.domain.batches.parsing.json_rows import JsonLines, json_rows, parse_json
from chalicelib.domain.batches.parsing.line_splitter import LineEnds, numbered_lines
from chalicelib.domain.batches.parsing.openai_lines import shared_config, with_shared_config
from chalicelib.domain.batches.parsing.problems import (
    PROMPT_NAMES,
    ParsedRow,
    ProblemCollector,
    TooManyProblems,
    UnreadableInput,
    location_in,
)
from chalicelib.domain.batches.parsing.signatures import refusal_through_gateway
from chalicelib.domain.batches.parsing.validation import RowValidator
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest, UnsupportedMediaType
from chalicelib.domain.template import match_names, names
from chalicelib.domain.text import visible
from chalicelib.domain.validation.schema_messages import shortened

MAX_FILE_NAME_SHOWN = 100  # characters

CSV, TEXT, JSON, LINES = "text/csv", "text/plain", "application/json", "application/x-ndjson"
TAB_SEPARATED = ("text/tab-separated-values", "text/tsv", "text/x-tsv")
CONTENT_TYPES = {
    CSV: CSV,
    "text/x-csv": CSV,
    "text/comma-separated-values": CSV,
    "text/x-comma-separated-values": CSV,
    "application/csv": CSV,
    "application/x-csv": CSV,
    "application/vnd.ms-excel": CSV,  # what Windows calls a .csv file where Excel is installed
    **dict.fromkeys(TAB_SEPARATED, CSV),
    TEXT: TEXT,
    JSON: JSON,
    "text/json": JSON,
    LINES: LINES,
    "application/ndjson": LINES,
    "application/jsonl": LINES,
    "application/x-jsonl": LINES,
    "application/json-lines": LINES,
    "application/x-jsonlines": LINES,
    "application/jsonlines": LINES,
    FORM: FORM,
}
FILE_TYPES = {  # by the end of the file's name
    "csv": CSV,
    "tsv": TAB_SEPARATED[0],
    "tab": TAB_SEPARATED[0],
    "txt": TEXT,
    "json": JSON,
    "jsonl": LINES,
    "ndjson": LINES,
}


def read_batch(content_type: str, pieces: Iterable[bytes], given: Mapping[str, Any]) -> BatchReader:
    """Return a reader of the rows, to be iterated once.

    Args:
        content_type: The media type of the bytes.
        pieces: The bytes as they arrive.
        given: The options of the batch. A JSON body may have options too, and the rows of OpenAI's
            batch files a config; all are combined.

    Raises:
        InvalidRequest: the options, or the fields of a JSON body, are invalid.
        UnsupportedMediaType: the content type is not supported.
        TooLarge: a JSON body has more than 4 MB.
    """
    input_format = content_format(content_type)
    if input_format == JSON:
        items, body_options = parse_json(pieces)
        shared = shared_config(items[0]) if items else {}
        options = parse_options(with_shared_config(merge_options(given, body_options), shared))
        return BatchReader(options, lambda _, found: json_rows(items, found, shared))
    if input_format == LINES:
        rows = JsonLines(pieces)
        shared = rows.shared_config()
        return BatchReader(parse_options(with_shared_config(given, shared)), lambda _, found: rows.rows(found, shared))
    options = parse_options(given)
    if input_format == FORM:
        return BatchReader(options, lambda options, found: form_rows(content_type, pieces, options, found))
    return BatchReader(options, lambda options, found: table_rows(content_type, pieces, options, found))


def table_rows(content_type: str, pieces: Iterable[bytes], options: BatchOptions, found: ProblemCollector) -> Iterator[ParsedRow]:
    """Yield the rows of one table of which the options are known."""
    input_format = content_format(content_type)
    if input_format == JSON:
        return json_rows(_items_only(pieces), found)
    if input_format == LINES:
        return JsonLines(pieces).rows(found)
    if input_format == TEXT:
        return _text_rows(pieces, options)
    return csv_rows(pieces, options, found, "\t" if media_type_of(content_type) in TAB_SEPARATED else None)


def form_rows(content_type: str, pieces: Iterable[bytes], options: BatchOptions, found: ProblemCollector) -> Iterator[ParsedRow]:
    """Yield the rows of all files of a form, in order. Places are named with the file: `jan.csv: line 17`.

    Raises:
        UnreadableInput: the form or a file cannot be read.
    """
    line_ends = LineEnds()
    for part in form_parts(content_type, pieces):
        if part.filename is None:
            continue  # a field: an option, which the caller has read
        name = visible(part.filename[:MAX_FILE_NAME_SHOWN]) or part.name
        try:
            for row in table_rows(file_type(part), line_ends.counted(part.pieces), options, found.of_file(name)):
                yield row._replace(location=location_in(name, row.location))
        except UnreadableInput as exc:
            raise UnreadableInput(location_in(name, exc.detail.path), exc.detail.message) from exc
        except InvalidRequest as exc:
            found.of_file(name).extend(exc.details)


def file_type(part: Part) -> str:
    """Return the content type of a file in a form, by what the client says or else by the name of the file.

    Raises:
        UnreadableInput: neither names a format that is read.
    """
    said, (_, _, extension) = part.content_type or "", (part.filename or "").lower().rpartition(".")
    if media_type_of(said) in CONTENT_TYPES and media_type_of(said) not in (TEXT, FORM):
        return said
    if extension in FILE_TYPES:
        return FILE_TYPES[extension]
    if media_type_of(said) == TEXT:
        return said
    refusal = refusal_through_gateway(next(part.pieces, b""))
    raise UnreadableInput("", refusal or f"has no type that is read: name it .{', .'.join(FILE_TYPES)}, or give its Content-Type")


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def content_format(content_type: str) -> str:
    """Return the format that a Content-Type header names: one of the four media types above, or `FORM`.

    Raises:
        UnsupportedMediaType: it names none of them.
        InvalidRequest: it names another encoding than UTF-8.
    """
    media_type, *parameters = [part.strip().lower() for part in content_type.split(";")]
    if media_type not in CONTENT_TYPES:
        raise UnsupportedMediaType(_not_read(media_type))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8", "utf-8-sig", "us-ascii"):
            raise InvalidRequest(details=(Detail("Content-Type", "must have the charset UTF-8 or none: batches are read as UTF-8"),))
    return CONTENT_TYPES[media_type]


def _not_read(media_type: str) -> str:
    """Return what is said about another content type: what is read, and how it is sent."""
    return (
        f"A batch cannot be read from {shortened(media_type)}. Send it as {CSV}, {TAB_SEPARATED[0]}, {TEXT} (a prompt a line), {JSON}, "
        f"{LINES} (JSON lines) or {FORM} (files), for example: "
        "curl --data-binary @prompts.csv -H 'Content-Type: text/csv'"
    )


def _items_only(pieces: Iterable[bytes]) -> Iterator[Any]:
    items, own_options = parse_json(pieces)
    if own_options:
        message = f"cannot be given in one of several files, only in the request: {', '.join(own_options)}"
        raise InvalidRequest(details=(Detail("options", message),))
    yield from items


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
        self.prompt_column: str | None = None  # the name of the column of CSV that is asked; known when a row is read
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        found = ProblemCollector()
        with suppress(TooManyProblems):
            yield from self._valid_rows(found)
        if found:
            raise InvalidRequest("The batch has errors; `details` names each with its location.", details=tuple(found.details))
        if not self.count:
            raise InvalidRequest(
                "The batch has no rows.", details=(found.emptiness or Detail("items", "is empty: a batch has at least one row"),)
            )

    def _valid_rows(self, found: ProblemCollector) -> Iterator[Row]:
        validator = RowValidator(self.options.prompt_template, found)
        try:
            for number, parsed in enumerate(self._rows(self.options, found)):
                if number >= MAX_ROWS:
                    raise UnreadableInput(parsed.location, f"exceeds the maximum of {MAX_ROWS:,} rows")
                self.prompt_column = parsed.column
                row = validator.validate(parsed, number)
                if row is not None and not found:
                    self.count += 1
                    yield row
            validator.check_dependencies()
        except UnreadableInput as exc:
            found.extend([exc.detail])


def _text_rows(pieces: Iterable[bytes], options: BatchOptions) -> Iterator[ParsedRow]:
    """Yield one prompt a line. Empty lines are skipped."""
    for name in names(match_names(options.prompt_template or "", PROMPT_NAMES)):
        if name not in PROMPT_NAMES:
            raise UnreadableInput("prompt_template", f"refers to {{{{{name[:80]}}}}}, but rows of plain text have only {{{{input}}}}")
    for number, line in numbered_lines(pieces):
        prompt = line.rstrip("\r\n")
        yield ParsedRow(f"line {number}", Row(number=0, prompt=prompt, values=dict.fromkeys(PROMPT_NAMES, prompt)))
