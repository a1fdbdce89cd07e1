"""API keys by hash and by tenant, and the URLs of the stage, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.domain.auth.identity import Key, Role
from tests.kit.records import NOW, new_id


def key(**changes: Any) -> Key:
    return replace(Key(id=new_id(), hash=new_id(), tenant="acme", user="ann", role=Role.USER, created_at=NOW), **changes)


def test_api_key_is_found_by_its_hash(stores: Any) -> None:
    """A revoked key is still found, with its revocation time."""
    bare, full = key(), key(role=Role.ADMIN, expires_at=NOW, revoked_at=NOW, all_tenants=True, name="Ännäs 👍 key")
    for each in (bare, full):
        stores.api_keys.put_key(each)

    assert [stores.api_keys.key(each.hash) for each in (bare, full)] == [bare, full]
    assert stores.api_keys.key("unknown") is None
    revoked = replace(bare, revoked_at=NOW)
    stores.api_keys.put_key(revoked)
    assert stores.api_keys.key(bare.hash) == revoked


def test_many_api_keys_are_read_together(stores: Any) -> None:
    """More than one request takes, and one that is unknown."""
    given = [key() for _ in range(130)]
    for one in given:
        stores.api_keys.put_key(one)

    found = stores.api_keys.many([new_id(), *(one.hash for one in given)])

    assert sorted(found, key=lambda one: one.id) == sorted(given, key=lambda one: one.id)
    assert stores.api_keys.many([]) == []


def test_api_keys_of_a_tenant_are_listed_by_id(stores: Any) -> None:
    """Each key is listed once, as it was last put."""
    tenant = new_id()
    keys = [key(tenant=tenant, id=f"key_{number}") for number in (1, 2)]
    for each in (*reversed(keys), key(), replace(keys[0], name="renamed")):
        stores.api_keys.put_key(each)

    assert stores.api_keys.keys(tenant) == [replace(keys[0], name="renamed"), keys[1]]
    assert stores.api_keys.keys(new_id()) == []


def test_endpoints_of_a_stage_round_trip(stores: Any) -> None:
    """There are none before the first deployment."""
    assert stores.api_keys.endpoints() == {}
    addresses = {"ws_url": "wss://w.test/api", "api_url": "https://a.test/api"}

    if isinstance(stores, InMemoryAdapters):
        stores.api_keys.addresses = addresses
    else:
        stores.api_keys.put_endpoints(**addresses)

    assert stores.api_keys.endpoints() == addresses
