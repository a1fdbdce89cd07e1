"""Uploads: files too large for a request, put into object storage with a signed link."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MAX_BYTES = 50_000_000
BYTES_PER_REQUEST = 262_144  # an upload counts as one request for each, when it is signed and when it is read
LINK_SECONDS = 900  # how long the link is valid
DAYS = 2  # after which a lifecycle rule of the bucket removes the file
FOLDER = "u/"

_ID = re.compile(r"upload_[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A place for one file."""

    id: str
    tenant: str
    user: str
    content_type: str
    size: int  # bytes; the link takes exactly so many


def is_upload_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def object_key(upload_id: str, tenant: str, user: str) -> str:
    """Return the key of the file.

    It contains tenant and user, so a request of another user looks up another object.

    It begins with two digits of a hash, because S3 limits the request rate per prefix. The user is
    hashed, because user names may contain any character.
    """
    user_hash = hashlib.sha256(user.encode()).hexdigest()[:32]
    return f"{FOLDER}{hashlib.sha256(upload_id.encode()).hexdigest()[:2]}/{tenant}/{user_hash}/{upload_id}"
