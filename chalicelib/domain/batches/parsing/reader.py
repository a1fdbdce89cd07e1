"""A batch as it was sent - CSV, plain text, JSON or JSON lines - read row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from chalicelib.domain.batches.options import MAX_ROWS, BatchOptions, merge_options, parse_options
from chalicelib.domain.batches.parsing.csv_rows import csv_rows
from chalicelib.domain.batches.parsing.json_rows import json_line_rows, json_rows, parsed
from chalicelib.domain.batches.parsing.line_splitter import lines
from chalicelib.domain.batches.parsing.problems import OF_THE_PROMPT, ParsedRow, ProblemCollector, TooManyProblems, UnreadableInput
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


def read_batch(content_type: str, pieces: Iterable[bytes], said: Mapping[str, Any]) -> BatchReader:
    """What was sent, to be iterated once. `said` are the terms beside it, as in a JSON body; a JSON body brings some with it.

    Raises:
        InvalidRequest: the terms, or the fields of a JSON body, cannot be used.
        UnsupportedMediaType: batches are not read from this.
        TooLarge: it is JSON of more than 16 MB.
    """
    kind = content_format(content_type)
    if kind == JSON:
        items, own = parsed(pieces)
        return BatchReader(parse_options(merge_options(said, own)), lambda _, flaws: json_rows(items, flaws))
    terms = parse_options(said)
    if kind == LINES:
        return BatchReader(terms, lambda _, flaws: json_line_rows(pieces, flaws))
    if kind == TEXT:
        return BatchReader(terms, lambda of, _: _text_rows(pieces, of))
    if content_type.startswith("text/tab-separated-values") and terms.delimiter is None:
        terms = replace(terms, delimiter="\t")
    return BatchReader(terms, lambda of, flaws: csv_rows(pieces, of, flaws))


def content_format(content_type: str) -> str:
    """Which of the four a Content-Type says.

    Raises:
        UnsupportedMediaType: none of them.
        InvalidRequest: it names another encoding than UTF-8.
    """
    essence, *parameters = [part.strip().lower() for part in content_type.split(";")]
    if essence not in CONTENT_TYPES:
        raise UnsupportedMediaType(f"Batches are read from {', '.join((JSON, CSV, TEXT, LINES))}.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8", "us-ascii"):
            raise InvalidRequest(details=(Detail("Content-Type", "must say UTF-8, or nothing: that is how batches are read"),))
    return CONTENT_TYPES[essence]


Rows = Callable[[BatchOptions, ProblemCollector], Iterator[ParsedRow]]


class BatchReader:
    """The rows of a batch, in the order of the input, as many of them as are asked for: nothing is read ahead.

    Once something is wrong with it, no more rows come, what else is wrong is looked for, and the iteration ends with InvalidRequest: who
    has done something with the rows so far has to undo it. Where all is right but for rows that wait for each other, it ends with
    DependencyCycle. `count` says how many have come; `terms` are known from the beginning.
    """

    def __init__(self, terms: BatchOptions, rows: Rows) -> None:
        self.terms, self.count = terms, 0
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        flaws = ProblemCollector()
        with suppress(TooManyProblems):
            yield from self._until_the_end(flaws)
        if flaws:
            raise InvalidRequest("The batch cannot be used as it is; `details` says where and why.", details=tuple(flaws.details))
        if not self.count:
            raise InvalidRequest("The batch has no rows.", details=(Detail("items", "is empty: a batch has at least one row"),))

    def _until_the_end(self, flaws: ProblemCollector) -> Iterator[Row]:
        check = RowValidator(self.terms.prompt_template, flaws)
        try:
            for number, found in enumerate(self._rows(self.terms, flaws)):
                if number >= MAX_ROWS:
                    raise UnreadableInput(found.location, f"is one too many: a batch has at most {MAX_ROWS:,} rows")
                row = check.validate(found, number)
                if row is not None and not flaws:
                    self.count += 1
                    yield row
            check.check_dependencies()
        except UnreadableInput as wrong:
            flaws.extend([wrong.detail])


def _text_rows(pieces: Iterable[bytes], terms: BatchOptions) -> Iterator[ParsedRow]:
    """A prompt a line; lines with nothing in them are left out."""
    for name in names(terms.prompt_template or ""):
        if name not in OF_THE_PROMPT:
            raise UnreadableInput("prompt_template", f"asks for {{{{{name[:80]}}}}}, but a line of text is only {{{{input}}}}")
    for number, line in enumerate(lines(pieces), start=1):
        if line.strip():
            prompt = line.rstrip("\r\n")
            yield ParsedRow(f"line {number}", Row(number=0, prompt=prompt, values=dict.fromkeys(OF_THE_PROMPT, prompt)))
