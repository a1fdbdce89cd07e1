"""Counting the jobs of a line, on the twin and on moto."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.jobs.index_keys import place_in_line
from chalicelib.domain.jobs.job import Job, Status
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
