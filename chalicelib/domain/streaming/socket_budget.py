"""How much a WebSocket connection may ask for in a minute, and what each request costs.

A unit is about one request to AWS: a frame, or a few reads. The number of units that a connection
has used is in its row, because API Gateway sends the messages of one connection to any environment.
"""

from __future__ import annotations

from zlib import crc32

from chalicelib.domain.streaming.subscriptions import CONNECTION_SHARDS
from chalicelib.domain.text import MAX_FRAME_POINTS
from chalicelib.domain.units import Ms

WINDOW_MS = 60_000
UNITS_PER_WINDOW = 300
# A connection that sends so much in spite of the refusals is closed.
CLOSE_AT_UNITS = 3 * UNITS_PER_WINDOW
MESSAGE_UNITS = 1  # of any message
SUBSCRIBE_UNITS = 3  # beside the message and the frames of a replay
# Units that an environment counts in memory before it writes them: a client that only pings costs
# no write, and a flood one for so many messages.
UNWRITTEN_UNITS = 20
MAX_MESSAGE_LENGTH = 4_096  # characters; a larger message is refused before it is parsed
# The same subscription is not repeated within this time. A client that misses an answer asks again
# after three seconds.
RESUBSCRIBE_MS = 2_500
# One connection in so many holds a slot of its API key, which bounds how many may be open. API
# Gateway chooses the ids of connections, so a client cannot choose which.
SLOT_SAMPLE = 8
FULL_MS = 60_000  # how long an environment remembers that a key has no slot left
UNWRITTEN_CONNECTS = 10  # connects of a key that an environment counts before it writes them
MAX_WATCHERS = 100  # live subscriptions of one job or batch; all others poll
WATCHERS_AT_FULL_PACE = 25  # with more of them, each gets frames less often
POLL_SECONDS = 5  # how often those should poll that are no live subscribers


def holds_slot(connection_id: str) -> bool:
    """Whether this connection stands for `SLOT_SAMPLE` connections of its key."""
    return crc32(connection_id.encode()) // CONNECTION_SHARDS % SLOT_SAMPLE == 0


def window_of(now: Ms) -> int:
    """Return the number of the window, which grows by one each minute."""
    return now // WINDOW_MS


def seconds_left(now: Ms) -> int:
    """Return the seconds until the next window begins, rounded up."""
    return -(-(WINDOW_MS - now % WINDOW_MS) // 1000)


def replay_units(length: int) -> int:
    """Return what it costs to send a text of this length."""
    return -(-max(0, length) // MAX_FRAME_POINTS)


def pace_factor(watchers: int) -> float:
    """Return by how much the pause between two frames grows with the number of live watchers.

    So a job sends a bounded number of frames a second, and the other jobs of its environment get
    theirs in time.
    """
    return max(1.0, watchers / WATCHERS_AT_FULL_PACE)
