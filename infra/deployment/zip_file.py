"""Write the zips of the app and of the layer."""

from __future__ import annotations

import zipfile
from pathlib import Path

ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def write_zip(files: dict[str, bytes], target: Path) -> None:
    """Write a zip atomically. The same content gives the same bytes."""
    unfinished = target.with_suffix(".tmp")
    with zipfile.ZipFile(unfinished, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    unfinished.replace(target)
