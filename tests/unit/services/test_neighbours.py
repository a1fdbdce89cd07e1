"""What another version of the code wrote stops no neighbour: subscribers, recipients, rows, files."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from hashlib import sha256

import pytest

from chalicelib.domain.auth.identity import Caller, Key, Role
from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.domain.streaming.frames import Frame
from chalicelib.services.jobs.list_jobs import Filters, list_jobs
from chalicelib.services.streaming.broadcast_states import SEND_MS, broadcast_states
from tests.kit import deliveries
from tests.kit.provider import Script
from tests.kit.task_runs import parsed_result
from tests.kit.unreadable import make_unreadable
from tests.kit.world import ALICE, World


def events(frames: list[Frame]) -> list[str]:
    return [frame["event"] for frame in frames]


def _refuse(_asked: object) -> None:
    raise UnreadableRecord({"key": "'emperor'"})


def test_an_unreadable_key_gets_no_state_and_stops_no_other_subscriber() -> None:
    world = World()
    job = world.submit()
    world.watch(job, "c1")
    world.watch(job, "c2")
    seen: list[str] = []

    def caller(key_hash: str) -> Caller:
        seen.append(key_hash)
        if len(seen) == 1:
            _refuse(key_hash)
        return ALICE

    vars(world.container)["caller_by_key_hash"] = caller
    ended = replace(job, status=Status.COMPLETED, length=0, finished_at=world.clock.now())
    sent = broadcast_states(world.container, [ended], world.clock.now() + 2 * SEND_MS)

    assert (len(seen), sent) == (2, 1)
    assert sorted(events(world.frames("c1")) + events(world.frames("c2"))) == ["job_completed"]


def test_an_unreadable_key_gets_no_text_and_stops_no_other_subscriber() -> None:
    """The keys of all watchers are read together, and the store leaves out what it cannot read."""
    world = World(Script(deltas=["a", "b"]))
    job = world.submit()
    world.watch(job, "c1")
    [readable] = world.container.subscriptions.for_job(job.id)
    world.container.subscriptions.add(replace(readable, connection_id="c2", key_hash="other"))
    key = Key(id="key_1", hash=readable.key_hash, tenant="acme", user=ALICE.user, role=Role.USER, created_at=1)
    world.container.api_keys.put_key(key)
    world.container.api_keys.key = _refuse  # type: ignore[assignment]
    del vars(world.container)["readers_of"]
    world.deliver()

    assert world.assembled("c1").text == "ab"
    assert world.frames("c2") == []


def test_a_stored_delivery_that_cannot_be_read_stops_no_other_recipient() -> None:
    world = World()
    create, first = world.container.deliveries.create, list[Delivery]()

    def refuse_first(delivery: Delivery) -> Delivery:
        first.append(delivery)
        if len(first) == 1:
            _refuse(delivery)
        return create(delivery)

    world.container.deliveries.create = refuse_first  # type: ignore[method-assign]
    settings = world.container.notification_settings
    settings.put_allowlist("acme", replace(settings.allowlist("acme"), emails=("a@b.example",)))
    deliveries.notify(world, deliveries.ended(world, notify=["email:a@b.example"]))

    assert len(first) == 2
    assert len(world.container.queues.messages["deliveries"]) == 1
    assert [fact for fact, _ in world.log_lines] == ["delivery_not_scheduled"]


def test_an_export_leaves_out_an_unreadable_job() -> None:
    world = World()
    jobs = [world.submit(str(number)) for number in range(3)]
    export = world.submit(None, job_type="export", input={"ids": [job.id for job in jobs]})
    make_unreadable(world.container.jobs, jobs[1].id)

    world.deliver("work", [world.wake(export)])

    assert {name: parsed_result(world, export)[name] for name in ("rows", "not_found")} == {"rows": 2, "not_found": 1}


def test_a_clean_up_leaves_out_an_unreadable_job() -> None:
    world = World()
    jobs = [world.submit(str(number)) for number in range(3)]
    world.deliver()
    cleanup = world.submit(None, job_type="data_cleanup", input={"days": 0}, caller=replace(ALICE, role=Role.OPERATOR))
    make_unreadable(world.container.jobs, jobs[1].id)

    world.deliver("work", [world.wake(cleanup)])

    assert parsed_result(world, cleanup)["deleted"] == 2
    assert set(world.container.jobs.records) == {jobs[1].id, cleanup.id}


def test_a_list_of_unreadable_jobs_ends() -> None:
    """They count towards the records that one page may read."""
    world = World()
    ids = [world.submit(str(number)).id for number in range(250)]
    make_unreadable(world.container.jobs, *ids[:200])

    page = list_jobs(world.container.jobs, world.container.log, ALICE, Filters(), 100, None)

    assert [job.id for job in page.jobs] == sorted(ids[200:], reverse=True)
    assert page.next_cursor is None


def test_a_cursor_does_not_depend_on_filters_that_are_not_set() -> None:
    """A version with one more filter continues the list of this one."""
    world = World()
    for number in range(3):
        world.submit(str(number))
    first = list_jobs(world.container.jobs, world.container.log, ALICE, Filters(), 1, None)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class NewerFilters(Filters):
        of_tomorrow: str | None = None

    second = list_jobs(world.container.jobs, world.container.log, ALICE, NewerFilters(), 1, first.next_cursor)

    assert len(second.jobs) == 1


@pytest.mark.parametrize("filters", [Filters(), Filters(status="queued", tag="x", since=1)])
def test_a_cursor_of_the_version_before_is_accepted_and_made(filters: Filters) -> None:
    """It hashed all of its filters. Clients and bulk operations have its cursors, and it may get those of this version."""
    world = World()
    for number in range(2):
        world.submit(str(number), tags=["x"])
    first = list_jobs(world.container.jobs, world.container.log, ALICE, filters, 1, None)
    names = ["status", "type", "priority", "batch", "user", "tag", "dedupe_key", "model", "error_code", "tenant", "since", "until"]
    query = [{name: getattr(filters, name) for name in names}, ALICE.tenant, ALICE.user]
    old_hash = sha256(json.dumps(query, sort_keys=True).encode()).hexdigest()[:12]
    old = base64.urlsafe_b64encode(json.dumps([old_hash, first.jobs[0].id]).encode()).decode().rstrip("=")

    second = list_jobs(world.container.jobs, world.container.log, ALICE, filters, 1, old)

    assert [job.id for job in second.jobs] != [job.id for job in first.jobs]
    assert first.next_cursor is not None
    assert json.loads(base64.urlsafe_b64decode(first.next_cursor + "=="))[0] == old_hash
