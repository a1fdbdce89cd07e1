"""Detect whether the deployed code is that of the checkout."""

from __future__ import annotations

import hashlib
from pathlib import Path

from infra.chalice_config import ROOT

FOLDERS = ("chalicelib", "infra")
FILES = ("app.py", "requirements.txt")


def fingerprint(root: Path = ROOT) -> str:
    """A hash over all files that a deployment depends on."""
    digest = hashlib.sha256()
    for path in sorted(sources(root)):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def sources(root: Path) -> list[Path]:
    """The files that a deployment depends on."""
    nested = [path for folder in FOLDERS for path in (root / folder).rglob("*")]
    return [path for path in [*(root / name for name in FILES), *nested] if path.is_file() and path.suffix != ".pyc"]
