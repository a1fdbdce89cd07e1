"""Gzip texts for storage: in the item while small, in object storage above `INLINE_BYTES`.

DynamoDB charges one unit for each KB written, S3 about eight units for a put of any size. So above
16 KB S3 is cheaper by far, and no text comes near the 400 KB that an item may have.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

INLINE_BYTES = 16 * 1024
GZIP = 31  # zlib's window bits for a gzip header, which browsers and `curl --compressed` can read from a link


def pack(text: str) -> bytes:
    return zlib.compress(text.encode(), 6, GZIP)


def unpack(data: bytes) -> str:
    return zlib.decompress(data, GZIP).decode()


def pack_json(value: Any) -> bytes:
    return pack(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def unpack_json(data: bytes) -> Any:
    return json.loads(unpack(data))
