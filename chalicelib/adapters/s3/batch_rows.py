"""Rows of batches in object storage: `batches/<hash>/<tenant>/<batch>/<part-n | options | export>`.

The bucket's lifecycle deletes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.adapters.compression import pack, pack_json, unpack, unpack_json
from chalicelib.adapters.decoding import decode
from chalicelib.adapters.s3.blobs import Blobs
from chalicelib.domain.batches.row import Row
from chalicelib.domain.files.object_retention import BATCHES_FOLDER

JSON_LINES, JSON = "application/x-ndjson", "application/json"
LINK_SECONDS = 300


class S3BatchRows:
    """Calls: 1 for each part of 250 rows, for the options and for an export."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def put_part(self, tenant: str, batch_id: str, part: int, rows: Sequence[Row]) -> None:
        lines = "\n".join(json.dumps(row.to_dict(), ensure_ascii=False, separators=(",", ":")) for row in rows)
        self._blobs.put(_key(tenant, batch_id, f"part-{part:04}"), pack(lines), JSON_LINES)

    def get_part(self, tenant: str, batch_id: str, part: int) -> list[Row] | None:
        data = self._blobs.get(_key(tenant, batch_id, f"part-{part:04}"))
        if data is None:
            return None
        return decode(f"{batch_id}/part-{part:04}", lambda: [Row.from_dict(json.loads(line)) for line in unpack(data).split("\n")])

    def put_options(self, tenant: str, batch_id: str, options: Mapping[str, Any]) -> None:
        self._blobs.put(_key(tenant, batch_id, "options"), pack_json(dict(options)), JSON)

    def get_options(self, tenant: str, batch_id: str) -> dict[str, Any] | None:
        data = self._blobs.get(_key(tenant, batch_id, "options"))
        return decode(f"{batch_id}/options", lambda: dict(unpack_json(data))) if data is not None else None

    def put_export(self, tenant: str, batch_id: str, name: str, text: str, content_type: str) -> str:
        key = _key(tenant, batch_id, name)
        self._blobs.put(key, pack(text), content_type)
        return self._blobs.presign(key, LINK_SECONDS)


def _key(tenant: str, batch_id: str, name: str) -> str:
    """Start with two digits of a hash, because S3 limits the request rate of a prefix."""
    return f"{BATCHES_FOLDER}{hashlib.sha256(batch_id.encode()).hexdigest()[:2]}/{tenant}/{batch_id}/{name}"
