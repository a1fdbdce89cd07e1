"""Files that are too large for a request: they go to object storage by a signed link, and are read from there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MAX_BYTES = 50_000_000
LINK_SECONDS = 900
DAYS = 2  # then storage forgets it
FOLDER = "u/"

_ID = re.compile(r"upload_[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A place for one file. `size` in bytes, None where it is not known beforehand: then nothing bounds it before it is read."""

    id: str
    tenant: str
    user: str
    content_type: str
    size: int | None = None


def is_upload_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def object_key(upload_id: str, tenant: str, user: str) -> str:
    """Where a file is. Whose it is stands in the name, so nobody else can as much as ask for it.

    Two digits of a hash come first, because S3 bounds requests by prefix; users are hashed, because their names may be anything.
    """
    whose = hashlib.sha256(user.encode()).hexdigest()[:32]
    return f"{FOLDER}{hashlib.sha256(upload_id.encode()).hexdigest()[:2]}/{tenant}/{whose}/{upload_id}"
