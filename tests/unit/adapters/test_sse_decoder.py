"""The decoder of server-sent events, for any split of the received bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.adapters.openai.sse_decoder import EventDecoder
from chalicelib.domain.failures import StreamMalformed

ENDS = ("\n", "\r", "\r\n")
LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["\u2028\u0085\x0b\x0c", "👋🏽", ""]
)


def decoded(stream: bytes, cuts: list[int] | None = None) -> list[str]:
    decoder = EventDecoder()
    borders = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or []), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(borders)]
    return [event.decode() for piece in pieces for event in decoder.feed(piece)]


@given(
    events=st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5),
    end=st.sampled_from(ENDS),
    cuts=st.lists(st.integers(0, 10_000)),
    data=st.data(),
)
def test_events_are_decoded_wherever_the_bytes_are_cut(events: list[list[str]], end: str, cuts: list[int], data: st.DataObject) -> None:
    noise = st.sampled_from([": ping", "id: 7", "retry: 10", "event: delta", "unknown", "database: no"])
    stream = "".join(f"{data.draw(noise)}{end}" + "".join(f"data: {line}{end}" for line in lines) + end for lines in events)

    assert decoded(stream.encode(), cuts) == ["\n".join(lines) for lines in events]


@given(
    stream=st.binary(max_size=60) | st.text(st.sampled_from("data: \r\n:x"), max_size=60).map(str.encode),
    cuts=st.lists(st.integers(0, 100)),
)
def test_arbitrary_bytes_decode_equally_in_one_piece_and_in_many(stream: bytes, cuts: list[int]) -> None:
    one, many = EventDecoder(), EventDecoder()
    borders = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]

    seen = [event for start, end in pairwise(borders) for event in many.feed(stream[start:end])]

    assert seen == one.feed(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"]),  # one space after the colon is dropped
        (b"data\n\n", [""]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data: a\r\rdata: b\r\n\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),  # a byte order mark
        (b": comment\n\nevent: x\n\n", []),  # an event without data is ignored
        (b"data: a\n", []),  # incomplete
        (b"\n\n\n", []),
    ],
)
def test_decoding_follows_the_server_sent_events_standard(stream: bytes, events: list[str]) -> None:
    assert decoded(stream) == events
    assert decoded(stream, list(range(len(stream)))) == events


def test_an_event_over_the_size_limit_is_refused() -> None:
    for endless in (b"data: " + b"x" * 10, b"data: xxxx\n", b"x" * 10):
        decoder = EventDecoder(max_bytes=100)
        with pytest.raises(StreamMalformed, match="larger than 100 bytes"):
            _ = [decoder.feed(endless) for _ in range(20)]


def test_pings_and_small_events_do_not_add_up_to_the_size_limit() -> None:
    decoder = EventDecoder(max_bytes=100)

    for _ in range(100):
        decoder.feed(b": ping\n")
        decoder.feed(b": ping\n\n")
        assert decoder.feed(b"data: x\n\n") == [b"x"]
        decoder.feed(b"data: y\n\ndata: z")
        decoder.feed(b"\n\n")
