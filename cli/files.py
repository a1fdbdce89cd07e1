"""Write the files that a command creates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cli.checks.text_input import reason, shown
from cli.errors import UsageError


def write_file(file: Path, chunks: Iterable[bytes]) -> int:
    """Write a temporary file, then rename it: a failed download leaves an existing file alone.

    What is no ordinary file, such as /dev/null, is written to directly. Returns the number of bytes.
    Raises UsageError.
    """
    size = 0
    try:
        if file.is_dir() or not file.name:
            raise UsageError(f"{shown(str(file))} is a folder: name a file.")
        special = file.exists() and not file.is_file()
        unfinished = file if special else file.with_name(f"{file.name}.part")
        try:
            with unfinished.open("wb") as target:
                for chunk in chunks:
                    size += target.write(chunk)
            if not special:
                unfinished.replace(file)
        finally:
            if not special:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{shown(str(file))} cannot be written: {reason(error)}.") from error
    return size
