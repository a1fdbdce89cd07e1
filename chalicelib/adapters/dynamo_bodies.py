"""What jobs are asked to do: the item `body` of a job's page, or an object that it names."""

from __future__ import annotations

from pynamodb.attributes import BinaryAttribute, UnicodeAttribute

from chalicelib.adapters import dynamo
from chalicelib.adapters.blobs import Blobs, key_of
from chalicelib.adapters.dynamo import IntAttribute, Item, bound
from chalicelib.adapters.packing import INLINE_BYTES, pack_json, unpack_json
from chalicelib.domain.body import Body

BODY = "body"


class BodyItem(Item):
    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    data = BinaryAttribute(legacy_encoding=False, null=True)
    s3 = UnicodeAttribute(null=True)
    ttl = IntAttribute()


class DynamoBodies:
    """Units: 1 for each KB after compression, up to 16; then one put of S3 and 1."""

    def __init__(self, stage: str, blobs: Blobs) -> None:
        self._items = bound(BodyItem, stage, "pages")
        self._blobs = blobs

    def put(self, job_id: str, tenant: str, body: Body, ttl: int) -> None:
        """The object before the item: an item never names what is not there."""
        data = pack_json(body.to_dict())
        if len(data) <= INLINE_BYTES:
            dynamo.put(self._items(job_id, BODY, data=data, ttl=ttl))
            return
        key = key_of(tenant, job_id, BODY)
        self._blobs.put(key, data, "application/json")
        dynamo.put(self._items(job_id, BODY, s3=key, ttl=ttl))

    def get(self, job_id: str) -> Body | None:
        item = dynamo.find(self._items, job_id, BODY)
        if item is None:
            return None
        data = item.data if item.s3 is None else self._blobs.get(item.s3)
        return Body.from_dict(unpack_json(data)) if data is not None else None
