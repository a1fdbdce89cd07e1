"""Every subscriber holds exactly the result, over any transport and from any moment on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.stack import Api, Model, Stack, until, words
from tests.e2e.subscribers import EventSource, Poller, SocketSubscriber

WORDS = 300  # at 20 ms each: enough time to break a connection twice
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
FLAG = "\U0001f3f3\ufe0f\u200d\U0001f308"

TEXTS = {
    "plain": words(WORDS),
    "emoji": " ".join(f"{FAMILY * (1 + number % 3)}{number}{FLAG}" for number in range(WORDS)),
    "combining": " ".join(f"e\u0301o\u0302\u0323{number}a\u030a\u0327" for number in range(WORDS)),
    "right-to-left": " ".join(
        f"\u05e9\u05dc\u05d5\u05dd{number} \u202e\u0645\u0631\u062d\u0628\u0627\u202c\u200f" for number in range(WORDS // 2)
    ),
    "line-separators": "".join(f"a\u2028{number}\u2029b\x85c\r\nd\re\x0b\x1c\n\n" for number in range(WORDS // 4)),
    "200-kb": " ".join(f"{number:_<670}" for number in range(WORDS)),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_sockets_event_source_and_poller_hold_exactly_the_result(stack: Stack, api: Api, model: Model, text: str) -> None:
    """One socket subscribes at the start, one late, and one is disconnected twice."""
    model.reply(text)
    model.delay_first_token(1)
    job_id = api.submit(config=model.config)
    early = SocketSubscriber(stack, job_id)
    late = SocketSubscriber(stack, job_id)
    cut_off = SocketSubscriber(stack, job_id, break_at=(len(text) // 8, len(text) // 3))
    operator = stack.api("operator")  # has its own rate limit
    events, poller = EventSource(operator, job_id), Poller(operator, job_id)

    with ThreadPoolExecutor() as threads:
        watching = [threads.submit(one.watch) for one in (early, cut_off, events, poller)]
        until(lambda: early.assembly.position > len(text) // 2 or watching[0].done(), "half of the text")
        joined_at = early.assembly.position
        watching.append(threads.submit(late.watch))
        for one in watching:
            one.result()
    result = api.wait_for_end(job_id)

    assert result["status"] == "completed"
    assert result["length"] == len(text)
    held = {"result": result["output"], "early": early.text, "late": late.text, "cut off": cut_off.text}
    held |= {"events": events.text, "polls": poller.text}
    assert [name for name, one in held.items() if one.encode() != text.encode()] == []
    assert joined_at < len(text), "the late subscriber joined after the end"
    assert (cut_off.connections, len(cut_off.broken_at)) == (3, 2)
    assert cut_off.broken_at[-1] < len(text)
    assert not early.started_over
    assert events.names.count("job_completed") == 1
    assert events.names[-1] == "job_completed"
    assert events.slices > 2, "the EventSource received everything in two requests, so it was not live"
