"""Frames for subscribers: their fields, and that each fits into a WebSocket message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.jobs.job import TERMINAL, Status, Usage
from chalicelib.domain.streaming import frames
from chalicelib.domain.text import MAX_FRAME_POINTS, repair_surrogates
from tests.kit.jobs import ERROR, NOW, job

AT = "2027-01-15T08:00:00.000Z"
JOB = job(status=Status.PROCESSING, attempt=2, version=5)
ABOUT = {"job_id": "job_01", "attempt": 2, "version": 5, "at": AT}


def test_connected_frame_carries_the_start_offset() -> None:
    assert frames.connected(JOB, 7, NOW) == {"event": "connected", **ABOUT, "status": "processing", "offset": 7}


def test_tokens_frame_carries_offset_and_progress() -> None:
    frame = frames.tokens("job_01", 2, 5, 10, "Hi", NOW, 4, 12.5)

    assert frame == {"event": "tokens", **ABOUT, "offset": 10, "text": "Hi", "tokens_received": 4, "progress_percentage": 12.5}


def test_progress_milestone_reset_gap_and_error_frames() -> None:
    assert frames.progress(JOB, {"stage": "scan"}, NOW) == {"event": "progress", **ABOUT, "stage": "scan"}
    assert frames.milestone(JOB, {"name": "high finding"}, NOW) == {"event": "milestone", **ABOUT, "name": "high finding"}
    assert frames.reset(JOB, "retry", NOW) == {"event": "reset", **ABOUT, "reason": "retry"}
    assert frames.gap(JOB, 3, None, NOW) == {"event": "gap", **ABOUT, "requested": 3, "earliest": None}
    assert frames.error("bad_message", "No.", NOW, reply_to="1") == {
        "event": "error",
        "code": "bad_message",
        "message": "No.",
        "at": AT,
        "reply_to": "1",
    }


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_each_terminal_status_has_its_own_frame_with_the_length(status: Status) -> None:
    frame = frames.state(job(status=status, length=12), NOW)

    assert frame is not None
    assert (frame["event"], frame["status"], frame["length"]) == (f"job_{status.value}", status.value, 12)


def test_completed_frame_carries_usage_and_cost() -> None:
    usage = Usage(input=10, cached=4, output=20, reasoning=5)

    frame = frames.state(job(status=Status.COMPLETED, attempt=2, version=5, length=12, usage=usage, cost=13_500), NOW)

    assert frame == {
        "event": "job_completed",
        **ABOUT,
        "status": "completed",
        "length": 12,
        "usage": {
            "input_tokens": 10,
            "cached_input_tokens": 4,
            "output_tokens": 20,
            "reasoning_tokens": 5,
            "total_tokens": 30,
            "estimated": False,
        },
        "cost": "0.0000135",
        "currency": "USD",
        "error": None,
        "incomplete_details": None,
    }


def test_failed_frame_carries_the_error_in_the_api_shape() -> None:
    """The field is called `class` there; Python reserves that word."""
    frame = frames.state(job(status=Status.FAILED, error=ERROR), NOW)

    assert frame is not None
    assert frame["error"] == {
        "code": "stream_cut",
        "class": "stream",
        "retryable": True,
        "message": "The stream was cut.",
        "suggestion": "Nothing to do.",
        "attempt": 1,
        "provider_status": None,
        "provider_request_id": None,
    }
    assert (frame["length"], frame["usage"], frame["cost"]) == (0, None, None)


def test_incomplete_frame_carries_the_reason() -> None:
    frame = frames.state(job(status=Status.INCOMPLETE, length=3, incomplete_reason="max_tokens"), NOW)

    assert frame is not None
    assert frame["incomplete_details"]["reason"] == "max_tokens"
    assert "Raise `config.max_tokens`" in frame["incomplete_details"]["message"]


@pytest.mark.parametrize("status", [Status.RETRYING, Status.HELD])
def test_retrying_and_held_frames_carry_reason_and_end_of_the_wait(status: Status) -> None:
    frame = frames.state(job(status=status, reason="stream_cut", resume_at=NOW + 2_000, length=7), NOW)

    assert frame is not None
    assert (frame["event"], frame["reason"], frame["until"], frame["length"]) == (status.value, "stream_cut", "2027-01-15T08:00:02.000Z", 7)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.WAITING, Status.PROCESSING])
def test_queued_waiting_and_processing_have_no_state_frame(status: Status) -> None:
    """A `progress` frame reports these states."""
    assert frames.state(job(status=status), NOW) is None


@given(text=st.text(st.characters(codec=None), max_size=300))
def test_encode_produces_one_line_of_json(text: str) -> None:
    frame = frames.tokens("job_01", 1, 2, 0, repair_surrogates(text), NOW, 1, None)

    data = frames.encode(frame)

    assert json.loads(data) == frame
    assert b"\n" not in data


@pytest.mark.parametrize("char", ["\x00", "😀", '"', "\u2028"])
def test_largest_tokens_frame_fits_into_32_kilobytes(char: str) -> None:
    """Escapes must not push a frame over the limit of API Gateway."""
    frame = frames.tokens("job_" + "0" * 40, 9_999, 10**6, 10**9, char * MAX_FRAME_POINTS, NOW, 10**9, 99.9)

    assert len(frames.encode(frame)) <= 32 * 1024
