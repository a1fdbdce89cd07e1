"""The index of due jobs: queried without a scan, in order, and no lane hides another."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb.jobs.item import due_key
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion, UnreadableRecord
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.index_keys import ENDED, IN_LINE, due_shard
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.queues.lanes import HOME_QUEUES
from infra.naming import table_name
from tests.kit.dynamodb import counted_requests
from tests.kit.records import NOW, job, new_id

PERIODS = itertools.count(1)  # the stores are shared, so the due times of two tests must not overlap


def new_period() -> int:
    """Return the start of a period of time that no other test uses."""
    return NOW - 10**11 + next(PERIODS) * 10**7


def put(stores: Any, **changes: Any) -> Job:
    made = job(**changes)
    stores.jobs.create(made)
    return made


def test_due_jobs_are_found_by_lane_longest_overdue_first(stores: Any) -> None:
    """Jobs that wait for a time are in a group of their own, and ended jobs are in none."""
    begin = new_period()
    late, early = (put(stores, lane="high", due_at=begin + ms) for ms in (2, 1))
    running = put(stores, lane="high", status=Status.PROCESSING, due_at=begin + 3)
    other = put(stores, lane="low", due_at=begin)
    waits = [put(stores, lane="high", status=each, due_at=begin + 4) for each in (Status.RETRYING, Status.WAITING, Status.HELD)]
    put(stores, lane="high", due_at=begin + 1_001)
    put(stores, lane="high", status=Status.FAILED, due_at=None)

    def found(queue: str | None) -> list[str]:
        ours = {early.id, late.id, running.id, other.id, *(one.id for one in waits)}
        return [job_id for job_id in stores.jobs.due(queue, begin + 1_000, 100) if job_id in ours]

    assert found("high") == [early.id, late.id, running.id]
    assert found("low") == [other.id]
    assert found(None) == sorted(one.id for one in waits)


def test_due_tasks_are_in_the_partition_of_their_queue(stores: Any) -> None:
    """A deep queue of tasks must hide no job of a lane, nor the other way round."""
    begin = new_period()
    task = put(stores, lane="high", model=NO_MODEL, due_at=begin)
    running = put(stores, lane="low", model=NO_MODEL, status=Status.PROCESSING, due_at=begin + 1)
    held = put(stores, lane="low", model=NO_MODEL, status=Status.HELD, due_at=begin + 2)
    in_line = put(stores, lane="low", model=NO_MODEL, status=Status.HELD, cause="type:export", due_at=begin + 2)
    asking = put(stores, lane="high", due_at=begin + 3)
    made = (task, running, held, in_line, asking)

    def found(queue: str | None) -> list[str]:
        return [job_id for job_id in stores.jobs.due(queue, begin + 10, 100) if job_id in {one.id for one in made}]

    assert (found("work"), found("high"), found("low")) == ([task.id, running.id], [asking.id], [])
    assert (found(None), found(IN_LINE)) == ([held.id], [in_line.id])


def test_a_change_corrects_the_due_partition_that_an_older_version_stored(dynamo_stores: DynamoStores) -> None:
    """It put tasks in the partition of their lane."""
    begin = new_period()
    task = put(dynamo_stores, lane="high", model=NO_MODEL, due_at=begin)
    aws.client("dynamodb").update_item(
        TableName=table_name("dev", "jobs"),
        Key={"id": {"S": task.id}},
        UpdateExpression="SET g_d = :k",
        ExpressionAttributeValues={":k": {"S": due_key("high", due_shard(task.id))}},
    )
    before = [queue for queue in HOME_QUEUES if task.id in dynamo_stores.jobs.due(queue, begin + 10, 100)]

    dynamo_stores.jobs.replace(task, replace(task, due_at=begin + 1, version=task.version + 1))

    assert before == ["high"]
    assert [queue for queue in HOME_QUEUES if task.id in dynamo_stores.jobs.due(queue, begin + 10, 100)] == ["work"]


def test_limit_of_due_jobs_applies_to_each_shard(stores: Any) -> None:
    """A full shard must not hide the jobs of the others."""
    begin = new_period()
    made: dict[int, list[str]] = {shard: [] for shard in range(8)}
    while min(map(len, made.values())) < 3:
        each = job(lane="urgent", created_at=begin, due_at=begin + len(list(itertools.chain(*made.values()))))
        made[due_shard(each.id)].append(each.id)
        stores.jobs.create(each)

    ids = [job_id for job_id in stores.jobs.due("urgent", begin + 10**6, 2) if job_id in itertools.chain(*made.values())]

    assert set(ids) == {job_id for part in made.values() for job_id in part[:2]}


def test_postpone_only_moves_the_due_time_later(stores: Any) -> None:
    """Ended jobs stay as they are, and no record is created."""
    begin = new_period()
    given = put(stores, due_at=begin)
    ended = put(stores, status=Status.FAILED, due_at=None)

    stores.jobs.postpone(given.id, begin + 500)
    stores.jobs.postpone(given.id, begin + 400)
    stores.jobs.postpone(ended.id, begin + 500)
    missing = new_id()
    stores.jobs.postpone(missing, begin)

    assert stores.jobs.get(given.id) == replace(given, due_at=begin + 500, version=2)
    assert stores.jobs.get(ended.id) == ended
    assert stores.jobs.get(missing) is None


def test_postpone_with_a_lost_response_applies_once(stores: Any, lose_response: Any) -> None:
    given = put(stores, due_at=new_period())

    with lose_response("UpdateItem"):
        stores.jobs.postpone(given.id, (given.due_at or 0) + 5)

    assert stores.jobs.get(given.id).version == 2


def test_unreadable_job_record_is_due_and_can_be_postponed(dynamo_stores: DynamoStores) -> None:
    """Another version of the code may have written it."""
    begin = new_period()
    given = put(dynamo_stores, status=Status.RETRYING, due_at=begin)
    aws.client("dynamodb").update_item(
        TableName=table_name("dev", "jobs"),
        Key={"id": {"S": given.id}},
        UpdateExpression="SET #s = :s",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":s": {"S": "flying"}},
    )
    with pytest.raises(UnreadableRecord) as caught:
        dynamo_stores.jobs.get_many([given.id])
    assert caught.value.problems == {given.id: "ValueError: 'flying' is not a valid Status"}
    assert given.id in dynamo_stores.jobs.due(None, begin, 1000)

    dynamo_stores.jobs.postpone(given.id, begin + 5)

    assert given.id not in dynamo_stores.jobs.due(None, begin, 1000)
    assert given.id in dynamo_stores.jobs.due(None, begin + 5, 1000)


def put_ended(stores: Any, due_at: int | None, **changes: Any) -> Job:
    return put(stores, status=Status.COMPLETED, notifies=True, finished_at=NOW, due_at=due_at, **changes)


def test_ended_jobs_are_due_in_a_partition_of_their_own_until_they_are_notified_of(stores: Any) -> None:
    begin = new_period()
    ended = put_ended(stores, begin + 1)
    put_ended(stores, None)

    def found(partition: str | None, until: int) -> list[str]:
        return [job_id for job_id in stores.jobs.due(partition, until, 1000) if job_id == ended.id]

    assert (found(ENDED, begin), found(ENDED, begin + 1)) == ([], [ended.id])
    assert [found(partition, begin + 1) for partition in (None, IN_LINE, *HOME_QUEUES)] == [[]] * 7

    stores.jobs.set_end_due(ended, begin + 500)
    assert (found(ENDED, begin + 499), found(ENDED, begin + 500)) == ([], [ended.id])
    stores.jobs.set_end_due(ended, None)
    stores.jobs.set_end_due(ended, None)
    stores.jobs.set_end_due(ended, begin)

    assert found(ENDED, begin + 10**6) == []
    assert stores.jobs.get(ended.id) == replace(ended, due_at=None)  # its version is the same: nothing of the job has changed


def test_notifications_of_a_restarted_job_leave_its_due_time_alone(stores: Any) -> None:
    ended = put_ended(stores, new_period())
    again = transitions.restart(replace(ended, status=Status.FAILED), NOW, 10**6, 10**6)
    assert again is not None
    stores.jobs.replace(ended, again)

    for due_at in (None, NOW):
        stores.jobs.set_end_due(ended, due_at)

    assert stores.jobs.get(ended.id) == again


def test_a_write_of_an_ended_job_wins_against_its_notification(stores: Any) -> None:
    """Neither changes the version, so a swap may come from a reader who still saw the due time."""
    begin = new_period()
    ended = put_ended(stores, begin)
    stores.jobs.set_end_due(ended, None)

    again = replace(ended, status=Status.QUEUED, finished_at=None, run=2, generation=2, version=ended.version + 1)  # the same `due_at`
    stores.jobs.replace(ended, again)

    assert stores.jobs.get(ended.id) == again
    assert again.id in stores.jobs.due(again.lane, begin, 1000)


def test_a_repeated_end_succeeds_after_its_notification(stores: Any) -> None:
    """Its first response was lost, and the change stream was faster than the repetition."""
    running = put(stores, status=Status.PROCESSING, notifies=True, due_at=new_period())
    ended = transitions.cancel(replace(running, status=Status.QUEUED), NOW)
    assert ended is not None
    assert ended.is_end_due
    stores.jobs.replace(running, ended)
    stores.jobs.set_end_due(ended, None)

    stores.jobs.replace(running, ended)

    assert not stores.jobs.get(ended.id).is_end_due
    with pytest.raises(StaleVersion):
        stores.jobs.replace(running, replace(ended, status=Status.EXPIRED))


def test_notification_due_with_a_lost_response_is_removed_once(stores: Any, lose_response: Any) -> None:
    ended = put_ended(stores, new_period())

    with lose_response("UpdateItem"):
        stores.jobs.set_end_due(ended, None)

    assert stores.jobs.get(ended.id) == replace(ended, due_at=None)


def test_due_jobs_are_read_with_64_queries_and_leases_with_8(dynamo_stores: DynamoStores) -> None:
    """The number does not depend on the number of jobs (docs/data-model.md)."""
    with counted_requests() as requests:
        for queue in (None, IN_LINE, ENDED, *HOME_QUEUES):
            dynamo_stores.jobs.due(queue, new_period(), 100)
        due = requests["Query"]
        dynamo_stores.leases.all()

    assert (due, requests) == (64, {"Query": 72})
