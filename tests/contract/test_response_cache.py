"""The response cache, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.domain.execution.response_cache import CachedResponse
from tests.contract.conftest import Lost
from tests.contract.given import NOW, new_id

KEY = "5f" * 32


def reference() -> CachedResponse:
    return CachedResponse(job_id=new_id(), attempt=2, stored_at=NOW, expires_at=NOW + 60_000)


def test_what_was_put_is_there(stores: Any) -> None:
    """Beyond its end too: whoever reads it compares the times."""
    tenant, cached = new_id(), reference()
    assert stores.cache.get(tenant, KEY) is None

    stores.cache.put(tenant, KEY, cached)

    assert stores.cache.get(tenant, KEY) == cached


def test_tenants_and_requests_are_kept_apart(stores: Any) -> None:
    tenant, cached = new_id(), reference()

    stores.cache.put(tenant, KEY, cached)

    assert stores.cache.get(new_id(), KEY) is None
    assert stores.cache.get(tenant, KEY[:-1]) is None


def test_the_latest_answer_stays(stores: Any, answer_lost: Lost) -> None:
    """Also where the put's own answer was lost, so that it was repeated."""
    tenant, first = new_id(), reference()
    second = replace(first, job_id=new_id(), attempt=1, stored_at=NOW + 5)
    stores.cache.put(tenant, KEY, first)

    with answer_lost("PutItem"):
        stores.cache.put(tenant, KEY, second)

    assert stores.cache.get(tenant, KEY) == second
