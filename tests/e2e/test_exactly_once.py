"""Every subscriber holds exactly the result, over any transport and from any moment on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.stack import Stack, until, words
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


AT_ONCE = 3  # jobs that run together: each has five subscribers, and this machine all functions


@dataclass
class Watched:
    """A job and its subscribers: one at the start, one late, one that is disconnected twice, two without a socket."""

    early: SocketSubscriber
    late: SocketSubscriber
    cut_off: SocketSubscriber
    events: EventSource
    poller: Poller
    joined_at: int = 0  # the length of the text when the late one joined
    result: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def watched(stack: Stack) -> dict[str, Watched]:
    """Every text, watched to its end."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(TEXTS, threads.map(lambda text: watch(stack, text), TEXTS.values()), strict=True))


def watch(stack: Stack, text: str) -> Watched:
    api, model = stack.api(), stack.model()
    model.reply(text)
    model.delay_first_token(1)
    job_id = api.submit(config=model.config)
    operator = stack.api("operator")  # has its own rate limit
    job = Watched(
        early=SocketSubscriber(stack, job_id),
        late=SocketSubscriber(stack, job_id),
        cut_off=SocketSubscriber(stack, job_id, break_at=(len(text) // 8, len(text) // 3)),
        events=EventSource(operator, job_id),
        poller=Poller(operator, job_id),
    )
    with ThreadPoolExecutor() as threads:
        watching = [threads.submit(one.watch) for one in (job.early, job.cut_off, job.events, job.poller)]
        until(lambda: job.early.assembly.position > len(text) // 2 or watching[0].done(), "half of the text")
        job.joined_at = job.early.assembly.position
        watching.append(threads.submit(job.late.watch))
        for one in watching:
            one.result()
    job.result = api.wait_for_end(job_id)
    return job


@pytest.mark.parametrize("name", TEXTS)
def test_sockets_event_source_and_poller_hold_exactly_the_result(watched: dict[str, Watched], name: str) -> None:
    job, text = watched[name], TEXTS[name]

    assert job.result["status"] == "completed"
    assert job.result["length"] == len(text)
    held = {"result": job.result["output"], "early": job.early.text, "late": job.late.text, "cut off": job.cut_off.text}
    held |= {"events": job.events.text, "polls": job.poller.text}
    assert [name for name, one in held.items() if one.encode() != text.encode()] == []
    assert job.joined_at < len(text), "the late subscriber joined after the end"
    assert (job.cut_off.connections, len(job.cut_off.broken_at)) == (3, 2)
    assert job.cut_off.broken_at[-1] < len(text)
    assert not job.early.started_over
    assert job.events.names.count("job_completed") == 1
    assert job.events.names[-1] == "job_completed"
    assert job.events.slices > 2, "the EventSource received everything in two requests, so it was not live"
