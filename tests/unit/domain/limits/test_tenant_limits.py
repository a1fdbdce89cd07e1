"""What an operator may set for a tenant, and what follows from it."""

from __future__ import annotations

from chalicelib.domain.limits.slots import SlotLimit
from chalicelib.domain.limits.tenant_limits import LimitsChange, TenantLimits, change_limits

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
