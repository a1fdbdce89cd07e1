"""The response cache, in the table `coordination`: `cache#<tenant>#<hash of the request>` / `ref`.

An item only names the attempt that answered the request.
"""

from __future__ import annotations

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, IntAttribute, Item, bound, decoded
from chalicelib.domain.execution.response_cache import CachedResponse

SORT = "ref"


class CacheItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    job_id = UnicodeAttribute(attr_name="job")
    attempt = IntAttribute()
    stored_at = IntAttribute(attr_name="at")
    expires_at = IntAttribute(attr_name="exp")
    ttl = IntAttribute()


class DynamoResponseCache:
    """Units: 0.5 to read, 1 to write."""

    def __init__(self, stage: str) -> None:
        self._items = bound(CacheItem, stage, "coordination")

    def get(self, tenant: str, key: str) -> CachedResponse | None:
        """Return None for an item that cannot be read: it is a miss."""
        try:
            item = self._items.get(_partition(tenant, key), SORT)
        except self._items.DoesNotExist:
            return None
        return next(decode_readable([item], _cached_of), None)

    def put(self, tenant: str, key: str, cached: CachedResponse) -> None:
        dynamodb.put(
            self._items(
                _partition(tenant, key),
                SORT,
                job_id=cached.job_id,
                attempt=cached.attempt,
                stored_at=cached.stored_at,
                expires_at=cached.expires_at,
                ttl=cached.expires_at // 1000 + TTL_GRACE_SECONDS,
            )
        )


@decoded
def _cached_of(item: CacheItem) -> CachedResponse:
    return CachedResponse(job_id=item.job_id, attempt=item.attempt, stored_at=item.stored_at, expires_at=item.expires_at)


def _partition(tenant: str, key: str) -> str:
    return f"cache#{tenant}#{key}"
