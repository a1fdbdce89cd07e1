"""Job specs, in the table `job_data`: the item `spec` of a job.

It holds the spec, or the key of an object with it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pynamodb.attributes import BinaryAttribute, UnicodeAttribute

from chalicelib.adapters.compression import INLINE_BYTES, pack_json, unpack_json
from chalicelib.adapters.decoding import checked, decode
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.adapters.s3.blobs import Blobs, key_of
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.spec import JobSpec

SPEC = "spec"


class JobSpecItem(Item):
    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    data = BinaryAttribute(legacy_encoding=False, null=True)
    s3 = UnicodeAttribute(null=True)
    version = IntAttribute(null=True, attr_name="v")  # of the job record to which it belongs
    ttl = IntAttribute()


class DynamoJobSpecs:
    """Units: 1 for each KB after compression, up to 16; then one put of S3 and 1."""

    def __init__(self, stage: str, blobs: Blobs) -> None:
        self._items = bound(JobSpecItem, stage, "job_data")
        self._blobs = blobs

    def put(self, job_id: str, tenant: str, spec: JobSpec, ttl: int) -> None:
        """Write the object before the item, so that no item names an absent object."""
        data = pack_json(spec.to_dict())
        if len(data) <= INLINE_BYTES:
            dynamodb.put(self._items(job_id, SPEC, data=data, ttl=ttl))
            return
        key = key_of(tenant, job_id, SPEC)
        self._blobs.put(key, data, "application/json")
        dynamodb.put(self._items(job_id, SPEC, s3=key, ttl=ttl))

    def extend_ttl(self, job_id: str, ttl: int) -> bool:
        """Write an object again: the bucket removes it by its age."""
        item = dynamodb.get(self._items, job_id, SPEC)
        data = self._blobs.get(item.s3) if item is not None and item.s3 and item.ttl < ttl else None
        if item is not None and data is not None:
            self._blobs.put(item.s3, data, "application/json")
        try:
            dynamodb.update(self._items(job_id, SPEC), [self._items.ttl.set(ttl)], self._items.ttl < ttl)
        except ConditionFailed as failed:  # there is no spec, or it is kept longer
            return failed.item is not None
        return True

    def replace(self, job_id: str, tenant: str, spec: JobSpec, version: int) -> None:
        """Write an object under a new name: until the item is changed it names the old object."""
        stored = self._stored(job_id)
        kept = decode(f"{job_id}/{SPEC}", lambda: unpack_json(stored)) if stored is not None else {}
        data, items = pack_json(_with_unknown(kept, spec.to_dict())), self._items
        key = key_of(tenant, job_id, f"{SPEC}-{version}-{hashlib.sha256(data).hexdigest()[:8]}")
        if len(data) <= INLINE_BYTES:
            content = [items.data.set(data), items.s3.remove()]
        else:
            self._blobs.put(key, data, "application/json")
            content = [items.s3.set(key), items.data.remove()]
        older = items.version.does_not_exist() | (items.version < version)
        try:
            dynamodb.update(items(job_id, SPEC), [*content, items.version.set(version)], items.id.exists() & older)
        except ConditionFailed as failed:  # there is no spec, a later version is stored, or this write was made before
            there = items.from_raw_data(failed.item) if failed.item else None
            if there is not None and there.version == version and data != there.data and key != there.s3:
                raise StaleVersion(None) from failed

    def get(self, job_id: str) -> JobSpec | None:
        data = self._stored(job_id)
        return decode(f"{job_id}/{SPEC}", lambda: _spec_of(unpack_json(data))) if data is not None else None

    def _stored(self, job_id: str) -> bytes | None:
        """Return the packed spec; None if it is no longer kept."""
        item = dynamodb.get(self._items, job_id, SPEC)
        content = _content_of(item) if item is not None else None
        return self._blobs.get(content) if isinstance(content, str) else content


def _spec_of(stored: dict[str, Any]) -> JobSpec:
    spec = checked(JobSpec.from_dict(stored))
    checked(spec.config)
    return spec


@decoded
def _content_of(item: JobSpecItem) -> bytes | str:
    """Return the packed spec, or the key of the object that holds it."""
    content: bytes | str | None = item.data if item.s3 is None else item.s3
    if content is None:  # a claim would take it for expired, and fail the job
        raise KeyError("data")
    return content


def _with_unknown(stored: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec with the fields that only a newer version of the code knows as they are stored."""
    config = {**stored.get("config", {}), **spec["config"]}
    return {**stored, **spec, "config": config}
