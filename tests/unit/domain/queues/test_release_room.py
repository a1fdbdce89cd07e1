"""How many released jobs the queue `ready` may take."""

from __future__ import annotations

import pytest

from chalicelib.domain.queues.release_room import GOOD_SECONDS, MAX_WAITING, MIN_WAITING, ReleaseRoom


def test_an_empty_queue_takes_the_most() -> None:
    assert ReleaseRoom().room(0, 0) == MAX_WAITING


@pytest.mark.parametrize("per_second", [10, 20, 40])
def test_a_queue_that_is_emptied_slowly_holds_what_starts_soon(per_second: int) -> None:
    room, left = ReleaseRoom(), 0.0
    depths = []
    for now in range(0, 60_000, 500):
        left = max(0.0, left - per_second / 2)
        more = room.room(round(left), now)
        room.sent(more)
        left += more
        depths.append(left)

    settled = depths[30:]
    assert sum(settled) / len(settled) <= max(MIN_WAITING, 2 * GOOD_SECONDS * per_second)
    assert min(settled) > 0, "the workers have nothing to do"


def test_a_queue_that_nobody_empties_takes_nothing_more() -> None:
    room = ReleaseRoom()
    room.sent(room.room(0, 0))

    assert [room.room(MAX_WAITING, now) for now in range(500, 20_000, 500)] == [0] * 39
