"""Which pause holds a job back, and the records of pauses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from chalicelib.domain.ids import batch_id, job_id_of_row
from chalicelib.domain.limits.pauses import (
    BUCKETS,
    MAX_BATCH_PAUSES,
    MAX_PAUSES,
    MAX_REASON_LENGTH,
    Bucket,
    PauseBoard,
    PauseScope,
    PauseTarget,
    TenantPauses,
    add_pause,
    bucket_of,
    change_tenant,
    find_pause,
    line_pause,
    note_on_board,
    parse_scope,
    pause_id,
    pause_of,
    remove_pause,
    target_of,
)
from tests.kit.records import NOW, job, pause

BATCH = batch_id("01J00000000000000000000000")
TARGET = PauseTarget(job_id_of_row(BATCH, 70_000), "acme", "export", "low")


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (PauseScope(), "all"),
        (PauseScope(tenant="acme"), "tenant:acme"),
        (PauseScope(type="export"), "type:export"),
        (PauseScope(tenant="acme", type="export"), "type:export"),
        (PauseScope(lane="low"), "lane:low"),
        (PauseScope(tenant="acme", type="export", lane="low"), "queue:export:low"),
        (PauseScope(tenant="acme", batch=BATCH), f"batch:{BATCH}"),
    ],
)
def test_a_scope_that_names_a_job_covers_it_and_is_its_cause(scope: PauseScope, text: str) -> None:
    assert scope.covers(TARGET)
    assert (scope.text, scope.cause) == (text, f"pause:{text}")


@pytest.mark.parametrize(
    "scope",
    [
        PauseScope(tenant="other"),
        PauseScope(type="general"),
        PauseScope(lane="high"),
        PauseScope(tenant="other", type="export", lane="low"),
        PauseScope(type="export", lane="high"),
        PauseScope(batch=batch_id("01J00000000000000000010000")),
    ],
)
def test_a_scope_that_differs_in_one_field_does_not_cover_a_job(scope: PauseScope) -> None:
    assert not scope.covers(TARGET)


def test_the_target_of_a_job_is_its_own() -> None:
    made = job(type="export", lane="low")

    assert target_of(made) == (made.id, "acme", "export", "low")


def test_a_job_without_a_pause_may_start() -> None:
    assert pause_of(TARGET, [], NOW) is None
    assert pause_of(TARGET, [pause(PauseScope(type="general"))], NOW) is None


def test_a_pause_holds_until_its_end_and_no_longer() -> None:
    short = pause(until=NOW + 10)

    assert pause_of(TARGET, [short], NOW + 9) == short
    assert pause_of(TARGET, [short], NOW + 10) is None


def test_of_several_pauses_the_one_that_ends_last_counts_and_then_the_widest() -> None:
    """So the job does not stand in one line after the other."""
    endless, everything = pause(PauseScope(tenant="acme", lane="low")), pause(PauseScope(), until=NOW + 99)
    narrow, wide = pause(PauseScope(tenant="acme", type="export", lane="low")), pause(PauseScope(), by_stage=True)

    assert pause_of(TARGET, [everything, endless], NOW) == endless
    assert pause_of(TARGET, [replace(endless, until=NOW + 98), everything], NOW) == everything
    for order in ([narrow, endless, wide], [wide, endless, narrow]):
        assert pause_of(TARGET, order, NOW) == wide


def test_each_scope_and_kind_of_author_has_an_id_of_its_own() -> None:
    scopes = [
        PauseScope(),
        PauseScope(tenant="a"),
        PauseScope(tenant="b"),
        PauseScope(type="a"),
        PauseScope(tenant="a", type="a"),
        PauseScope(tenant="a", lane="a"),
        PauseScope(tenant="a", type="a", lane="a"),
    ]
    ids = {pause_id(scope, by_stage=by_stage) for scope in scopes for by_stage in (True, False)}

    assert len(ids) == 2 * len(scopes)
    assert pause_id(scopes[0], by_stage=True) in ids


def test_a_pause_takes_the_place_of_the_one_with_its_id() -> None:
    first, other = pause(), pause(PauseScope(tenant="acme"))
    again = replace(first, reason="again")

    assert add_pause((first, other), again, NOW) == (other, again)
    assert find_pause((other, again), first.id, NOW) == again
    assert remove_pause((other, again), first.id, NOW) == (other,)


def test_pauses_that_are_over_are_dropped_and_not_found() -> None:
    over = pause(PauseScope(tenant="acme"), until=NOW)

    assert add_pause((over,), pause(), NOW) == (pause(),)
    assert remove_pause((over, pause()), "none", NOW) == (pause(),)
    assert find_pause((over,), over.id, NOW) is None


@pytest.mark.parametrize(("field", "limit"), [("type", MAX_PAUSES), ("batch", MAX_BATCH_PAUSES)])
def test_a_tenant_has_a_bounded_number_of_pauses_each_kind_for_itself(field: str, limit: int) -> None:
    """The largest record is read by workers every two seconds, so its size is bounded too."""
    pauses: tuple = ()
    for number in range(limit):
        scope = PauseScope(**{"tenant": "acme", field: f"{number:0>40}"})
        added = add_pause(pauses, pause(scope, id=pause_id(scope, by_stage=False), reason="\U0001f600" * MAX_REASON_LENGTH), NOW)
        assert added is not None
        pauses = added

    assert add_pause(pauses, pause(PauseScope(**{"tenant": "acme", field: "one more"})), NOW) is None
    assert add_pause(pauses, replace(pauses[0], reason="again"), NOW) is not None
    by_stage = pause(PauseScope(**{"tenant": "acme", field: "one more"}), by_stage=True)
    assert add_pause(pauses, by_stage, NOW) == (*pauses, by_stage)  # a tenant cannot keep its operator from pausing it
    other = {"type": "batch", "batch": "type"}[field]
    assert add_pause(pauses, pause(PauseScope(**{"tenant": "acme", other: "x"})), NOW) is not None
    assert len(json.dumps([asdict(one) for one in pauses], ensure_ascii=False).encode()) < 32_000


def record(*pauses: object, tenant: str = "acme") -> TenantPauses:
    return TenantPauses(tenant=tenant, pauses=pauses, version=1)  # type: ignore[arg-type]


def test_the_board_knows_whether_a_tenant_may_have_pauses() -> None:
    empty, paused = record(), record(pause())
    board = note_on_board(PauseBoard(), empty, paused, NOW)

    assert board.may_concern("acme", NOW)
    assert not PauseBoard().may_concern("acme", NOW)
    assert not note_on_board(board, paused, change_tenant(paused, ()), NOW).may_concern("acme", NOW)


def test_a_tenant_in_the_bucket_of_another_keeps_its_pause_when_that_one_resumes() -> None:
    twin = next(name for number in range(10_000) if bucket_of(name := f"t{number}") == bucket_of("acme"))
    mine, theirs = record(pause()), record(pause(), tenant=twin)
    board = note_on_board(note_on_board(PauseBoard(), record(), mine, NOW), record(tenant=twin), theirs, NOW)

    board = note_on_board(board, theirs, record(tenant=twin), NOW)

    assert board.may_concern("acme", NOW)


def test_a_second_pause_of_a_tenant_counts_it_once() -> None:
    one, two = record(pause()), record(pause(), pause(PauseScope(tenant="acme")))
    board = note_on_board(note_on_board(PauseBoard(), record(), one, NOW), one, two, NOW)

    assert board.buckets[bucket_of("acme")].endless == 1
    board = note_on_board(note_on_board(board, two, one, NOW), one, record(), NOW)
    assert board.buckets == {}


def test_a_pause_with_an_end_leaves_the_board_by_itself() -> None:
    board = note_on_board(PauseBoard(), record(), record(pause(until=NOW + 10)), NOW)

    assert board.may_concern("acme", NOW + 9)
    assert not board.may_concern("acme", NOW + 10)
    later = note_on_board(board, record(tenant="b"), record(tenant="b"), NOW + 10)
    assert later.buckets == {}


def test_the_board_stays_small_whatever_tenants_do() -> None:
    board = PauseBoard()
    for number in range(3_000):
        name = f"tenant-{number}"
        board = note_on_board(board, record(tenant=name), record(pause(), pause(until=NOW + 9), tenant=name), NOW)

    assert len(board.buckets) == BUCKETS
    assert sum(bucket.endless for bucket in board.buckets.values()) == 3_000
    assert len(json.dumps(board.buckets)) < 2_000
    assert isinstance(next(iter(board.buckets.values())), Bucket)


@pytest.mark.parametrize(
    "scope",
    [
        PauseScope(),
        PauseScope(tenant="ac:me"),
        PauseScope(type="export"),
        PauseScope(lane="low"),
        PauseScope(type="export", lane="low"),
        PauseScope(batch=BATCH),
    ],
)
def test_the_text_of_a_scope_is_read_again(scope: PauseScope) -> None:
    assert parse_scope(scope.text) == scope


@pytest.mark.parametrize("text", ["", "all:", "everything", "tenant", "type", "queue:export", "model:gpt-4o"])
def test_a_text_that_is_no_scope_is_none(text: str) -> None:
    """A newer version of the code may have written it: its lines stay closed."""
    assert parse_scope(text) is None


def test_a_line_is_held_by_its_own_pause_and_by_wider_ones_only() -> None:
    line = "queue:export:low"
    wider = [
        PauseScope(),
        PauseScope(tenant="acme"),
        PauseScope(type="export"),
        PauseScope(lane="low"),
        PauseScope(type="export", lane="low"),
    ]
    other = [PauseScope(tenant="other"), PauseScope(type="general"), PauseScope(lane="high"), PauseScope(batch=BATCH)]

    assert [line_pause(line, "acme", [pause(scope)], NOW) is not None for scope in wider] == [True] * len(wider)
    assert [line_pause(line, "acme", [pause(scope)], NOW) for scope in other] == [None] * len(other)
    assert line_pause(line, "acme", [pause(PauseScope(), until=NOW)], NOW) is None
    first, last = pause(PauseScope(), until=NOW + 5), pause(PauseScope(lane="low"), until=NOW + 9)
    assert line_pause(line, "acme", [last, first], NOW) == last
