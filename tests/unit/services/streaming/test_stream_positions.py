"""Event ids in the event stream of a job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.streaming.subscriptions import LAST_OFFSET
from chalicelib.services.streaming.read_events import Position

ATTEMPTS, OFFSETS, RUNS = st.integers(0, 10**9 - 1), st.integers(0, LAST_OFFSET), st.integers(1, 10**9 - 1)


@given(
    position=st.builds(Position, ATTEMPTS, OFFSETS)
    | st.builds(Position, ATTEMPTS, OFFSETS, version=RUNS)
    | st.builds(Position, ATTEMPTS, OFFSETS, ended=RUNS)
)
def test_an_event_id_parses_back_to_its_position(position: Position) -> None:
    assert Position.parse(str(position)) == position


def test_event_ids_have_their_documented_format() -> None:
    """Clients store these ids, so the existing parts must keep their meaning."""
    assert [str(Position(2, 500)), str(Position(2, 500, 7))] == ["2:500", "2:500:v7"]
    assert [str(Position(2, 500, ended=run)) for run in (1, 2)] == ["2:500:end", "2:500:end:2"]
