"""Counting and reading the jobs of lines, on the twin and on moto."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.jobs.index_keys import behind_lane, place_in_line
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import claim
from chalicelib.domain.queues.causes import bucket_of
from chalicelib.ports import Line
from chalicelib.services.scheduling.user_lines import scan_users
from tests.kit.records import NOW, job, new_id

TENANT = f"lines-{new_id()}"
CAUSE = "rate:gpt-4o"


def held(stores: Any, number: int, **fields: Any) -> Job:
    """A job that is held in the line since `number` milliseconds."""
    values = {"tenant": TENANT, "status": Status.HELD, "reason": "rate_limited", "cause": CAUSE, "queued_at": NOW + number, **fields}
    made = job(id=new_id(NOW + number), **values)
    stores.jobs.create(made)
    return made


def test_jobs_of_a_line_are_counted_by_place_and_lane_up_to_a_limit(stores: Any) -> None:
    jobs = [held(stores, number) for number in range(5)]
    urgent = held(stores, 9, lane="urgent")
    held(stores, 7, tenant=f"{TENANT}-other")
    held(stores, 8, cause="rate:other")
    count = stores.lines.count

    assert count(CAUSE, TENANT, 100) == 6
    assert [count(CAUSE, TENANT, 100, before=place_in_line(one)) for one in (urgent, *jobs)] == [0, 1, 2, 3, 4, 5]
    assert [count(CAUSE, TENANT, 100, lane=lane) for lane in ("urgent", "high", "normal", "low")] == [1, 0, 5, 0]
    assert count(CAUSE, TENANT, 4) == 4
    assert count(CAUSE, TENANT, 3, before=place_in_line(jobs[-1])) == 3
    assert count("rate:nobody", TENANT, 10) == 0


ODD_USERS = ("ann", "a#b", "a", "0#0", "ü" * 200, "\u0000", "~", "ann#normal")


def rows(stores: Any, tenant: str) -> list[Line]:
    return [line for line in stores.lines.rows(bucket_of(CAUSE)) if line.tenant == tenant]


def test_jobs_of_a_line_by_user_are_together_by_user_then_by_lane_and_age(stores: Any) -> None:
    tenant = f"by-user-{new_id()}"
    made = [
        held(stores, number, tenant=tenant, user=user, lane=lane, line_by_user=True)
        for number, (user, lane) in enumerate((user, lane) for lane in ("low", "normal", "normal") for user in ODD_USERS)
    ]
    other = held(stores, 1, tenant=tenant, user="ann")

    read = stores.lines.held(CAUSE, tenant, 100, by_user=True)

    assert {one.job_id for one in read} == {one.id for one in made}
    users = list(dict.fromkeys(one.user for one in read))
    assert sorted(users) == sorted(ODD_USERS)
    for number, user in enumerate(users):
        own = read[3 * number : 3 * number + 3]
        assert [one.user for one in own] == [user] * 3
        assert [one.lane for one in own] == ["normal", "normal", "low"]
        assert own[0].queued_at < own[1].queued_at
        assert all(one.by_user for one in own)
    beyond = stores.lines.held(CAUSE, tenant, 100, behind_lane(read[1].place), by_user=True)
    assert [one.job_id for one in beyond] == [one.job_id for one in read[2:]]
    assert [(one.job_id, one.by_user) for one in stores.lines.held(CAUSE, tenant, 100)] == [(other.id, False)]


def test_jobs_of_a_line_by_user_are_counted_among_those_of_their_user(stores: Any) -> None:
    tenant = f"by-user-{new_id()}"
    own = [held(stores, number, tenant=tenant, user="ann", line_by_user=True) for number in range(4)]
    for number in range(3):
        held(stores, number, tenant=tenant, user=f"other {number}", line_by_user=True)
    held(stores, 0, tenant=tenant, user="ann")

    counts = [stores.lines.count(CAUSE, tenant, 100, before=place_in_line(one), by_user=True) for one in own]

    assert counts == [0, 1, 2, 3]
    assert stores.lines.count(CAUSE, tenant, 100, by_user=True) == 7
    assert stores.lines.count(CAUSE, tenant, 5, by_user=True) == 5
    assert stores.lines.count(CAUSE, tenant, 100) == 1


def test_a_tenant_has_a_row_for_each_of_its_two_lines(stores: Any) -> None:
    """Nothing that is done to one is done to the other, whatever the tenant is called."""
    for tenant in (f"t-{new_id()}", f"t#u-{new_id()}"):
        assert stores.lines.touch(CAUSE, tenant, NOW, by_user=True)
        assert not stores.lines.touch(CAUSE, tenant, NOW + 1, by_user=True)
        assert stores.lines.touch(CAUSE, tenant, NOW + 2)
        by_user = next(line for line in rows(stores, tenant) if line.by_user)
        stores.lines.save_position(by_user, 2.5, "0123#3#")
        assert not stores.lines.touch(CAUSE, tenant, NOW + 3, by_user=True)  # keeps them

        found = sorted(rows(stores, tenant), key=lambda line: line.by_user)
        assert found == [
            Line(cause=CAUSE, tenant=tenant, touched_at=NOW + 2),
            Line(cause=CAUSE, tenant=tenant, touched_at=NOW + 3, position=2.5, by_user=True, turn="0123#3#"),
        ]
        stores.lines.save_position(found[1], 3.0)
        assert [line.turn for line in rows(stores, tenant)] == [None, None]
        assert not stores.lines.remove(by_user)  # it was written since
        assert stores.lines.remove(found[1])
        assert rows(stores, tenant) == [found[0]]


def test_a_job_that_leaves_a_line_by_user_is_not_in_it_any_more(stores: Any) -> None:
    tenant = f"by-user-{new_id()}"
    one = held(stores, 1, tenant=tenant, user="ann", line_by_user=True)
    claimed = claim(one, one.generation, "lease#1", NOW)
    assert claimed is not None
    stores.jobs.replace(one, claimed)

    assert stores.lines.held(CAUSE, tenant, 10, by_user=True) == []
    assert not stores.jobs.get(one.id).line_by_user


@pytest.mark.parametrize("busy", [1, 70])
def test_users_are_found_behind_all_that_one_of_them_has(stores: Any, busy: int) -> None:
    tenant = f"by-user-{new_id()}"
    for number in range(busy):
        held(stores, number, tenant=tenant, user="busy", line_by_user=True)
    for number in range(6):
        held(stores, 1_000 + number, tenant=tenant, user=f"rare {number}", line_by_user=True)

    scan = scan_users(stores.lines, CAUSE, tenant, None, 5)

    assert {one.user for one in scan.jobs} == {"busy", *(f"rare {number}" for number in range(6))}
    assert scan.end is None
