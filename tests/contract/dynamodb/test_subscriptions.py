"""Subscriptions, and the version that tells a worker to reload them, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.domain.streaming.subscriptions import JobControl, Subscription
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id

HOUR = 3_600_000


def subscription(job_id: str, connection_id: str = "a") -> Subscription:
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


def test_each_connection_has_one_subscription_per_job(stores: Any) -> None:
    """Subscribing again replaces the row."""
    job_id = new_id()
    stores.subscriptions.add(subscription(job_id, "b="))
    stores.subscriptions.add(subscription(job_id, "a"))
    again = replace(subscription(job_id, "a"), attempt=2, offset=7, subscription_id="s2")
    stores.subscriptions.add(again)

    assert stores.subscriptions.for_job(job_id) == [again, subscription(job_id, "b=")]
    assert stores.subscriptions.for_job(new_id()) == []


def test_the_same_subscription_is_not_repeated_within_seconds(stores: Any) -> None:
    """It neither replaces the row nor changes the version; another position does."""
    job_id = new_id()
    first = replace(subscription(job_id), at=NOW)
    assert stores.subscriptions.add(first, 5_000)
    before = control(stores, job_id)

    assert not stores.subscriptions.add(replace(first, at=NOW + 4_999, subscription_id="s2"), 5_000)
    assert (stores.subscriptions.for_job(job_id), control(stores, job_id)) == ([first], before)
    elsewhere = replace(first, at=NOW + 4_999, offset=7, subscription_id="s3")
    assert stores.subscriptions.add(elsewhere, 5_000)
    later = replace(elsewhere, at=NOW + 9_999, subscription_id="s4")
    assert stores.subscriptions.add(later, 5_000)
    assert stores.subscriptions.for_job(job_id) == [later]
    assert control(stores, job_id) != before


def test_adding_a_subscription_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    given = replace(subscription(new_id()), at=NOW)

    with lose_response("PutItem"):
        assert stores.subscriptions.add(given, 5_000)

    assert control(stores, given.job_id).subscribers_version


def test_subscriptions_of_a_job_are_counted_up_to_a_limit(stores: Any) -> None:
    job_id = new_id()
    for number in range(7):
        stores.subscriptions.add(subscription(job_id, f"c{number}"))
    stores.subscriptions.request_cancel(job_id, 3, NOW // 1000 + 9)

    assert [stores.subscriptions.count(job_id, limit) for limit in (5, 7, 100)] == [5, 7, 7]
    assert stores.subscriptions.count(new_id(), 100) == 0


def test_subscribers_version_changes_with_every_subscription_change(stores: Any) -> None:
    """A worker that compares the versions misses no change."""
    job_id = new_id()
    versions = [control(stores, job_id).subscribers_version]
    for change in (
        lambda: stores.subscriptions.add(subscription(job_id, "a")),
        lambda: stores.subscriptions.add(subscription(job_id, "a")),
        lambda: stores.subscriptions.remove(job_id, "a"),
    ):
        change()
        versions.append(control(stores, job_id).subscribers_version)

    assert len(set(versions)) == 4
    assert stores.subscriptions.for_job(job_id) == []


def test_the_subscription_of_a_closed_connection_is_removed_without_telling_the_worker(stores: Any) -> None:
    job_id = new_id()
    stores.subscriptions.add(subscription(job_id))
    before = control(stores, job_id)

    for _ in range(2):
        stores.subscriptions.remove_closed(job_id, "a")

    assert (stores.subscriptions.for_job(job_id), control(stores, job_id)) == ([], before)


def test_removing_an_unknown_subscription_changes_nothing(stores: Any) -> None:
    job_id = new_id()

    stores.subscriptions.remove(job_id, "unknown")

    assert stores.subscriptions.controls([job_id]) == {}


def test_job_controls_are_set_independently(stores: Any) -> None:
    """Cancel requests, readers and subscriptions must not overwrite each other."""
    job_id = new_id()
    stores.subscriptions.request_cancel(job_id, 3, NOW // 1000 + 9)
    stores.subscriptions.request_cancel(job_id, 3, NOW // 1000 + 9)
    stores.subscriptions.announce_reader(job_id, NOW + 5_000)
    stores.subscriptions.announce_reader(job_id, NOW + 4_000)
    stores.subscriptions.add(subscription(job_id))

    found = control(stores, job_id)

    assert (found.cancel, found.read_until, bool(found.subscribers_version)) == (3, NOW + 4_000, True)


def test_controls_of_many_jobs_are_read_together(stores: Any) -> None:
    """More ids than one request takes, some without controls, one of them twice."""
    jobs = [new_id() for _ in range(130)]
    for job_id in jobs[::2]:
        stores.subscriptions.announce_reader(job_id, NOW)

    found = stores.subscriptions.controls([*jobs, jobs[0]])

    assert found == {job_id: JobControl(read_until=NOW) for job_id in jobs[::2]}
    assert stores.subscriptions.controls([]) == {}


def test_consistent_controls_show_which_jobs_were_ever_subscribed_to(stores: Any) -> None:
    """One request tells jobs that nobody watches from those whose subscriptions must be read."""
    watched, cancelled, ended, never = (new_id() for _ in range(4))
    stores.subscriptions.add(subscription(watched))
    stores.subscriptions.request_cancel(cancelled, 1, NOW // 1000 + 86_400)
    stores.subscriptions.add(subscription(ended))
    stores.subscriptions.remove(ended, subscription(ended).connection_id)

    found = stores.subscriptions.controls([watched, cancelled, ended, never], consistent=True)

    assert {job_id for job_id, control in found.items() if control.subscribers_version} == {watched, ended}
