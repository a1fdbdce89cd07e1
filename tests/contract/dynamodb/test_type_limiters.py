"""The store of type limiters, on the twin and on moto."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.job_type import Limits
from chalicelib.domain.limits.type_limiter import TypeLimiter, acquire, release
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id

LIMITS = Limits(concurrency=2, per_minute=3)


def replaced(stores: Any, seen: TypeLimiter, new: TypeLimiter) -> TypeLimiter:
    """Replace a limiter in the store and return the new one."""
    stores.type_limiters.replace(seen, new, NOW)
    return new


def test_type_limiter_round_trips(stores: Any) -> None:
    """Recent starts, reservations and slots are stored for each type by itself."""
    blank = seen = TypeLimiter(type=new_id())
    for number in range(4):
        seen = replaced(stores, seen, acquire(seen, LIMITS, f"job{number}#1", NOW + number).limiter)
    seen = replaced(stores, seen, release(seen, "job0#1", NOW + 50))

    assert stores.type_limiters.get(seen.type) == seen
    assert (len(seen.recent_starts), len(seen.slots), seen.version) == (3, 1, 5)
    assert stores.type_limiters.get(new_id()) is None
    assert blank.version == 0


def test_stale_replace_of_a_type_limiter_is_refused(stores: Any) -> None:
    """The caller is given the stored limiter, also when it expected none."""
    blank = TypeLimiter(type=new_id())
    stored = replaced(stores, blank, acquire(blank, LIMITS, "job1#1", NOW).limiter)

    for seen in (blank, acquire(stored, LIMITS, "job2#1", NOW).limiter):
        with pytest.raises(StaleVersion) as refused:
            stores.type_limiters.replace(seen, acquire(seen, LIMITS, "job3#1", NOW).limiter, NOW)
        assert refused.value.current == stored


def test_type_limiter_replace_with_a_lost_response_applies_once(stores: Any, lose_response: LoseResponse) -> None:
    """A repeated replace recognises its own write."""
    blank = TypeLimiter(type=new_id())
    new = acquire(blank, LIMITS, "job1#1", NOW).limiter

    with lose_response("UpdateItem"):
        stores.type_limiters.replace(blank, new, NOW)
    stores.type_limiters.replace(blank, new, NOW)

    assert stores.type_limiters.get(blank.type) == new
