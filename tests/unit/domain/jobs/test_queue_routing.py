"""The queue of a job's wake-ups, and the workers that may run it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.jobs.edits import JobEdit, apply_edit, needs_wake_up
from chalicelib.domain.jobs.index_keys import due_partition
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import may_run, queue_for, queue_of
from chalicelib.domain.queues.lanes import JOB_QUEUES, LANES, READY, WORK
from tests.kit.jobs import NOW, job


@pytest.mark.parametrize("lane", LANES)
def test_a_job_that_asks_a_model_is_in_the_queue_of_its_lane(lane: str) -> None:
    asking = job(lane=lane)

    assert queue_of(asking) == due_partition(asking) == queue_for(lane, is_task=False) == lane
    assert {queue for queue in JOB_QUEUES if may_run(queue, asking)} == {*LANES, READY.name}


@pytest.mark.parametrize("lane", LANES)
def test_a_task_of_any_lane_is_in_the_queue_of_tasks(lane: str) -> None:
    task = job(lane=lane, model=NO_MODEL)

    assert queue_of(task) == due_partition(task) == queue_for(lane, is_task=True) == WORK.name
    assert {queue for queue in JOB_QUEUES if may_run(queue, task)} == {WORK.name}


def test_a_task_that_waits_for_a_time_is_due_with_all_others_that_do() -> None:
    assert due_partition(job(model=NO_MODEL, status=Status.RETRYING)) is None


@pytest.mark.parametrize("lane", ["urgent", "low"])
def test_a_task_keeps_its_wake_up_when_its_priority_changes(lane: str) -> None:
    """It is in the same queue before and after, so no wake-up is sent or disowned."""
    before = job(model=NO_MODEL)

    after = apply_edit(before, JobEdit(lane=lane), NOW)

    assert after == replace(before, lane=lane, version=2, updated_at=NOW)
    assert not needs_wake_up(before, after)
