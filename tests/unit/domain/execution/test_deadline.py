"""The deadline of an invocation: when a worker stops starting jobs, and when it hands over."""

from __future__ import annotations

import pytest

from chalicelib.domain.execution.deadline import Deadline

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("seconds", "starts", "streams"),
    [
        (900, 780, 855),  # the longest Lambda invocation: 45 s remain after the hand-over
        (60, 40, 48),
        (12, 8, 9.6),
        (0, 0, 0),
    ],
)
def test_margins_scale_with_the_invocation_and_are_bounded(seconds: float, starts: float, streams: float) -> None:
    deadline = Deadline(started_at=NOW, ends_at=NOW + seconds * 1000)

    assert (deadline.last_start_at - NOW, deadline.handover_at - NOW) == (starts * 1000, streams * 1000)


def test_expired_invocation_starts_and_streams_nothing() -> None:
    """The clocks of Lambda and of the worker may differ."""
    deadline = Deadline(started_at=NOW, ends_at=NOW - 5)

    assert deadline.last_start_at <= NOW
    assert deadline.handover_at <= NOW
