"""What an operator may set for a tenant, and what follows from it."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import InvalidRequest
from chalicelib.domain.limits.slots import SlotLimit
from chalicelib.domain.limits.tenant_limits import SHARDS_DELAY_MS, LimitsChange, TenantLimits, change_limits

ACME = TenantLimits(tenant="acme")
NOW = 1_763_800_000_000


def test_change_sets_what_it_names_and_keeps_the_rest() -> None:
    first = change_limits(ACME, LimitsChange(values={"weight": 3, "concurrency": 40}, queued={"low": 5, "total": 9}), "root", NOW)
    second = change_limits(first, LimitsChange(values={"user_concurrency": 2}, queued={"low": None}), "ops", NOW + 1)

    assert (second.weight, second.concurrency, second.queued, second.user_concurrency) == (3, 40, {"total": 9}, 2)
    assert (first.version, second.version, second.updated_at, second.updated_by) == (1, 2, NOW + 1, "ops")


def test_none_sets_back_to_the_settings_of_the_stage() -> None:
    given = change_limits(ACME, LimitsChange(values={"weight": 3, "concurrency": 40, "user_concurrency": 4}), "root", NOW)
    unset = dict.fromkeys(["weight", "concurrency", "user_concurrency"])

    after = change_limits(given, LimitsChange(values=unset), "root", NOW)

    assert (after.weight, after.concurrency, after.user_concurrency) == (1.0, None, None)


def test_change_that_changes_nothing_writes_nothing() -> None:
    given = change_limits(ACME, LimitsChange(values={"concurrency": 4}), "root", NOW)

    assert change_limits(given, LimitsChange(values={"concurrency": 4}), "ops", NOW + 5) is given


def test_slots_of_a_lowered_limit_count_those_of_the_higher_one_before() -> None:
    high = change_limits(ACME, LimitsChange(values={"concurrency": 100, "user_concurrency": 40}), "root", NOW)
    low = change_limits(high, LimitsChange(values={"concurrency": 10, "user_concurrency": 1}), "root", NOW)

    assert low.slots_of("ann") == [
        SlotLimit(scope="t:acme", limit=10, former_shards=4),
        SlotLimit(scope="u:acme#ann", limit=1, former_shards=2),
    ]


def test_tenant_without_limits_has_no_slots() -> None:
    assert ACME.slots_of("ann") == []


def grown(seen: TenantLimits, shards: int, now: int = NOW) -> TenantLimits:
    return change_limits(seen, LimitsChange(values={"shards": shards}), "root", now)


def test_new_shards_are_read_at_once_and_written_two_minutes_later() -> None:
    four = grown(ACME, 4)

    assert (ACME.shards, four.shards) == (1, 4)
    assert [four.shards_at(NOW + after) for after in (0, SHARDS_DELAY_MS - 1, SHARDS_DELAY_MS)] == [1, 1, 4]


def test_shards_that_grow_again_before_they_are_written_are_written_as_before_until_then() -> None:
    again = grown(grown(ACME, 4), 8, NOW + 60_000)
    later = grown(grown(ACME, 4), 8, NOW + SHARDS_DELAY_MS)

    assert [again.shards_at(NOW + after) for after in (60_000, SHARDS_DELAY_MS, 60_000 + SHARDS_DELAY_MS)] == [1, 1, 8]
    assert [later.shards_at(NOW + SHARDS_DELAY_MS + after) for after in (0, SHARDS_DELAY_MS)] == [4, 8]


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 12, 32])
def test_shards_that_are_fewer_or_no_power_of_two_are_refused_with_both_numbers(shards: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        grown(grown(ACME, 4), shards)

    [detail] = refused.value.details
    assert (detail.path, "4, which the tenant has" in detail.message, f"it is {shards}" in detail.message) == ("shards", True, True)


def test_shards_stay_when_other_limits_change_and_the_same_number_changes_nothing() -> None:
    four = grown(ACME, 4)
    other = change_limits(four, LimitsChange(values={"weight": 2.0}), "root", NOW + 1)

    assert (other.shards, other.shards_from, other.former_shards) == (four.shards, four.shards_from, four.former_shards)
    assert grown(four, 4, NOW + 5) is four
