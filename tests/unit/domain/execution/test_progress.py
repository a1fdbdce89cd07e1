"""Progress: stages, milestones and figures of a text that arrives in any pieces."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.execution.progress import MAX_MILESTONES, ProgressTracker
from chalicelib.domain.jobs.job_type import JobType, Marker
from chalicelib.domain.metrics.throughput import UNMEASURED, Percentiles, Throughput

AT = 1_800_000_000_000
TYPE = JobType(
    name="t",
    title="T",
    description="",
    instructions="",
    stages=("setup", "reading", "scan", "validation", "finalization"),
    streaming_stage="reading",
    markers=(
        Marker(pattern=re.compile("scan:"), stage="scan"),
        Marker(pattern=re.compile(r"(?P<level>high|low) risk"), milestone="{level} risk", description="A {level} one", once=False),
        Marker(pattern=re.compile("risk"), milestone="any risk", once=True),
        Marker(pattern=re.compile("aa"), milestone="aa"),
    ),
)
TEXT = "intro scan: high risk, then low risk aaaaa high riskhigh risk scan: end"


def _names(events: list[dict[str, Any]]) -> list[str]:
    return [f"{event['kind']} {event['name']} {event.get('status', '')}".strip() for event in events]


def _fed(parts: list[str]) -> list[str]:
    tracker = ProgressTracker(TYPE, 100)
    return _names([event for part in parts for event in tracker.feed(part, AT)])


def test_stages_follow_claim_text_markers_and_worker_calls() -> None:
    tracker = ProgressTracker(TYPE, 100)

    assert _names(tracker.begin(AT)) == ["stage setup processing"]
    assert _names(tracker.feed("", AT)) == []
    assert _names(tracker.feed("in", AT + 500)) == ["stage setup completed", "stage reading processing"]
    assert _names(tracker.feed("tro sc", AT + 600)) == []
    assert _names(tracker.feed("an: high risk", AT + 700)) == [
        "stage reading completed",
        "stage scan processing",
        "milestone high risk",
        "milestone any risk",
    ]
    assert _names(tracker.start_stage("validation", AT + 800)) == ["stage scan completed", "stage validation processing"]
    assert _names(tracker.start_stage("finalization", AT + 900)) == ["stage validation completed", "stage finalization processing"]
    assert _names(tracker.end(AT + 1_000)) == ["stage finalization completed"]
    assert _names(tracker.end(AT + 2_000)) == []


def test_snapshot_has_the_shape_of_the_progress_response() -> None:
    tracker = ProgressTracker(TYPE, 100)
    tracker.begin(AT)
    tracker.feed("scan: ", AT + 500, tokens=10)
    tracker.feed("low risk", AT + 2_500, tokens=40)

    assert tracker.snapshot() == {
        "progress_percentage": 45.0,
        "stage": "scan",
        "stages": [
            {"name": "setup", "status": "completed", "started_at": "2027-01-15T08:00:00.000Z", "duration_seconds": 0.5},
            {"name": "reading", "status": "completed", "started_at": "2027-01-15T08:00:00.500Z", "duration_seconds": 0.0},
            {"name": "scan", "status": "processing", "started_at": "2027-01-15T08:00:00.500Z", "duration_seconds": None},
            {"name": "validation", "status": "pending", "started_at": None, "duration_seconds": None},
            {"name": "finalization", "status": "pending", "started_at": None, "duration_seconds": None},
        ],
        "milestones": [
            {
                "name": "low risk",
                "description": "A low one",
                "achieved_at": "2027-01-15T08:00:02.500Z",
                "progress_at_milestone": 45.0,
            },
            {"name": "any risk", "description": "", "achieved_at": "2027-01-15T08:00:02.500Z", "progress_at_milestone": 45.0},
        ],
        "tokens_received": 50,
        "estimated_total_tokens": 100,
        "tokens_per_second": 20.0,  # the tokens of the first piece arrived before the measurement started
        "estimated_seconds_remaining": 1.5,  # the default rate still has a weight of one third
        "estimated_seconds_remaining_range": [0.9, 2.1],
    }


def test_fresh_tracker_reports_no_progress() -> None:
    snapshot = ProgressTracker(TYPE, 100).snapshot()

    assert (snapshot["progress_percentage"], snapshot["stage"], snapshot["tokens_per_second"]) == (0.0, None, None)
    assert {stage["status"] for stage in snapshot["stages"]} == {"pending"}


def test_snapshot_is_not_changed_by_later_text() -> None:
    """The text log stores snapshots while the tracker continues."""
    tracker = ProgressTracker(TYPE, 10)
    before = tracker.snapshot()
    copy = json.loads(json.dumps(before))
    tracker.feed("scan: high risk", AT)

    assert before == copy


def test_stages_never_go_back() -> None:
    """Repeated markers and unknown stages change nothing."""
    tracker = ProgressTracker(TYPE, 10)
    tracker.begin(AT)
    tracker.start_stage("validation", AT)

    assert tracker.start_stage("scan", AT) == []
    assert tracker.start_stage("nonsense", AT) == []
    assert tracker.begin(AT) == []
    assert _names(tracker.feed("scan:", AT)) == []
    assert tracker.stage == "validation"


def test_skipped_stages_are_completed_with_zero_duration() -> None:
    tracker = ProgressTracker(TYPE, 10)
    tracker.begin(AT)
    tracker.start_stage("validation", AT + 1_000)

    assert [(stage["status"], stage["duration_seconds"]) for stage in tracker.snapshot()["stages"][:3]] == [
        ("completed", 1.0),
        ("completed", 0.0),
        ("completed", 0.0),
    ]


@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=30))
def test_events_do_not_depend_on_the_delta_boundaries(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(TEXT)]

    assert _fed([TEXT[a:b] for a, b in pairwise(bounds)]) == _fed([TEXT])


@given(
    text=st.text("a", max_size=900)
    | st.lists(st.sampled_from(["scan:", "high risk", "low ", "risk", "a", "x" * 200]), max_size=30).map("".join),
    data=st.data(),
)
def test_events_of_long_texts_do_not_depend_on_the_delta_boundaries(text: str, data: st.DataObject) -> None:
    """These texts are longer than the tail that the scanner keeps."""
    bounds = [0, *sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20))), len(text)]

    assert _fed([text[a:b] for a, b in pairwise(bounds)]) == _fed(list(text)) == _fed([text])


def test_marker_matches_do_not_overlap_or_repeat() -> None:
    assert _fed(list("aaaaa")).count("milestone aa") == 2
    assert _fed(list(TEXT)).count("milestone high risk") == 3
    assert _fed(list(TEXT)).count("milestone any risk") == 1


@pytest.mark.parametrize(
    ("received", "percentage"),
    [(0, 0.0), (1, 0.9), (50, 45.0), (100, 90.0), (150, 91.9), (200, 93.1), (1_000, 94.9), (10**7, 95.0)],
)
def test_percentage_is_linear_to_90_and_then_approaches_95(received: int, percentage: float) -> None:
    tracker = ProgressTracker(TYPE, 100)
    if received:
        tracker.feed("x", AT, tokens=received)

    assert tracker.percentage == percentage


def test_end_sets_100_percent_and_the_exact_token_count() -> None:
    tracker = ProgressTracker(TYPE, 100)
    tracker.begin(AT)
    tracker.feed("x", AT, tokens=30)
    tracker.feed("y", AT + 1_000, tokens=31)
    tracker.end(AT + 2_000)
    snapshot = tracker.snapshot()

    assert (snapshot["progress_percentage"], snapshot["estimated_total_tokens"], snapshot["estimated_seconds_remaining"]) == (
        100.0,
        61,
        0.0,
    )


@given(pieces=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3_000)), min_size=1, max_size=60), expected=st.integers(-1, 400))
def test_percentage_never_decreases_or_exceeds_95_before_the_end(pieces: list[tuple[int, int]], expected: int) -> None:
    """The estimate of the length may be wrong by any amount."""
    tracker, now, shown = ProgressTracker(TYPE, expected), AT, 0.0
    for tokens, later in pieces:
        now += later
        tracker.feed("x", now, tokens=tokens)
        snapshot = tracker.snapshot()
        assert shown <= snapshot["progress_percentage"] <= 95
        shown = snapshot["progress_percentage"]
        assert snapshot["estimated_total_tokens"] >= snapshot["tokens_received"]
        low, high = snapshot["estimated_seconds_remaining_range"]
        assert 0 <= low <= snapshot["estimated_seconds_remaining"] <= high
        json.dumps(snapshot, allow_nan=False)


def test_number_of_milestones_is_bounded() -> None:
    """Each chunk stores all milestones, so a repetitive answer must not add them without end."""
    tracker = ProgressTracker(TYPE, 10)
    events = tracker.feed("aa" * 10_000, AT)

    assert len(tracker.snapshot()["milestones"]) == MAX_MILESTONES
    assert len([event for event in events if event["kind"] == "milestone"]) == MAX_MILESTONES


def test_cost_of_a_delta_does_not_grow_with_the_text() -> None:
    def duration(tracker: ProgressTracker) -> float:
        start = time.process_time()
        for _ in range(2_000):
            tracker.feed("word", AT)
        return time.process_time() - start

    short, long = ProgressTracker(TYPE, 10), ProgressTracker(TYPE, 10)
    duration(long)
    long.feed("x" * 5_000_000, AT)

    assert duration(long) < 5 * duration(short) + 0.05


def test_restored_tracker_continues_without_repeating_events() -> None:
    """The token rate is measured anew."""
    first = ProgressTracker(TYPE, 100)
    first.begin(AT)
    first.feed("intro scan: high ri", AT + 1_000, tokens=30)

    second = ProgressTracker(TYPE, 100)
    second.restore(first.snapshot(), "intro scan: high ri")

    assert second.begin(AT + 9_000) == []
    same = ("progress_percentage", "stage", "stages", "milestones", "tokens_received", "estimated_total_tokens")
    assert {name: second.snapshot()[name] for name in same} == {name: first.snapshot()[name] for name in same}
    assert _names(second.feed("sk", AT + 10_000)) == ["milestone high risk", "milestone any risk"]
    second.feed(" and on", AT + 11_000)
    assert second.tokens_received == 32
    assert second.snapshot()["tokens_per_second"] == 1.0


FAST = Throughput(
    n=9, tokens_per_second=Percentiles(150, 200, 250), output_tokens=Percentiles(300, 400, 900), first_token_ms=Percentiles(300, 400, 900)
)


def test_remaining_time_before_the_first_token_uses_measured_throughput() -> None:
    """The time already waited for the first token is subtracted."""
    tracker = ProgressTracker(TYPE, 600)
    tracker.calibrate(FAST, 4_096)
    tracker.begin(AT)

    at_once = tracker.snapshot()
    tracker.start_stage("setup", AT)
    tracker.start_stage("reading", AT + 100)

    assert (at_once["estimated_total_tokens"], at_once["estimated_seconds_remaining"]) == (400, 2.4)
    assert at_once["estimated_seconds_remaining_range"] == [1.5, 6.9]
    assert tracker.snapshot()["estimated_seconds_remaining"] == 2.3


def test_estimated_total_is_capped_by_max_tokens() -> None:
    tracker = ProgressTracker(TYPE, 600)
    tracker.calibrate(FAST, 100)

    assert tracker.snapshot()["estimated_total_tokens"] == 100


def test_own_rate_gains_weight_while_streaming() -> None:
    """This stream has 10 tokens a second where the measured rate is 200."""
    tracker, errors = ProgressTracker(TYPE, 600), []
    tracker.calibrate(FAST, 4_096)
    for second in range(31):
        tracker.feed("x", AT + second * 1_000, tokens=10)
        snapshot = tracker.snapshot()
        left = (400 - snapshot["tokens_received"]) / 10
        errors.append(abs(left - snapshot["estimated_seconds_remaining"]) / left)

    assert errors == sorted(errors, reverse=True)
    assert errors[1] > 0.8
    assert errors[-1] < 0.45


STEP = st.one_of(
    st.tuples(st.just("feed"), st.integers(1, 300)),
    st.tuples(st.just("calibrate"), st.sampled_from([UNMEASURED, FAST, Throughput(n=9, output_tokens=Percentiles(1, 2, 3))])),
    st.tuples(st.just("start_stage"), st.sampled_from(TYPE.stages)),
    st.tuples(st.just("restore"), st.none()),
)


@given(steps=st.lists(STEP, max_size=40), most=st.integers(16, 2_000))
def test_percentage_never_decreases_after_calibrate_or_restore(steps: list[tuple[str, Any]], most: int) -> None:
    """Measurements may arrive late, and another worker may restore the tracker from a snapshot."""
    tracker, text, now, shown = ProgressTracker(TYPE, 600), "", AT, 0.0
    tracker.begin(now)
    for step, argument in steps:
        now += 100
        if step == "feed":
            text += "x"
            tracker.feed("x", now, tokens=argument)
        elif step == "calibrate":
            tracker.calibrate(argument, most)
        elif step == "start_stage":
            tracker.start_stage(argument, now)
        else:
            kept, tracker = tracker.snapshot(), ProgressTracker(TYPE, 600)
            tracker.restore(kept, text)
            tracker.begin(now)
        snapshot = tracker.snapshot()
        low, high = snapshot["estimated_seconds_remaining_range"]
        assert shown <= snapshot["progress_percentage"] <= 95
        assert 0 <= low <= snapshot["estimated_seconds_remaining"] <= high
        shown = snapshot["progress_percentage"]
