"""Read text from outside: stdin, files, arguments. Text is UTF-8; anything else is refused in one sentence."""

from __future__ import annotations

import codecs
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from cli.errors import UsageError
from cli.file_formats import format_of

MAX_INPUT_BYTES = 64_000_000  # far more than the API takes; `yes | headrace submit` would never end otherwise
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_stdin() -> str:
    """All of stdin. Raises UsageError if it cannot be read or is not UTF-8."""
    return decode(_read(sys.stdin.buffer, "stdin"), "stdin")


def read_stdin_line() -> str:
    """The first line of stdin, without its end."""
    try:
        line = sys.stdin.buffer.readline(MAX_INPUT_BYTES)
    except OSError as error:
        raise UsageError(f"stdin cannot be read: {reason(error)}.") from error
    return decode(line, "stdin").rstrip("\r\n")


def read_file(file: Path) -> str:
    """The text of a file. Raises UsageError if it cannot be read or is not UTF-8."""
    try:
        with file.open("rb") as content:
            return decode(_read(content, shown(str(file))), shown(str(file)))
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(str(file))} cannot be read: {reason(error)}.") from error


def decode(data: bytes, source: str) -> str:
    """UTF-8 as text, without a byte order mark.

    Raises UsageError for anything else, with what it is, as far as that can be seen.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(data, source, f"byte 0x{data[error.start]:02x} at position {error.start + 1}") from error
    if "\0" in text:  # UTF-16 without a mark, and archives such as tar, are UTF-8 as far as bytes go
        raise _no_text(data, source, f"a NUL byte at position {data.index(0) + 1}")
    return text


def read_json(text: str, source: str) -> Any:
    """Parse JSON. NaN and the infinities, which Python reads, are not JSON. Raises UsageError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UsageError(f"{source} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except RecursionError as error:
        raise UsageError(f"{source} is nested too deeply.") from error
    except ValueError as error:  # of `_refuse_constant`, or a number that is longer than Python reads
        problem = str(error) if isinstance(error, NotJson) else "it has a number with too many digits"
        raise UsageError(f"{source} is not JSON: {problem}.") from error


class NotJson(ValueError):
    """A constant that JSON does not have."""


def shown(text: str) -> str:
    """A name as it can be shown: bytes that are not UTF-8 are written as \\xe9."""
    return os.fsencode(text).decode("utf-8", "backslashreplace") if any("\udc80" <= c <= "\udcff" for c in text) else text


def problem_of_text(text: str) -> str | None:
    """Why this text cannot be sent; None if it can."""
    for position, character in enumerate(text, 1):
        if "\udc80" <= character <= "\udcff":
            return f"is not text in UTF-8: byte 0x{ord(character) - 0xDC00:02x} at position {position}"
        if "\ud800" <= character <= "\udfff":
            return f"is not text: character {position} is one half of a surrogate pair"
    return None


def reason(error: BaseException) -> str:
    """The words of an error of the system, without its number and file name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _no_text(data: bytes, source: str, fault: str) -> UsageError:
    """The sentence for bytes that are no text. It proposes to convert only what may be text in another encoding."""
    if data[:2] in _UTF_16:
        return UsageError(f"{source} is not text in UTF-8: it looks like UTF-16.", "Convert it: iconv -f utf-16 -t utf-8")
    if known := format_of(data):
        return UsageError(f"{source} is not text in UTF-8: it is {known}.", "Give the text that is in it.")
    if 0 in data:
        return UsageError(f"{source} is not text in UTF-8: {fault}.", "It may be UTF-16, or no text at all.")
    return UsageError(f"{source} is not text in UTF-8: {fault}.", "Convert it, for example with: iconv -f latin1 -t utf-8")


def _read(content: BinaryIO, source: str) -> bytes:
    try:
        data = content.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {reason(error)}.") from error
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"{source} is larger than {MAX_INPUT_BYTES // 1_000_000} MB.")
    return data


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"{name} is no number of JSON")
