"""Leases, semaphores and request counters, on the twins and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import StaleVersion
from chalicelib.ports import Lease
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id

LEASE = Lease(
    id="",
    lane="normal",
    expires_at=NOW + 25_000,
    started_at=NOW,
    jobs=("job_b", "job_a"),
    environment="env",
    watermark=NOW - 7,
    watermarks={"acme": NOW - 7, "other": NOW},
)


def opened(stores: Any) -> Lease:
    lease = replace(LEASE, id=new_id())
    stores.leases.open(lease)
    return lease


def test_open_lease_can_be_renewed_repeatedly(stores: Any, lose_response: LoseResponse) -> None:
    """A renewal whose response was lost succeeds."""
    lease = opened(stores)
    renewed = replace(lease, expires_at=lease.expires_at + 8_000, jobs=())

    with lose_response("PutItem"):
        stores.leases.renew(renewed)
    stores.leases.renew(renewed)

    assert stores.leases.get(lease.id) == renewed


def test_fenced_lease_cannot_be_renewed(stores: Any) -> None:
    """Closing it leaves it to the sweeper that fenced it."""
    lease = opened(stores)
    assert stores.leases.fence(lease)
    assert stores.leases.fence(lease)
    stores.leases.close(lease)

    with pytest.raises(StaleVersion) as refused:
        stores.leases.renew(replace(lease, expires_at=lease.expires_at + 8_000))

    assert refused.value.current == replace(lease, fenced=True)


def test_renewed_lease_cannot_be_fenced(stores: Any) -> None:
    """The sweeper read the lease before its renewal."""
    lease = opened(stores)
    renewed = replace(lease, expires_at=lease.expires_at + 8_000)
    stores.leases.renew(renewed)

    assert not stores.leases.fence(lease)
    stores.leases.renew(renewed)


def test_all_returns_open_and_fenced_leases(stores: Any) -> None:
    """Closed and deleted leases are gone, and only a fenced lease can be deleted."""
    open_lease, fenced, deleted, closed = (opened(stores) for _ in range(4))
    stores.leases.fence(fenced)
    stores.leases.fence(deleted)
    stores.leases.delete_fenced(deleted)
    stores.leases.delete_fenced(open_lease)
    stores.leases.close(closed)

    found = {lease.id: lease for lease in stores.leases.all()}

    assert (found[open_lease.id], found[fenced.id]) == (open_lease, replace(fenced, fenced=True))
    assert stores.leases.get(fenced.id) == found[fenced.id]
    assert not {deleted.id, closed.id} & set(found)


def test_closed_lease_cannot_be_renewed_or_fenced(stores: Any) -> None:
    """Closing it twice succeeds."""
    lease = opened(stores)
    stores.leases.close(lease)
    stores.leases.close(lease)

    assert not stores.leases.fence(lease)
    with pytest.raises(StaleVersion) as refused:
        stores.leases.renew(lease)
    assert refused.value.current is None


def test_semaphore_gives_no_more_slots_than_its_limit(stores: Any) -> None:
    name = new_id()
    taken = [stores.semaphores.acquire(name, range(3), NOW + 1000, NOW) for _ in range(3)]

    assert sorted(taken) == [0, 1, 2]
    assert stores.semaphores.acquire(name, range(3), NOW + 1000, NOW) is None
    assert stores.semaphores.acquire(new_id(), range(1), NOW + 1000, NOW) == 0


def test_slot_is_free_after_release_or_expiry(stores: Any) -> None:
    """It expires at `until`, not when the TTL removes the row."""
    name = new_id()
    stores.semaphores.acquire(name, range(1), NOW + 1000, NOW)
    assert stores.semaphores.acquire(name, range(1), NOW + 2000, NOW + 999) is None

    assert stores.semaphores.acquire(name, range(1), NOW + 2000, NOW + 1000) == 0
    stores.semaphores.release(name, 0)
    assert stores.semaphores.acquire(name, range(1), NOW + 3000, NOW + 1001) == 0
    stores.semaphores.release(name, 0)
    stores.semaphores.release(name, 0)


def test_acquire_with_a_lost_response_takes_one_slot(stores: Any, lose_response: LoseResponse) -> None:
    """The SDK's retry recognises its own row."""
    name = new_id()
    with lose_response("PutItem"):
        assert stores.semaphores.acquire(name, range(1), NOW + 1000, NOW) == 0

    assert stores.semaphores.acquire(name, range(1), NOW + 1000, NOW) is None


def test_request_counters_count_by_name_and_window(stores: Any) -> None:
    name = new_id()

    assert [stores.request_counters.increment(name, window, NOW) for window in (1, 1, 2, 1)] == [1, 2, 1, 3]
    assert stores.request_counters.increment(new_id(), 1, NOW) == 1
