"""The response cache, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.domain.execution.response_cache import CachedResponse
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id

KEY = "5f" * 32


def reference() -> CachedResponse:
    return CachedResponse(job_id=new_id(), attempt=2, stored_at=NOW, expires_at=NOW + 60_000)


def test_cached_response_round_trips(stores: Any) -> None:
    """The store returns expired entries, too; the reader compares the times."""
    tenant, cached = new_id(), reference()
    assert stores.cache.get(tenant, KEY) is None

    stores.cache.put(tenant, KEY, cached)

    assert stores.cache.get(tenant, KEY) == cached


def test_cached_responses_are_separate_by_tenant_and_request(stores: Any) -> None:
    tenant, cached = new_id(), reference()

    stores.cache.put(tenant, KEY, cached)

    assert stores.cache.get(new_id(), KEY) is None
    assert stores.cache.get(tenant, KEY[:-1]) is None


def test_latest_cached_response_replaces_the_earlier_one(stores: Any, lose_response: LoseResponse) -> None:
    """The put is repeated after a lost response."""
    tenant, first = new_id(), reference()
    second = replace(first, job_id=new_id(), attempt=1, stored_at=NOW + 5)
    stores.cache.put(tenant, KEY, first)

    with lose_response("PutItem"):
        stores.cache.put(tenant, KEY, second)

    assert stores.cache.get(tenant, KEY) == second
