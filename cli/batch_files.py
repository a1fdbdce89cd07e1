"""Turn files of the command line into the input of a batch and submit it.

Files that hold rows (CSV, JSON lines, ...) are sent unchanged, several of them as one form.
Otherwise each file becomes one row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from cli import output
from cli.api import Api
from cli.checks.text_input import decode, problem_of_text, shown
from cli.errors import UsageError
from cli.file_formats import plain_name, read_bytes
from cli.links import upload

MAX_BODY_BYTES = 3_900_000  # the API accepts 4 MB
MAX_QUERY_CHARS = 4_000  # API Gateway accepts ten thousand bytes of URL and headers
# API Gateway replaces bytes that are not UTF-8 by U+FFFD, so the API refuses it in a request body.
# Text that means it is uploaded.
REPLACEMENT_CHARACTER = "\ufffd".encode()
BYTE_ORDER_MARK = "\ufeff"
JSON, NDJSON = "application/json", "application/x-ndjson"
TABLE_TYPES = {  # of files that are nothing but rows
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".tab": "text/tab-separated-values",
    ".jsonl": NDJSON,
    ".ndjson": NDJSON,
}
ROW_FILE_TYPES = {**TABLE_TYPES, ".txt": "text/plain", ".json": JSON}
ROWS_OR_PROMPTS = "Say which: --as rows takes the rows of all files, --as prompts takes each file as one prompt."
AsWhat = Literal["rows", "prompts"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchInput:
    """The rows of a batch as bytes.

    `items` are the same rows for a JSON body; empty if `data` is a file that was read.
    """

    content_type: str
    data: bytes
    items: tuple[Json, ...] = ()


def read_batch_input(paths: Sequence[Path], glob: str | None, as_what: AsWhat | None = None) -> BatchInput:
    """Read the rows from these files and folders.

    Args:
        glob: which files of a folder.
        as_what: what each file is; None: tables are rows, other files are prompts.

    Raises UsageError if there are none, or it is not clear what they are.
    """
    files = list(_files(paths, glob))
    if not files:
        raise UsageError("There is no file to send.", "Name files, or a folder with --glob '*.sol'.")
    is_one_file = len(paths) == 1 and paths[0].is_file()
    if (as_what or _meant(files, is_one_file)) == "rows":
        return _rows_of(files, is_one_file)
    if len(files) > 1 or not is_one_file:
        output.note(f"{len(files)} {'file is' if len(files) == 1 else 'files are'} sent, each as one prompt.")
    items = tuple({"id": name, "content": _read_text(file)} for name, file in files)
    return BatchInput(NDJSON, b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items), items)


def _meant(files: Sequence[tuple[str, Path]], is_one_file: bool) -> AsWhat:
    """What the files are by their names. Raises UsageError if some are tables and some are not."""
    if is_one_file:
        return "rows" if _suffix(files[0][1]) in ROW_FILE_TYPES else "prompts"
    tables = [name for name, file in files if _suffix(file) in TABLE_TYPES]
    others = [name for name, file in files if _suffix(file) not in TABLE_TYPES]
    if tables and others:
        raise UsageError(f"{tables[0]} is a table of rows, and {others[0]} is not.", f"{ROWS_OR_PROMPTS} Or choose with --glob.")
    return "rows" if tables else "prompts"


def _rows_of(files: Sequence[tuple[str, Path]], is_one_file: bool) -> BatchInput:
    """The rows of one table, or of several as a form, in which each has its name."""
    for name, file in files:
        if _suffix(file) not in ROW_FILE_TYPES:
            raise UsageError(f"{name} has no rows that can be read.", f"Name files that end with {', '.join(ROW_FILE_TYPES)}.")
    contents = [(name, ROW_FILE_TYPES[_suffix(file)], read_bytes(file)) for name, file in files]
    if is_one_file:
        return BatchInput(contents[0][1], contents[0][2])
    output.note(f"The rows of {len(files)} {'file' if len(files) == 1 else 'files'} are sent as one batch.")
    boundary = _boundary(contents)
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: %s\r\n\r\n%s\r\n'
        % (boundary, _in_quotes(name), content_type.encode(), data)
        for name, content_type, data in contents
    ]
    return BatchInput(f"multipart/form-data; boundary={boundary.decode()}", b"".join(parts) + b"--%s--\r\n" % boundary)


def _boundary(contents: Sequence[tuple[str, str, bytes]]) -> bytes:
    """A line that none of the files has. The same files have the same one, so a repeated request is the same."""
    digest = hashlib.sha256(b"".join(data for _, _, data in contents))
    while any(digest.hexdigest().encode() in data for _, _, data in contents):
        digest.update(b"again")
    return digest.hexdigest().encode()


def _in_quotes(name: str) -> bytes:
    """The name of a file in a header of a form, as browsers write it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode("utf-8", "replace")


def _suffix(file: Path) -> str:
    return plain_name(file).suffix.lower()


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
        content = json.loads(batch_input.data, object_pairs_hook=_object)
        own = {} if isinstance(content, list) else {name: value for name, value in content.items() if name != "items"}
        items = content if isinstance(content, list) else content["items"]
        lines = b"".join(json.dumps(item, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for item in items)
    except (ValueError, AttributeError, KeyError, TypeError) as exc:
        raise UsageError("The file is not a JSON batch.", 'It must be a list of rows, or {"items": [...]}.') from exc
    return BatchInput(NDJSON, lines), {**own, **options}


def _object(pairs: list[tuple[str, Any]]) -> Json:
    """An object of a JSON file. Raises UsageError if it has two fields of one name: one would be lost without a word."""
    built = dict(pairs)
    if len(built) != len(pairs):
        name = next(name for number, (name, _) in enumerate(pairs) if any(name == other for other, _ in pairs[:number]))
        raise UsageError(f"The file has the field {json.dumps(name)} twice in one object.")
    return built


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


def _read_text(file: Path) -> str:
    data = read_bytes(file)
    try:
        return decode(data, shown(str(file)))
    except UsageError as error:
        raise UsageError(error.message, f"{error.hint}\nOr choose other files with --glob, for example '*.sol'.") from error
