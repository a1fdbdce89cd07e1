"""Name the format of a file that holds no text, by its first bytes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

_ZIP = "a zip archive or a file of an office program (.xlsx, .docx, .ods, .numbers)"
_PACKED = "unpack it and send the file that is in it"
_SAVE = "save the table as CSV UTF-8, and send that file"
_EXPORT = "export the table as CSV or JSON lines in UTF-8, and send that file"
_TEXT_ONLY = "batches are read from text: CSV, JSON, JSON lines or plain text"
# UTF-32 first, because its little-endian mark begins with that of UTF-16.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (codecs.BOM_UTF32_LE, "text in UTF-32", "save it as UTF-8 and send it again"),
    (codecs.BOM_UTF32_BE, "text in UTF-32", "save it as UTF-8 and send it again"),
    (codecs.BOM_UTF16_LE, "text in UTF-16", "save it as UTF-8 (in Excel: CSV UTF-8) and send it again"),
    (codecs.BOM_UTF16_BE, "text in UTF-16", "save it as UTF-8 (in Excel: CSV UTF-8) and send it again"),
    (b"PK\x03\x04", _ZIP, f"{_SAVE}, or unpack the archive"),
    (b"PK\x05\x06", "an empty zip archive", _PACKED),
    (b"\xd0\xcf\x11\xe0", "a file of an old office program (.xls, .doc)", _SAVE),
    (b"\x1f\x8b", "packed by gzip", _PACKED),
    (b"BZh91AY&SY", "packed by bzip2", _PACKED),
    (b"\xfd7zXZ\x00", "packed by xz", _PACKED),
    (b"(\xb5/\xfd", "packed by Zstandard", _PACKED),
    (b"7z\xbc\xaf", "a 7z archive", _PACKED),
    (b"Rar!\x1a", "a RAR archive", _PACKED),
    (b"%PDF-1.", "a PDF document", _TEXT_ONLY),
    (b"{\\rtf1\\", "a document in RTF", _SAVE),
    (b"PAR1\x15", "a Parquet file", _EXPORT),
    (b"ARROW1\x00", "an Arrow file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"SQLite format 3\x00", "a SQLite database", _EXPORT),
    (b"\x89PNG", "a PNG image", _TEXT_ONLY),
    (b"\xff\xd8\xff", "a JPEG image", _TEXT_ONLY),
    (b"GIF87a", "a GIF image", _TEXT_ONLY),
    (b"GIF89a", "a GIF image", _TEXT_ONLY),
)


def _through_gateway(data: bytes) -> bytes:
    """Return what API Gateway makes of bytes that are not UTF-8: each one becomes U+FFFD."""
    return data.decode("utf-8", "replace").encode()


_REPLACED = tuple((_through_gateway(mark), name, advice) for mark, name, advice in _SIGNATURES if not mark.isascii())
_REPLACED_UTF16 = _through_gateway(codecs.BOM_UTF16_LE)


def is_undecided(head: bytes) -> bool:
    """Whether more bytes are needed to tell what this is the beginning of."""
    return any(len(head) < len(mark) and mark.startswith(head) for mark, _, _ in _SIGNATURES)


def refusal_of(head: bytes) -> str | None:
    """Return why a file that begins with these bytes cannot be read, and what to do; None for text.

    The message continues a sentence about the file.
    """
    return _named(head, _SIGNATURES)


def refusal_through_gateway(head: bytes) -> str | None:
    """Return the same as `refusal_of` for the beginning of a request body, as API Gateway passes it."""
    if not head.startswith(_REPLACED_UTF16):
        return _named(head, (*_SIGNATURES, *_REPLACED))
    if b"\0" in head:  # beside each ASCII character
        return "is text in UTF-16 or UTF-32: save it as UTF-8 (in Excel: CSV UTF-8) and send it again"
    return _named(head, [signature for signature in _REPLACED if len(signature[0]) > len(_REPLACED_UTF16)])


def _named(head: bytes, signatures: Iterable[tuple[bytes, str, str]]) -> str | None:
    return next((f"is {name}: {advice}" for mark, name, advice in signatures if head.startswith(mark)), None)
