"""Allowed and refused transitions of a job record, and invariants for any sequence of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.jobs.job import TERMINAL, Job, Status, Usage
from chalicelib.domain.jobs.transitions import (
    MAX_ISOLATED_CRASHES,
    AttemptOutcome,
    cancel,
    claim,
    expire,
    finish,
    hand_over,
    hold,
    hold_after_attempt,
    lease_of,
    owns,
    postpone,
    reclaim,
    restart,
    retry_later,
    store_response_id,
)
from tests.kit.jobs import ERROR, HOUR, NOW, job

DAY_S = 86_400
OWNER = "lease-1#a"
CLAIMED = claim(job(), 1, OWNER, NOW)
assert CLAIMED is not None
DONE = AttemptOutcome(status=Status.COMPLETED, length=12, usage=Usage(input=3, output=4), cost=500, first_token_at=NOW + 900)
BROKEN = AttemptOutcome(status=Status.FAILED, length=7, cost=200, error=ERROR)


def _claimed(**changes: object) -> Job:
    return job(**{"status": Status.PROCESSING, "owner": OWNER, "attempt": 1, "tries": 1, "version": 2, **changes})


def test_claim_sets_the_owner_and_starts_a_new_attempt() -> None:
    """The fields of the previous attempt are cleared."""
    before = job(attempt=2, tries=1, length=40, first_token_at=NOW - 1, reason="stream_cut", status=Status.RETRYING)

    after = claim(before, 1, OWNER, NOW)

    assert after is not None
    assert (after.status, after.owner, after.attempt, after.tries) == (Status.PROCESSING, OWNER, 3, 2)
    assert (after.length, after.first_token_at, after.reason) == (None, None, None)
    assert (after.version, after.generation, after.started_at) == (before.version + 1, before.generation, NOW)


@pytest.mark.parametrize(
    ("before", "generation"),
    [
        (job(), 2),  # a wake-up of a later generation
        (job(generation=2), 1),  # an outdated wake-up
        (_claimed(owner="lease-2#b"), 1),  # a duplicate: another worker owns the job
        (job(status=Status.HELD), 1),
        (job(status=Status.WAITING), 1),
        *((job(status=status), 1) for status in TERMINAL),
    ],
)
def test_claim_is_refused_for_a_wrong_generation_owner_or_status(before: Job, generation: int) -> None:
    assert claim(before, generation, OWNER, NOW) is None


def test_repeated_claim_by_the_same_owner_changes_nothing() -> None:
    """The response to the first claim was lost; the attempt counts once."""
    assert CLAIMED is not None
    assert claim(CLAIMED, 1, OWNER, NOW + 5) is CLAIMED


@pytest.mark.parametrize(
    ("before", "status"),
    [
        (job(expires_at=NOW), Status.EXPIRED),  # the expiry itself is too late
        (job(expires_at=NOW + 1), Status.PROCESSING),
        (job(expires_at=NOW - 1, started_at=NOW - 9, attempt=1, status=Status.RETRYING), Status.PROCESSING),  # it started in time
    ],
)
def test_claim_of_an_expired_job_ends_the_job(before: Job, status: Status) -> None:
    """A job with an earlier attempt no longer expires."""
    after = claim(before, 1, OWNER, NOW)

    assert after is not None
    assert after.status is status


def test_finish_records_the_outcome_and_clears_the_due_time() -> None:
    after = finish(_claimed(), 1, OWNER, DONE, NOW + 9_000)

    assert after is not None
    assert (after.status, after.length, after.usage, after.cost) == (Status.COMPLETED, 12, DONE.usage, 500)
    assert (after.finished_at, after.due_at, after.first_token_at) == (NOW + 9_000, None, NOW + 900)
    assert after.owner == OWNER


@pytest.mark.parametrize(
    ("status", "days"),
    [(Status.COMPLETED, 30), (Status.INCOMPLETE, 30), (Status.FAILED, 7), (Status.CANCELLED, 7), (Status.EXPIRED, 7)],
)
def test_retention_depends_on_the_terminal_status(status: Status, days: int) -> None:
    """Jobs with a response are kept for 30 days, all others for 7."""
    after = finish(_claimed(), 1, OWNER, AttemptOutcome(status=status, length=0), NOW)

    assert after is not None
    assert after.ttl == NOW // 1000 + days * DAY_S


@pytest.mark.parametrize(
    ("before", "owner"),
    [
        (_claimed(generation=2), OWNER),  # requeued in the meantime
        (_claimed(owner="lease-2#b"), OWNER),
        (job(status=Status.RETRYING, owner=OWNER), OWNER),
        (job(status=Status.CANCELLED, owner="lease-2#b"), OWNER),
    ],
)
def test_fenced_worker_cannot_finish_or_retry_the_job(before: Job, owner: str) -> None:
    assert not owns(before, 1, owner)
    assert finish(before, 1, owner, DONE, NOW) is None
    assert retry_later(before, 1, owner, BROKEN, NOW + 2_000, NOW) is None


def test_repeated_finish_changes_nothing() -> None:
    """The response to the first write was lost; the cost counts once."""
    after = finish(_claimed(), 1, OWNER, DONE, NOW)

    assert after is not None
    assert finish(after, 1, OWNER, DONE, NOW + 5) is after


@pytest.mark.parametrize("outcome", [DONE, BROKEN, AttemptOutcome(status=Status.INCOMPLETE, length=1, incomplete_reason="max_tokens")])
def test_earlier_cancel_request_overrides_the_outcome(outcome: AttemptOutcome) -> None:
    """The text and the cost of the attempt are kept."""
    flagged = cancel(_claimed(), NOW)
    assert flagged is not None

    for after in (finish(flagged, 1, OWNER, outcome, NOW), retry_later(flagged, 1, OWNER, outcome, NOW + 2_000, NOW)):
        assert after is not None
        assert (after.status, after.length, after.cost) == (Status.CANCELLED, outcome.length, outcome.cost)
        assert (after.error, after.incomplete_reason) == (None, None)


def test_incomplete_outcome_records_its_reason() -> None:
    cut = finish(_claimed(), 1, OWNER, AttemptOutcome(status=Status.INCOMPLETE, length=1, incomplete_reason="max_tokens"), NOW)

    assert cut is not None
    assert cut.incomplete_reason == "max_tokens"


def test_retry_later_requeues_with_a_new_generation() -> None:
    """`length` marks where readers of the failed attempt must stop."""
    after = retry_later(_claimed(cost=100, response_id="resp_1"), 1, OWNER, BROKEN, NOW + 2_000, NOW)

    assert after is not None
    assert (after.status, after.generation, after.due_at) == (Status.RETRYING, 2, NOW + 122_000)
    assert (after.length, after.error, after.reason, after.cost) == (7, ERROR, "stream_cut", 300)
    assert (after.attempt, after.tries, after.response_id) == (1, 1, None)
    assert retry_later(after, 1, OWNER, BROKEN, NOW + 9_000, NOW) is after


@pytest.mark.parametrize("status", [Status.QUEUED, Status.WAITING, Status.RETRYING, Status.HELD])
def test_cancel_of_an_idle_job_takes_effect_at_once(status: Status) -> None:
    """The text of an earlier attempt keeps its length."""
    after = cancel(job(status=status, length=9), NOW)

    assert after is not None
    assert (after.status, after.length, after.finished_at, after.due_at) == (Status.CANCELLED, 9, NOW, None)


def test_cancel_of_a_processing_job_sets_a_flag_once() -> None:
    """The owner of the job obeys the flag."""
    after = cancel(_claimed(), NOW)

    assert after is not None
    assert (after.status, after.cancel_requested) == (Status.PROCESSING, True)
    assert cancel(after, NOW + 5) is after


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_terminal_job_is_neither_cancelled_nor_claimed(status: Status) -> None:
    """Only a manual retry opens another run."""
    assert cancel(job(status=status), NOW) is None
    assert claim(job(status=status), 1, OWNER, NOW) is None


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.INCOMPLETE])
def test_restart_opens_a_new_run_and_keeps_attempt_numbers_and_cost(status: Status) -> None:
    """The new run may use all its attempts."""
    before = job(
        status=status,
        attempt=3,
        tries=3,
        crashes=1,
        cancel_requested=True,
        error=ERROR,
        cost=700,
        ttl=NOW // 1000 + 60,
        finished_at=NOW - 1,
        reason="x",
        incomplete_reason="max_tokens",
    )

    after = restart(before, NOW, HOUR, 2 * HOUR)

    assert after is not None
    assert (after.status, after.run, after.generation) == (Status.QUEUED, 2, 2)
    assert (after.attempt, after.tries, after.crashes, after.cost) == (3, 0, 0, 700)
    assert (after.cancel_requested, after.error, after.reason, after.incomplete_reason) == (False, None, None, None)
    assert (after.expires_at, after.retry_until, after.ttl, after.finished_at) == (NOW + HOUR, NOW + 2 * HOUR, None, None)
    assert after.due_at is not None


def test_restart_of_a_retrying_job_keeps_the_run() -> None:
    """The next attempt starts at once, and the reason for the wait is cleared."""
    after = restart(job(status=Status.RETRYING, tries=1, attempt=1, due_at=NOW + HOUR, reason="stream_cut"), NOW, HOUR, HOUR)

    assert after is not None
    assert (after.status, after.run, after.tries, after.generation) == (Status.QUEUED, 1, 1, 2)
    assert (after.queued_at, after.reason) == (NOW, None)
    assert after.due_at is not None
    assert after.due_at < NOW + HOUR


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.QUEUED, Status.PROCESSING, Status.HELD, Status.WAITING])
def test_restart_is_refused_for_a_completed_or_unfinished_job(status: Status) -> None:
    assert restart(job(status=status), NOW, HOUR, HOUR) is None


TRANSITIONS: list[Callable[[Job, int], Job | None]] = [
    lambda record, now: claim(record, record.generation, f"lease-{now % 3}#x", now),
    lambda record, now: finish(record, record.generation, record.owner or "", DONE, now),
    lambda record, now: retry_later(record, record.generation, record.owner or "", BROKEN, now + 2_000, now),
    lambda record, now: hold(record, record.generation, "circuit_open", now + 30_000, now),
    lambda record, now: hold_after_attempt(record, record.generation, record.owner or "", BROKEN, "circuit_open", now + 30_000, now),
    cancel,
    lambda record, now: restart(record, now, HOUR, HOUR),
    lambda record, now: postpone(record, now + HOUR, now),
    lambda record, now: None if record.status.is_terminal or record.status is Status.PROCESSING else expire(record, now),
]


def test_postpone_never_moves_the_due_time_earlier() -> None:
    """A terminal job cannot be postponed."""
    queued = job()
    later = postpone(queued, (queued.due_at or 0) + 5, 7)

    assert later == replace(queued, due_at=(queued.due_at or 0) + 5, version=queued.version + 1, updated_at=7)
    assert postpone(queued, (queued.due_at or 0) - 5, 7) is queued
    assert postpone(expire(queued, 7), 10**15, 7) is None


@given(steps=st.lists(st.tuples(st.sampled_from(TRANSITIONS), st.integers(1, 2 * HOUR)), max_size=40))
def test_invariants_hold_for_any_sequence_of_transitions(steps: list[tuple[Callable[[Job, int], Job | None], int]]) -> None:
    """Numbers and costs only grow; an unfinished job has a due time, an ended one a TTL."""
    record, now = job(), NOW
    for transition, later in steps:
        now += later
        after = transition(record, now)
        if after is None or after is record:
            continue
        assert after.version == record.version + 1
        assert after.updated_at == now
        assert (after.generation, after.attempt, after.run) >= (record.generation, record.attempt, record.run)
        assert after.attempt - record.attempt == (after.status is Status.PROCESSING and record.status is not Status.PROCESSING)
        assert (after.cost or 0) >= (record.cost or 0)
        if record.status.is_terminal:
            assert (after.status, after.run) == (Status.QUEUED, record.run + 1)
        assert (after.due_at is None) == after.status.is_terminal
        assert (after.ttl is None) == (not after.status.is_terminal)
        if after.status.is_terminal:
            assert after.length is not None
        record = after


SLOT = ("t:acme#0",)
WITH_SLOTS: list[Callable[[Job, int], Job | None]] = [
    *TRANSITIONS,
    lambda record, now: claim(record, record.generation, f"lease-{now % 3}#x", now, slots=SLOT),
    lambda record, now: store_response_id(record, record.generation, record.owner or "", f"resp_{now}", now),
    lambda record, now: hand_over(record, record.generation, record.owner or "", now),
    lambda record, now: reclaim(record, lease_of(record), 5, 100, now),
]


@given(steps=st.lists(st.tuples(st.sampled_from(WITH_SLOTS), st.integers(1, 2 * HOUR)), max_size=40))
def test_slots_are_taken_by_a_claim_only_and_kept_only_by_a_running_attempt(
    steps: list[tuple[Callable[[Job, int], Job | None], int]],
) -> None:
    """Whatever happens in whatever order."""
    record, now = job(), NOW
    for transition, later in steps:
        now += later
        after = transition(record, now) or record
        if set(after.slots) - set(record.slots):
            assert after.status is Status.PROCESSING
            assert record.status is not Status.PROCESSING
        if after.status.is_terminal or (after.status is not Status.PROCESSING and not after.is_resumable):
            assert after.slots == ()
        elif record.slots:
            assert after.slots == record.slots
        record = after


DURABLE = _claimed(response_id="resp_1", response_at=NOW)


def test_response_id_is_stored_once_and_only_by_the_owner() -> None:
    """With a stored response id the attempt can outlive its worker."""
    stored = store_response_id(_claimed(), 1, OWNER, "resp_1", NOW)

    assert stored is not None
    assert (stored.response_id, stored.response_at, stored.is_resumable, stored.version) == ("resp_1", NOW, True, 3)
    assert store_response_id(stored, 1, OWNER, "resp_1", NOW + 1) is stored
    assert store_response_id(_claimed(owner="lease-2#b"), 1, OWNER, "resp_1", NOW) is None


def test_hand_over_continues_the_same_attempt() -> None:
    """The next claim adds no attempt and no try, and the text may still grow."""
    handed_over = hand_over(DURABLE, 1, OWNER, NOW)
    assert handed_over is not None

    assert (handed_over.status, handed_over.generation, handed_over.reason, handed_over.length) == (Status.QUEUED, 2, "handed_over", None)
    assert hand_over(handed_over, 1, OWNER, NOW) is handed_over  # the first response was lost
    claimed = claim(handed_over, 2, "lease-2#b", NOW)
    assert claimed is not None
    assert (claimed.attempt, claimed.tries, claimed.response_id) == (1, 1, "resp_1")


@pytest.mark.parametrize(
    "before",
    [
        _claimed(),  # without a response there is nothing to hand over
        _claimed(owner="lease-2#b", response_id="resp_1"),
        job(generation=2, response_id="resp_1", owner="lease-2#b"),
        job(status=Status.COMPLETED, owner=OWNER, generation=2, response_id="resp_1"),
    ],
)
def test_hand_over_requires_a_response_id_and_ownership(before: Job) -> None:
    assert hand_over(before, 1, OWNER, NOW) is None


def test_durable_attempt_keeps_its_slots_between_two_workers_and_gives_them_back_at_its_end() -> None:
    """Its response goes on meanwhile. The next claim takes no second slot."""
    started = replace(DURABLE, slots=("t:acme#0",))
    between = hand_over(started, 1, OWNER, NOW)
    reclaimed = reclaim(started, "lease-1", 5, 100, NOW)
    assert between is not None
    assert reclaimed is not None
    resumed = claim(between, 2, "lease-2#b", NOW, slots=("t:acme#0", "u:acme#ann#0"))
    assert resumed is not None
    ended = finish(resumed, 2, "lease-2#b", DONE, NOW)
    assert ended is not None

    assert [each.slots for each in (between, reclaimed, resumed)] == [("t:acme#0",)] * 3
    assert ended.slots == ()


def test_reclaim_keeps_the_response_of_a_dead_worker() -> None:
    """Only the crash is counted; a job that crashed too often fails and keeps text and cost."""
    after = reclaim(DURABLE, "lease-1", 5, 100, NOW)
    assert after is not None
    assert (after.status, after.attempt, after.tries, after.crashes, after.length, after.cost) == (Status.QUEUED, 1, 1, 1, None, None)

    poison = reclaim(_claimed(response_id="resp_1", run_alone=True, isolated_crashes=MAX_ISOLATED_CRASHES - 1), "lease-1", 5, 100, NOW)
    assert poison is not None
    assert (poison.status, poison.length, poison.cost) == (Status.FAILED, 5, 100)


def test_cancel_of_a_handed_over_job_sets_a_flag_for_the_next_worker() -> None:
    """The next worker must stop the response at the provider."""
    between = job(generation=2, attempt=1, response_id="resp_1")

    flagged = cancel(between, NOW)

    assert flagged is not None
    assert (flagged.status, flagged.cancel_requested) == (Status.QUEUED, True)
    assert cancel(flagged, NOW) is flagged


def test_new_attempt_starts_without_the_response_of_the_last() -> None:
    """An attempt that does not count gives its try back."""
    again = retry_later(DURABLE, 1, OWNER, BROKEN, NOW, NOW, counts_as_attempt=False)
    assert again is not None
    assert (again.response_id, again.response_at, again.tries, again.is_resumable) == (None, None, 0, False)

    ended = finish(DURABLE, 1, OWNER, BROKEN, NOW)
    assert ended is not None
    assert not ended.is_resumable
    fresh = restart(ended, NOW, HOUR, HOUR)
    assert fresh is not None
    assert (fresh.response_id, fresh.response_at) == (None, None)
