"""What a batch is made of, from the files that were named: one with rows is sent as it is, of others each is a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from cli.api import Api
from cli.errors import Misused
from cli.links import upload

LARGEST_BODY = 3_900_000  # bytes; the API takes 4 MB
LONGEST_QUERY = 4_000  # characters; API Gateway takes ten thousand bytes of address and headers
LOST = "\ufffd".encode()  # of a request, API Gateway makes this of what is no UTF-8: where it is meant, it goes by a link
LINES = "application/x-ndjson"
OF_ROWS = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".json": "application/json",
    ".jsonl": LINES,
    ".ndjson": LINES,
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Bytes with rows in them. `items` are the same, where they were made here and may go into a JSON body."""

    kind: str
    data: bytes
    items: tuple[Json, ...] = ()


def rows_of(paths: Sequence[Path], glob: str | None) -> Rows:
    """The rows of these files and folders. Raises Misused where there are none."""
    if len(paths) == 1 and paths[0].is_file() and paths[0].suffix.lower() in OF_ROWS:
        return Rows(OF_ROWS[paths[0].suffix.lower()], _bytes(paths[0]))
    items = tuple({"id": name, "content": _text(file)} for name, file in _files(paths, glob))
    if not items:
        raise Misused("There is no file to send.", "Name files, or a folder with --glob '*.sol'.")
    return Rows(LINES, b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items), items)


def send(api: Api, rows: Rows, terms: Json) -> Json:
    """Submit them: small ones in the request, others by a signed link before it."""
    query = {name: json.dumps(value) if isinstance(value, dict | list | bool) else value for name, value in terms.items()}
    long = not rows.items and sum(len(str(value)) for value in query.values()) > LONGEST_QUERY
    if len(rows.data) > LARGEST_BODY or long or LOST in rows.data:
        begun = api.post("/uploads", {"content_type": rows.kind, "size": len(rows.data)})
        upload(begun["url"], begun["headers"], rows.data)
        return api.post("/batches", {"upload_id": begun["upload_id"], **terms})
    if rows.items:
        return api.post("/batches", {"items": list(rows.items), **terms})
    return api.ask("POST", "/batches", query=query, content=rows.data, kind=rows.kind)


def _files(paths: Sequence[Path], glob: str | None) -> Iterator[tuple[str, Path]]:
    """Each file with its name: below the folder that was named, or as it was named itself."""
    for path in paths:
        if path.is_dir():
            found = (file for file in path.rglob(glob or "*") if file.is_file() and not _hidden(file.relative_to(path)))
            yield from ((file.relative_to(path).as_posix(), file) for file in sorted(found))
        else:
            yield (path.name if path.is_absolute() else path.as_posix()), path


def _hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as problem:
        raise Misused(f"{file} cannot be read: {problem}") from problem


def _text(file: Path) -> str:
    try:
        return _bytes(file).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise Misused(f"{file} is no text in UTF-8: {problem}", "Choose the files with --glob, as '*.sol'.") from problem
