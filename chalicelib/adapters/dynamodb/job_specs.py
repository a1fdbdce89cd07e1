"""What jobs are asked to do: the item `spec` of a job's page, or an object that it names."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from pynamodb.attributes import BinaryAttribute, UnicodeAttribute

from chalicelib.adapters.compression import INLINE_BYTES, pack_json, unpack_json
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound
from chalicelib.adapters.s3.blobs import Blobs, key_of
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.spec import JobSpec

SPEC = "spec"


class JobSpecItem(Item):
    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    data = BinaryAttribute(legacy_encoding=False, null=True)
    s3 = UnicodeAttribute(null=True)
    version = IntAttribute(null=True, attr_name="v")  # of the head that changed it last
    ttl = IntAttribute()


class DynamoJobSpecs:
    """Units: 1 for each KB after compression, up to 16; then one put of S3 and 1."""

    def __init__(self, stage: str, blobs: Blobs) -> None:
        self._items = bound(JobSpecItem, stage, "job_data")
        self._blobs = blobs

    def put(self, job_id: str, tenant: str, body: JobSpec, ttl: int) -> None:
        """The object before the item: an item never names what is not there."""
        data = pack_json(body.to_dict())
        if len(data) <= INLINE_BYTES:
            dynamodb.put(self._items(job_id, SPEC, data=data, ttl=ttl))
            return
        key = key_of(tenant, job_id, SPEC)
        self._blobs.put(key, data, "application/json")
        dynamodb.put(self._items(job_id, SPEC, s3=key, ttl=ttl))

    def extend_ttl(self, job_id: str, until: int) -> None:
        with suppress(ConditionFailed):  # there is none, or it is kept longer
            dynamodb.update(self._items(job_id, SPEC), [self._items.ttl.set(until)], self._items.ttl < until)

    def replace(self, job_id: str, tenant: str, body: JobSpec, version: int) -> None:
        """An object under a name of its own: the one before it is named until the item says otherwise."""
        data, items = pack_json(body.to_dict()), self._items
        key = key_of(tenant, job_id, f"{SPEC}-{version}-{hashlib.sha256(data).hexdigest()[:8]}")
        if len(data) <= INLINE_BYTES:
            places = [items.data.set(data), items.s3.remove()]
        else:
            self._blobs.put(key, data, "application/json")
            places = [items.s3.set(key), items.data.remove()]
        older = items.version.does_not_exist() | (items.version < version)
        try:
            dynamodb.update(items(job_id, SPEC), [*places, items.version.set(version)], items.id.exists() & older)
        except ConditionFailed as failed:  # there is none, a later head has said more, or it had been done
            there = items.from_raw_data(failed.item) if failed.item else None
            if there is not None and there.version == version and data != there.data and key != there.s3:
                raise StaleVersion(None) from failed

    def get(self, job_id: str) -> JobSpec | None:
        item = dynamodb.get(self._items, job_id, SPEC)
        if item is None:
            return None
        data = item.data if item.s3 is None else self._blobs.get(item.s3)
        return JobSpec.from_dict(unpack_json(data)) if data is not None else None
