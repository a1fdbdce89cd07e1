"""Subscriptions, and the version that tells a worker to reload them, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.domain.streaming.subscriptions import JobControl, Subscription
from tests.contract.given import NOW, new_id

HOUR = 3_600_000


def watcher(job_id: str, connection_id: str = "a") -> Subscription:
    return Subscription(
        job_id=job_id,
        connection_id=connection_id,
        endpoint="https://example.test/api",
        key_hash="hash",
        attempt=0,
        offset=0,
        subscription_id="s1",
        expires_at=NOW + HOUR,
    )


def control(stores: Any, job_id: str) -> JobControl:
    found: JobControl = stores.subscriptions.controls([job_id]).get(job_id, JobControl())
    return found


def test_everybody_who_watches(stores: Any) -> None:
    """One row for each connection; subscribing anew replaces it."""
    job_id = new_id()
    stores.subscriptions.add(watcher(job_id, "b="))
    stores.subscriptions.add(watcher(job_id, "a"))
    again = replace(watcher(job_id, "a"), attempt=2, offset=7, subscription_id="s2")
    stores.subscriptions.add(again)

    assert stores.subscriptions.for_job(job_id) == [again, watcher(job_id, "b=")]
    assert stores.subscriptions.for_job(new_id()) == []


def test_the_bell_rings_whenever_the_watchers_change(stores: Any) -> None:
    """Each change leaves another value, so a worker that compares never misses one."""
    job_id = new_id()
    bells = [control(stores, job_id).subscribers_version]
    for change in (
        lambda: stores.subscriptions.add(watcher(job_id, "a")),
        lambda: stores.subscriptions.add(watcher(job_id, "a")),
        lambda: stores.subscriptions.remove(job_id, "a"),
    ):
        change()
        bells.append(control(stores, job_id).subscribers_version)

    assert len(set(bells)) == 4
    assert stores.subscriptions.for_job(job_id) == []


def test_removing_nobody(stores: Any) -> None:
    """A connection that did not watch is no error, and rings nothing."""
    job_id = new_id()

    stores.subscriptions.remove(job_id, "nobody")

    assert stores.subscriptions.controls([job_id]) == {}


def test_each_control_is_set_on_its_own(stores: Any) -> None:
    """Asking to cancel, reading and subscribing do not undo each other, in any order."""
    job_id = new_id()
    stores.subscriptions.request_cancel(job_id, 3, NOW // 1000 + 9)
    stores.subscriptions.request_cancel(job_id, 3, NOW // 1000 + 9)
    stores.subscriptions.announce_reader(job_id, NOW + 5_000)
    stores.subscriptions.announce_reader(job_id, NOW + 4_000)
    stores.subscriptions.add(watcher(job_id))

    found = control(stores, job_id)

    assert (found.cancel, found.read_until, bool(found.subscribers_version)) == (3, NOW + 4_000, True)


def test_the_controls_of_many_jobs(stores: Any) -> None:
    """More than one request's worth, some without, one asked for twice."""
    jobs = [new_id() for _ in range(130)]
    for job_id in jobs[::2]:
        stores.subscriptions.announce_reader(job_id, NOW)

    found = stores.subscriptions.controls([*jobs, jobs[0]])

    assert found == {job_id: JobControl(read_until=NOW) for job_id in jobs[::2]}
    assert stores.subscriptions.controls([]) == {}
