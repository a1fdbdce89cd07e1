"""Turn files of the command line into the input of a batch and submit it.

One file that holds rows (CSV, JSON, ...) is sent unchanged. Otherwise each file becomes one row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from cli.api import Api
from cli.checks.text_input import problem_of_text, reason, shown
from cli.errors import UsageError
from cli.links import upload

MAX_BODY_BYTES = 3_900_000  # the API accepts 4 MB
MAX_QUERY_CHARS = 4_000  # API Gateway accepts ten thousand bytes of URL and headers
# API Gateway replaces bytes that are not UTF-8 by U+FFFD, so the API refuses it in a request body.
# Text that means it is uploaded.
REPLACEMENT_CHARACTER = "\ufffd".encode()
JSON, NDJSON = "application/json", "application/x-ndjson"
ROW_FILE_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".json": JSON,
    ".jsonl": NDJSON,
    ".ndjson": NDJSON,
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchInput:
    """The rows of a batch as bytes.

    `items` are the same rows for a JSON body; empty if `data` is a file that was read.
    """

    content_type: str
    data: bytes
    items: tuple[Json, ...] = ()


def read_batch_input(paths: Sequence[Path], glob: str | None) -> BatchInput:
    """Read the rows from these files and folders. Raises UsageError if there are none."""
    if len(paths) == 1 and paths[0].is_file() and paths[0].suffix.lower() in ROW_FILE_TYPES:
        return BatchInput(ROW_FILE_TYPES[paths[0].suffix.lower()], _read_bytes(paths[0]))
    items = tuple({"id": name, "content": _read_text(file)} for name, file in _files(paths, glob))
    if not items:
        raise UsageError("There is no file to send.", "Name files, or a folder with --glob '*.sol'.")
    return BatchInput(NDJSON, b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items), items)


def submit_batch(api: Api, batch_input: BatchInput, options: Json) -> Json:
    """Submit the rows with options of POST /batches: in the request if they fit, else by upload."""
    query = {name: json.dumps(value) if isinstance(value, dict | list | bool) else value for name, value in options.items()}
    query_too_long = not batch_input.items and sum(len(str(value)) for value in query.values()) > MAX_QUERY_CHARS
    if len(batch_input.data) > MAX_BODY_BYTES or query_too_long or REPLACEMENT_CHARACTER in batch_input.data:
        if batch_input.content_type == JSON and len(batch_input.data) > MAX_BODY_BYTES:
            batch_input, options = _as_lines(batch_input, options)
        link = api.post("/uploads", {"content_type": batch_input.content_type, "size": len(batch_input.data)})
        upload(link["url"], link["headers"], batch_input.data)
        return api.post("/batches", {"upload_id": link["upload_id"], **options})
    if batch_input.items:
        return api.post("/batches", {"items": list(batch_input.items), **options})
    return api.request_json("POST", "/batches", query=query, content=batch_input.data, content_type=batch_input.content_type)


def _as_lines(batch_input: BatchInput, options: Json) -> tuple[BatchInput, Json]:
    """Return a JSON file as JSON lines, because Headrace reads large ones line by line, and its options."""
    try:
        content = json.loads(batch_input.data)
        own = {} if isinstance(content, list) else {name: value for name, value in content.items() if name != "items"}
        items = content if isinstance(content, list) else content["items"]
        lines = b"".join(json.dumps(item, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for item in items)
    except (ValueError, AttributeError, KeyError, TypeError) as exc:
        raise UsageError("The file is not a JSON batch.", 'It must be a list of rows, or {"items": [...]}.') from exc
    return BatchInput(NDJSON, lines), {**own, **options}


def _files(paths: Sequence[Path], glob: str | None) -> Iterator[tuple[str, Path]]:
    """Yield each file with its row id: its path below the named folder, or its path as named."""
    for path in paths:
        if path.is_dir():
            found = (file for file in path.rglob(glob or "*") if file.is_file() and not _is_hidden(file.relative_to(path)))
            yield from ((_name(file.relative_to(path).as_posix()), file) for file in sorted(found))
        else:
            yield _name(path.name if path.is_absolute() else path.as_posix()), path


def _name(name: str) -> str:
    """The name of a file as the id of its row. Raises UsageError for one that is not UTF-8, which JSON cannot carry."""
    if problem := problem_of_text(name):
        raise UsageError(f"The name of the file {shown(name)} {problem}.", "Rename it, or choose the files with --glob.")
    return name


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown(str(file))} cannot be read: {reason(error)}.") from error


def _read_text(file: Path) -> str:
    try:
        return _read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{shown(str(file))} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
        raise UsageError(f"{where}.", "Choose the files with --glob, for example '*.sol'.") from error
