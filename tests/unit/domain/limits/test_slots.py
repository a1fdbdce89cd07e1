"""Which slots a job asks for, and in how many shards a scope is counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.limits.slots import MAX_SHARDS, SlotLimit, Taken, scope_of, shards_of, slot_keys
from tests.kit.records import new_id


@pytest.mark.parametrize(("limit", "shards"), [(1, 1), (31, 1), (32, 2), (63, 2), (64, 4), (255, 8), (256, 16), (10**6, 16)])
def test_scope_has_more_shards_only_if_each_keeps_sixteen_slots(limit: int, shards: int) -> None:
    assert shards_of(limit) == shards


@given(st.integers(1, 5_000), st.integers(1, MAX_SHARDS))
def test_shards_have_together_as_many_slots_as_the_limit(limit: int, former: int) -> None:
    keys = SlotLimit(scope="t:acme", limit=limit, former_shards=former).keys

    assert sum(keys.values()) == limit
    assert len(keys) == max(former, shards_of(limit))


@given(st.integers(1, 300))
def test_exactly_as_many_jobs_begin_as_the_limit_allows(limit: int) -> None:
    """One after the other, whatever shards their ids ask for: no slot stays empty."""
    scope, taken = SlotLimit(scope="u:acme#ann", limit=limit), Counter[str]()
    for _ in range(limit):
        key = scope.choose(new_id(), taken)
        assert key is not None
        taken[key] += 1

    assert scope.choose(new_id(), taken) is None
    assert all(taken[key] == limit for key, limit in scope.keys.items())


def test_job_asks_for_the_same_shard_in_each_of_its_scopes() -> None:
    """So two jobs that meet in one scope do not meet others in the next."""
    limits = [SlotLimit(scope=scope, limit=1_000) for scope in ("t:acme", "u:acme#ann", "y:export")]

    for _ in range(20):
        found = slot_keys(new_id(), limits)
        assert isinstance(found, Taken)
        assert len({key.rpartition("#")[2] for key in found.keys}) == 1


def test_first_full_scope_is_named() -> None:
    limits = [SlotLimit(scope="t:acme", limit=2), SlotLimit(scope="u:acme#ann#0", limit=1)]

    assert slot_keys(new_id(), limits, {"t:acme#0": 1, "u:acme#ann#0#0": 1}) == "u:acme#ann#0"
    assert slot_keys(new_id(), limits, {"t:acme#0": 1}) == Taken({"t:acme#0": 2, "u:acme#ann#0#0": 1})


def test_jobs_of_a_higher_limit_before_count_against_a_lower_one() -> None:
    """They hold slots of shards that the lower limit does not have."""
    lowered = SlotLimit(scope="t:acme", limit=20, former_shards=4)

    assert lowered.choose(new_id(), {"t:acme#0": 5, "t:acme#3": 15}) is None
    assert lowered.choose(new_id(), {"t:acme#0": 5, "t:acme#3": 14}) == "t:acme#0"


def test_scope_of_a_key_keeps_the_marks_of_names() -> None:
    assert scope_of("u:a#b#c#11") == "u:a#b#c"
