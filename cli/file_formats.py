"""Read files that people name: unpack what is packed by gzip, and refuse what is no text by its name."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path, PurePath

from cli.errors import UsageError

MAX_UNPACKED_BYTES = 50_000_000  # the API accepts no larger file
PACKED_SUFFIX = ".gz"
_PIECE = 1_048_576
_SAVE = "Save the table as CSV UTF-8, and submit that file."
_UTF8 = "Save it as UTF-8 (in Excel: CSV UTF-8), and submit it again."
_EXPORT = "Export the table as CSV or JSON lines in UTF-8, and submit that file."
_UNPACK = "Unpack it, and submit what is in it."
_RENAMED = "If it is CSV, name it so: .csv. If it is HTML, as some programs write for Excel, open it there, and save it as CSV UTF-8."
_TEXT_ONLY = "Batches are read from text: CSV, JSON, JSON lines or plain text."
# UTF-32 first, because its mark begins with that of UTF-16.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (codecs.BOM_UTF32_LE, "text in UTF-32", _UTF8),
    (codecs.BOM_UTF32_BE, "text in UTF-32", _UTF8),
    (codecs.BOM_UTF16_LE, "text in UTF-16", _UTF8),
    (codecs.BOM_UTF16_BE, "text in UTF-16", _UTF8),
    (b"\xd0\xcf\x11\xe0", "a file of an old office program (.xls, .doc)", _SAVE),
    (b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (b"\x1f\x8b", "packed by gzip", f"{_UNPACK} Files that end with {PACKED_SUFFIX} are unpacked."),
    (b"BZh91AY&SY", "packed by bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "packed by xz", _UNPACK),
    (b"(\xb5/\xfd", "packed by Zstandard", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!\x1a", "a RAR archive", _UNPACK),
    (b"%PDF-1.", "a PDF document", _TEXT_ONLY),
    (b"{\\rtf1\\", "a document in RTF", "Save it as text in UTF-8, and submit that file."),
    (b"PAR1\x15", "a Parquet file", _EXPORT),
    (b"ARROW1\x00", "an Arrow file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"SQLite format 3\x00", "a SQLite database", _EXPORT),
    (b"\x89PNG", "an image", _TEXT_ONLY),
    (b"\xff\xd8\xff", "an image", _TEXT_ONLY),
    (b"GIF87a", "an image", _TEXT_ONLY),
    (b"GIF89a", "an image", _TEXT_ONLY),
)
# Names that stand unpacked in the zip archives of office programs.
_IN_ZIP = {b"xl/workbook.": ".xlsx", b"opendocument.spreadsheet": ".ods", b"word/document.": ".docx"}
_OFFICE = {
    ".xls": ("an Excel workbook", _SAVE),
    ".xlsx": ("an Excel workbook", _SAVE),
    ".xlsm": ("an Excel workbook", _SAVE),
    ".ods": ("a spreadsheet of LibreOffice", _SAVE),
    ".numbers": ("a spreadsheet of Numbers", _SAVE),
    ".docx": ("a Word document", "Save it as text in UTF-8, and submit that file."),
}


def plain_name(path: PurePath) -> PurePath:
    """The path without the end that says that the file is packed."""
    return path.with_suffix("") if path.suffix.lower() == PACKED_SUFFIX else path


def read_bytes(file: Path) -> bytes:
    """The bytes of a file, unpacked if its name ends with `.gz`.

    Raises UsageError if it cannot be read, or holds no text.
    """
    try:
        data = _unpacked(file) if file.suffix.lower() == PACKED_SUFFIX else file.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{file} cannot be unpacked: {error}") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if format_and_advice := _no_text(plain_name(file), data):
        raise UsageError(f"{file} is {format_and_advice[0]}.", format_and_advice[1])
    return data


def _unpacked(file: Path) -> bytes:
    """The content of a packed file. It is unpacked piece by piece, because a small file may become a huge one."""
    data = bytearray()
    with gzip.open(file) as packed:
        while piece := packed.read(_PIECE):
            data += piece
            if len(data) > MAX_UNPACKED_BYTES:
                raise UsageError(f"{file} has more than {MAX_UNPACKED_BYTES // 1_000_000} MB when it is unpacked.")
    return bytes(data)


def format_of(data: bytes) -> str | None:
    """What holds these bytes, such as "a PDF document"; None if that is not known."""
    found = _no_text(PurePath(), data)
    return found[0] if found else None


def _no_text(name: PurePath, data: bytes) -> tuple[str, str] | None:
    """What a file is that holds no text, and what to do about it; None for text."""
    suffix = name.suffix.lower()
    if data.startswith(b"PK\x03\x04"):
        kind = suffix if suffix in _OFFICE else next((kind for mark, kind in _IN_ZIP.items() if mark in data), "")
        return _OFFICE.get(kind, ("a zip archive, or a file of an office program", f"{_UNPACK} {_SAVE}"))
    found = next(((known, advice) for mark, known, advice in _SIGNATURES if data.startswith(mark)), None)
    if found is None and suffix in _OFFICE:
        return f"no {_OFFICE[suffix][0].partition(' ')[2]}, though its name ends with {suffix}", _RENAMED
    return found
