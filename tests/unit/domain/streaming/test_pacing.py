"""How often frames are sent and chunks are stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.streaming.pacing import StreamingMode, frame_pace, log_pace


@pytest.mark.parametrize(
    ("mode", "rate", "elapsed", "pause"),
    [
        ("realtime", 4.0, 0.0, 0.1),  # many frames while a reader waits for the first words
        ("realtime", 4.0, 2.9, 0.1),
        ("realtime", 4.0, 3.0, 0.25),
        ("realtime", 1.0, 3.0, 1.0),  # a busy fleet lowers the steady rate only
        ("realtime", 1.0, 0.0, 0.1),
        ("realtime", 20.0, 0.0, 0.05),  # the opening is never slower than the steady rate
        ("batched", 4.0, 0.0, 1.0),
        ("batched", 4.0, 60.0, 1.0),
        ("none", 4.0, 0.0, None),
        ("none", 4.0, 60.0, None),
    ],
)
def test_frame_pause_by_mode_rate_and_elapsed_time(mode: str, rate: float, elapsed: float, pause: float | None) -> None:
    """Realtime: ten frames a second at first, then the steady rate. Batched: one a second."""
    assert frame_pace(mode, rate).pause(elapsed) == pause


@given(
    mode=st.sampled_from([mode for mode in StreamingMode if mode is not StreamingMode.NONE]),
    rate=st.floats(0.1, 50),
    elapsed=st.floats(0, 10_000),
)
def test_frame_pause_never_shrinks_over_time(mode: str, rate: float, elapsed: float) -> None:
    pace = frame_pace(mode, rate)
    first, later = pace.pause(0), pace.pause(elapsed)

    assert first is not None
    assert later is not None
    assert 0 < first <= later


@pytest.mark.parametrize(
    ("mode", "elapsed", "since_last", "pending", "watched", "due"),
    [
        ("realtime", 1.0, 1.0, 5, False, True),  # at 1, 2 and 3 s, for any size
        ("realtime", 3.0, 1.0, 5, False, True),
        ("realtime", 4.0, 1.0, 5, False, False),
        ("realtime", 7.0, 4.0, 5, False, True),  # a slow stream stores a chunk every 4 s
        ("realtime", 5.0, 1.0, 899, False, False),
        ("realtime", 5.0, 1.0, 900, False, True),  # a fast stream stores a chunk for each KB
        ("realtime", 5.0, 1.0, 1, True, True),  # at every check while there are subscribers
        ("batched", 5.0, 1.0, 5, False, False),
        ("none", 5.0, 5.0, 5, False, False),
        ("none", 20.0, 15.0, 5, False, True),
        ("none", 20.0, 5.0, 8_000, False, True),
    ],
)
def test_chunk_is_due_by_time_size_or_subscribers(
    mode: str, elapsed: float, since_last: float, pending: int, watched: bool, due: bool
) -> None:
    """In the first seconds a chunk is due at each check, except in mode `none`."""
    assert log_pace(mode).is_due(elapsed, since_last, pending, watched=watched) is due


@given(mode=st.sampled_from(StreamingMode), elapsed=st.floats(0, 900), pending=st.integers(0, 10_000), watched=st.booleans())
def test_chunk_is_always_due_after_the_longest_interval(mode: str, elapsed: float, pending: int, watched: bool) -> None:
    """The reader checks more often than that."""
    pace = log_pace(mode)

    assert pace.is_due(elapsed, pace.every, pending, watched=watched)
    assert pace.tick < pace.every
