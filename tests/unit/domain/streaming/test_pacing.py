"""How often readers move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.streaming.pacing import StreamingMode, frame_pace, log_pace


@pytest.mark.parametrize(
    ("mode", "rate", "elapsed", "pause"),
    [
        ("realtime", 4.0, 0.0, 0.1),  # many frames while somebody waits for the first words
        ("realtime", 4.0, 2.9, 0.1),
        ("realtime", 4.0, 3.0, 0.25),
        ("realtime", 1.0, 3.0, 1.0),  # a busy fleet lowers the steady rate only
        ("realtime", 1.0, 0.0, 0.1),
        ("realtime", 20.0, 0.0, 0.05),  # the opening is never slower than what follows
        ("batched", 4.0, 0.0, 1.0),
        ("batched", 4.0, 60.0, 1.0),
        ("none", 4.0, 0.0, None),
        ("none", 4.0, 60.0, None),
    ],
)
def test_frames(mode: str, rate: float, elapsed: float, pause: float | None) -> None:
    """Ten frames a second at first, then the steady rate; about one when batched; none when nobody may watch."""
    assert frame_pace(mode, rate).pause(elapsed) == pause


@given(
    mode=st.sampled_from([mode for mode in StreamingMode if mode is not StreamingMode.NONE]),
    rate=st.floats(0.1, 50),
    elapsed=st.floats(0, 10_000),
)
def test_frames_never_get_faster(mode: str, rate: float, elapsed: float) -> None:
    """A stream that lasts is never told more often than at its start."""
    pace = frame_pace(mode, rate)
    first, later = pace.pause(0), pace.pause(elapsed)

    assert first is not None
    assert later is not None
    assert 0 < first <= later


@pytest.mark.parametrize(
    ("mode", "elapsed", "since_last", "pending", "watched", "due"),
    [
        ("realtime", 1.0, 1.0, 5, False, True),  # at 1, 2 and 3 s, whatever there is
        ("realtime", 3.0, 1.0, 5, False, True),
        ("realtime", 4.0, 1.0, 5, False, False),
        ("realtime", 7.0, 4.0, 5, False, True),  # a slow stream every 4 s
        ("realtime", 5.0, 1.0, 899, False, False),
        ("realtime", 5.0, 1.0, 900, False, True),  # a fast one by the KB
        ("realtime", 5.0, 1.0, 1, True, True),  # at every look while somebody reads the table
        ("batched", 5.0, 1.0, 5, False, False),
        ("none", 5.0, 5.0, 5, False, False),
        ("none", 20.0, 15.0, 5, False, True),
        ("none", 20.0, 5.0, 8_000, False, True),
    ],
)
def test_chunks(mode: str, elapsed: float, since_last: float, pending: int, watched: bool, due: bool) -> None:
    """The first seconds are kept at once; then size or time decide, sooner while somebody reads."""
    assert log_pace(mode).is_due(elapsed, since_last, pending, watched=watched) is due


@given(mode=st.sampled_from(StreamingMode), elapsed=st.floats(0, 900), pending=st.integers(0, 10_000), watched=st.booleans())
def test_no_text_waits_for_ever(mode: str, elapsed: float, pending: int, watched: bool) -> None:
    """After `every` seconds a chunk is due, however little there is; the reader looks more often than that."""
    pace = log_pace(mode)

    assert pace.is_due(elapsed, pace.every, pending, watched=watched)
    assert pace.tick < pace.every
