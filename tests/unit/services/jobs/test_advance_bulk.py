"""Bulk operations by messages: a few pages each, two operations of a tenant at once, each job once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.services.jobs.advance_bulk import ERROR_BACKOFF_MS, RETRY_SECONDS, TURN_JOBS, advance_bulk
from chalicelib.services.jobs.bulk_operations import INLINE_MAX_JOBS, TURN_MS, BulkRequest, start_bulk
from chalicelib.services.jobs.bulk_turns import AT_ONCE, request_turn
from tests.kit.failing_store import refusing
from tests.kit.world import World
from tests.unit.services.jobs.test_wake_bulk_operations import failed_jobs, put_bulk, stored, take_time

TASK_MS = 90_000


def messages(world: World) -> list[dict[str, Any]]:
    """What the queue `tasks` holds, in the order of its sending."""
    return [json.loads(message.body) for message in world.container.queues.messages[TASKS]]


def waiting(world: World) -> list[str]:
    """The operations that the messages name."""
    return [message["bulk_id"] for message in messages(world)]


def deliver(world: World) -> dict[str, Any] | None:
    """Deliver the first visible message of the queue. Return it; None if there is none."""
    received = world.container.queues.receive(TASKS, 1)
    if not received:
        return None
    message: dict[str, Any] = json.loads(received[0].body)
    until = world.clock.now() + TASK_MS
    advance_bulk(world.container, message["tenant"], message["bulk_id"], message["version"], until)
    world.container.queues.acknowledge(TASKS, [received[0].receipt])
    return message


def deliver_all(world: World, limit: int = 1_000) -> int:
    """Deliver until the queue has no visible message. Return how many there were."""
    for number in range(limit):
        if deliver(world) is None:
            return number
    raise AssertionError(f"more than {limit} messages")


def requested(world: World, number: int, jobs: list[str], **changes: Any) -> BulkOperation:
    bulk = put_bulk(world, number, jobs, **changes)
    request_turn(world.container, bulk)
    return bulk


def test_a_message_processes_a_bounded_number_of_jobs_and_sends_the_next() -> None:
    world = World()
    bulk = requested(world, 1, failed_jobs(world, TURN_JOBS + 100))

    deliver(world)

    moved = stored(world, bulk)
    assert (moved.done, moved.finished_at) == (TURN_JOBS, None)
    assert [(message["bulk_id"], message["version"]) for message in messages(world)] == [(bulk.id, moved.version)]


def test_a_message_takes_a_bounded_time() -> None:
    """However slow the store is: one page more than fits into it."""
    world = World()
    bulk = requested(world, 1, failed_jobs(world, 400))
    take_time(world, 3.0)
    before = world.clock.now()

    deliver(world)

    assert TURN_MS <= world.clock.now() - before < TURN_MS + 3_000
    assert 0 < stored(world, bulk).done < 400


def test_a_message_ends_before_its_function_does() -> None:
    world = World()
    bulk = requested(world, 1, failed_jobs(world, 400))
    take_time(world, 3.0)
    [message] = messages(world)

    advance_bulk(world.container, bulk.tenant, bulk.id, message["version"], world.clock.now() + 5_000)

    assert stored(world, bulk).version == bulk.version + 2


def test_a_large_operation_delays_that_of_another_tenant_by_one_message() -> None:
    """Whatever is left of it."""
    world = World()
    large = requested(world, 1, failed_jobs(world, 2 * TURN_JOBS), tenant="acme")
    small = requested(world, 2, failed_jobs(world, 300), tenant="small")

    delivered = [deliver(world), deliver(world)]

    assert [message and message["tenant"] for message in delivered] == ["acme", "small"]
    assert stored(world, small).finished_at is not None
    assert stored(world, large).done == TURN_JOBS
    deliver_all(world)
    assert stored(world, large).done == 2 * TURN_JOBS


def test_messages_name_their_tenant_as_their_group() -> None:
    world = World()
    requested(world, 1, failed_jobs(world, 1), tenant="small")

    assert [message.tenant for message in world.container.queues.messages[TASKS]] == ["small"]


def test_two_operations_of_a_tenant_run_at_once_and_the_next_follows_at_the_end_of_one() -> None:
    """In the order of their creation; other tenants have turns of their own."""
    world = World()
    jobs = failed_jobs(world, TURN_JOBS + 50)
    long = requested(world, 1, jobs)
    short, third, fourth = (requested(world, number, jobs[:30]) for number in (2, 3, 4))
    other = requested(world, 5, [], tenant="other")

    assert waiting(world) == [long.id, short.id, other.id]
    deliver(world)
    deliver(world)
    assert stored(world, short).finished_at is not None
    assert set(waiting(world)) == {other.id, long.id, third.id}
    deliver_all(world)
    assert all(stored(world, bulk).finished_at is not None for bulk in (long, third, fourth, other))
    assert not world.container.bulk_operations.order


def test_no_more_than_two_of_many_operations_have_a_message_at_any_time() -> None:
    world = World()
    jobs = failed_jobs(world, 60)
    bulks = [requested(world, number, jobs) for number in range(30)]
    at_once = set[int]()

    while deliver(world) is not None:
        at_once.add(sum(stored(world, bulk).finished_at is None for bulk in bulks if bulk.id in waiting(world)))

    assert max(at_once) == AT_ONCE
    assert all(stored(world, bulk).finished_at is not None for bulk in bulks)


def test_a_message_that_comes_twice_advances_nothing_and_sends_nothing() -> None:
    world = World()
    bulk = requested(world, 1, failed_jobs(world, TURN_JOBS + 1))
    [first] = messages(world)
    deliver(world)
    moved = stored(world, bulk)

    advance_bulk(world.container, bulk.tenant, bulk.id, first["version"], world.clock.now() + TASK_MS)

    assert stored(world, bulk) == moved
    assert len(messages(world)) == 1


def test_two_messages_at_once_apply_each_page_once_and_one_of_them_goes_on() -> None:
    world = World()
    ids = failed_jobs(world, TURN_JOBS + 25)
    bulk = requested(world, 1, ids)
    [message] = messages(world)
    real, nested = world.container.bulk_operations.replace, list[int]()

    def replace_during_another_message(seen: Any, new: Any) -> None:
        if not nested:
            nested.append(1)
            advance_bulk(world.container, bulk.tenant, bulk.id, message["version"], world.clock.now() + TASK_MS)
        real(seen, new)

    world.container.bulk_operations.replace = replace_during_another_message  # type: ignore[method-assign]
    deliver(world)
    assert len(messages(world)) == 1
    deliver_all(world)

    assert (stored(world, bulk).done, stored(world, bulk).matched) == (len(ids), len(ids))
    jobs = [world.container.jobs.records[job_id] for job_id in ids]
    assert {(job.status, job.run, job.generation) for job in jobs} == {(Status.QUEUED, 2, 2)}


def test_an_operation_that_lost_its_turn_waits_until_an_older_one_ends() -> None:
    """One that was put off comes back to its old place."""
    world = World()
    jobs = failed_jobs(world, 2 * TURN_JOBS)
    running = [requested(world, number, jobs) for number in (2, 3)]
    older = requested(world, 1, jobs[:1])

    assert waiting(world) == [*(bulk.id for bulk in running), older.id]
    deliver(world)
    deliver(world)
    assert [stored(world, bulk).done for bulk in running] == [TURN_JOBS, 0]
    deliver_all(world)

    assert all(stored(world, bulk).finished_at is not None for bulk in (*running, older))


@pytest.mark.parametrize("left", [0, 1])
def test_a_request_asks_for_a_turn_only_if_jobs_are_left(left: int) -> None:
    world = World()
    ids = failed_jobs(world, INLINE_MAX_JOBS + left)
    olga = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash")

    started = start_bulk(world.container, olga, BulkRequest(action=BulkAction.RETRY, ids=tuple(ids)))

    assert (started.bulk.done, len(messages(world))) == (INLINE_MAX_JOBS, left and 1)
    deliver_all(world)
    assert stored(world, started.bulk).done == len(ids)


def test_a_request_whose_message_is_not_sent_succeeds() -> None:
    world = World()
    ids = failed_jobs(world, INLINE_MAX_JOBS + 1)
    olga = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash")

    with refusing(world.container.queues, "send_task"):
        started = start_bulk(world.container, olga, BulkRequest(action=BulkAction.RETRY, ids=tuple(ids)))

    assert started.bulk.done == INLINE_MAX_JOBS
    assert "bulk_operation_not_woken" in {fact for fact, _ in world.log_lines}


def test_an_operation_whose_store_does_not_answer_goes_on_after_some_seconds() -> None:
    world = World()
    bulk = requested(world, 1, failed_jobs(world, 3))

    with refusing(world.container.bulk_operations, "replace"):
        deliver(world)
    assert stored(world, bulk) == bulk
    assert deliver(world) is None
    world.clock.advance(RETRY_SECONDS)
    deliver_all(world)

    assert stored(world, bulk).done == 3


def test_an_operation_that_fails_is_put_off_and_passes_on_its_turn() -> None:
    world = World()
    jobs = failed_jobs(world, 5)
    broken = [requested(world, number, [], filters={"status": "flying"}) for number in range(AT_ONCE)]
    healthy = requested(world, 9, jobs)
    assert waiting(world) == [bulk.id for bulk in broken]

    deliver_all(world)

    assert stored(world, healthy).done == 5
    assert {stored(world, bulk).locked_until for bulk in broken} == {world.clock.now() + ERROR_BACKOFF_MS}
    assert not world.container.bulk_operations.order


def test_an_operation_that_cannot_be_put_off_is_logged() -> None:
    world = World()
    requested(world, 1, failed_jobs(world, 1))

    with refusing(world.container.bulk_operations, "replace", 2, ValueError):
        deliver(world)

    assert [fact for fact, _ in world.log_lines] == ["bulk_operation_failed", "bulk_operation_not_postponed"]


def test_a_turn_that_is_not_passed_on_is_logged() -> None:
    world = World()
    bulk = requested(world, 1, failed_jobs(world, 1))

    with refusing(world.container.bulk_operations, "give_up_turn", error=Throttled):
        deliver(world)

    assert stored(world, bulk).finished_at is not None
    assert "bulk_operation_not_woken" in {fact for fact, _ in world.log_lines}


def test_a_message_for_an_operation_that_is_gone_does_nothing() -> None:
    world = World()

    advance_bulk(world.container, "acme", "bulk_none", 1, world.clock.now() + TASK_MS)

    assert not messages(world)
