"""Background responses: the tests' scripted provider and OpenAI's adapter (with a stand-in server) behave alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import pytest

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.events import ResponseReader, fetched
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.domain.failures import (
    AttemptFailed,
    AuthenticationFailed,
    ProviderConnectionLost,
    ProviderTimeout,
    ProviderUnavailable,
    ReattachRefused,
    RequestRefused,
    ResponseLost,
    StreamCut,
    StreamMalformed,
)
from chalicelib.domain.text import SurrogateJoiner
from chalicelib.ports import FetchedResponse, ModelRequest, Provider, ProviderEvent, ResponseEnded, ResponseStarted, TextDelta
from tests.contract.openai.loopback import delta, event
from tests.kit.background_openai import BackgroundOpenAI, Settings
from tests.kit.live_response import Scenario
from tests.kit.provider import Script, ScriptedProvider
from tests.kit.time import JumpingLoop, run

T = TypeVar("T")
Play = Callable[[Provider], Awaitable[T]]

ASK = ModelRequest(model="gpt-4o-mini", prompt="Say hello.", timeout=5.0, background=True)
CODES = {ProviderUnavailable: "server_error", RequestRefused: "invalid_prompt"}


def on_scripted_provider(script: Script, play: Play[T]) -> T:
    async def work() -> T:
        return await play(ScriptedProvider(script))

    return run(JumpingLoop(), work())


def on_openai(script: Script, play: Play[T]) -> T:
    return with_stand_in(scenario_of(script), play, streams_for=script.streams_for, keeps_for=script.keeps_for)


def scenario_of(script: Script) -> Scenario:
    """The scenario for the stand-in. It counts events, the twin counts deltas: the first connection has four more."""
    return Scenario(
        deltas=list(script.deltas),
        every=script.every,
        refusal=script.refusal,
        fails={"code": CODES[type(script.error)], "message": "Said so."} if isinstance(script.error, AttemptFailed) else None,
        incomplete="max_output_tokens" if script.end and script.end.incomplete_reason else None,
        breaks=[broken and broken + (0 if number else 4) for number, broken in enumerate(script.breaks)],
        replays=list(script.replays) if script.replays is not None else None,
    )


def with_stand_in(scenario: Scenario, play: Play[T], *, idle_timeout: float = 2.0, **settings: Any) -> T:
    with BackgroundOpenAI(scenario, **settings) as openai:
        return with_provider(openai, play, idle_timeout=idle_timeout)


def with_provider(openai: BackgroundOpenAI, play: Play[T], **settings: Any) -> T:
    async def work() -> T:
        provider = OpenAIResponses(lambda: Credentials("sk-test-0123456789", openai.url), **settings)
        try:
            return await play(provider)
        finally:
            await provider.client().close()

    return asyncio.run(work())


both = pytest.mark.parametrize("played", [on_scripted_provider, on_openai])


async def read(events: AbstractAsyncContextManager[Any], most: int = 1_000) -> list[ProviderEvent]:
    """Read a stream and leave it after `most` events."""
    seen: list[ProviderEvent] = []
    async with events as stream:
        async for event in stream:
            seen.append(event)
            if len(seen) == most:
                break
    return seen


async def read_until_it_breaks(events: AbstractAsyncContextManager[Any], kind: type[AttemptFailed]) -> list[ProviderEvent]:
    """Read a stream until it raises exactly this error."""
    seen: list[ProviderEvent] = []
    raised: AttemptFailed | None = None
    try:
        async with events as stream:
            async for event in stream:
                seen.append(event)  # noqa: PERF401 - a comprehension that raises loses what it has collected
    except AttemptFailed as exc:
        raised = exc
    assert type(raised) is kind, repr(raised)
    return seen


async def drain(stream: AsyncIterator[ProviderEvent]) -> None:
    async for _ in stream:
        continue


async def begin(provider: Provider) -> str:
    """Begin a response, leave it and return its id."""
    [started] = await read(provider.stream(ASK), most=1)
    assert isinstance(started, ResponseStarted)
    return started.response_id


async def read_whole(provider: Provider) -> tuple[str, list[ProviderEvent]]:
    """Read a response to its end and return its id and events."""
    seen = await read(provider.stream(ASK))
    assert isinstance(seen[0], ResponseStarted)
    return seen[0].response_id, seen


def text_of(seen: list[ProviderEvent]) -> str:
    joiner = SurrogateJoiner()
    return "".join(joiner.feed(one.text) for one in seen if isinstance(one, TextDelta)) + joiner.flush()


def last_of(seen: list[ProviderEvent]) -> int:
    return max(one.sequence for one in seen if isinstance(one, TextDelta))


def data_of(event: bytes) -> bytes:
    return event.split(b"data: ")[1].strip()


# ---- resuming


@both
def test_background_response_has_an_id_and_numbered_deltas(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id, seen = await read_whole(provider)

        assert response_id.startswith("resp_")
        assert [(one.text, one.sequence) for one in seen if isinstance(one, TextDelta)] == [("Hello", 4), (", ", 5), ("world", 6)]
        assert isinstance(seen[-1], ResponseEnded)
        assert seen[-1].usage is not None

    played(Script(), play)


@both
def test_resume_returns_exactly_the_remaining_events(played: Any) -> None:
    """After the last text only the end follows, and the text is not repeated."""

    async def play(provider: Provider) -> None:
        response_id, seen = await read_whole(provider)

        for after in (4, 5, 6):
            rest = [
                one for one in seen if not isinstance(one, ResponseStarted) and (not isinstance(one, TextDelta) or one.sequence > after)
            ]
            assert await read(provider.resume(response_id, after, ASK)) == rest

    played(Script(), play)


@both
def test_resume_from_the_start_returns_every_event(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id, seen = await read_whole(provider)

        assert await read(provider.resume(response_id, -1, ASK)) == seen
        assert await read(provider.resume(response_id, 0, ASK)) == seen[1:]

    played(Script(), play)


@both
def test_lost_connection_loses_no_text(played: Any) -> None:
    """The reader resumes twice while the response is still being written."""

    async def play(provider: Provider) -> None:
        first = await read_until_it_breaks(provider.stream(ASK), ProviderConnectionLost)
        assert isinstance(first[0], ResponseStarted)
        second = await read_until_it_breaks(provider.resume(first[0].response_id, last_of(first), ASK), ProviderConnectionLost)
        third = await read(provider.resume(first[0].response_id, last_of(second), ASK))

        assert [text_of(part) for part in (first, second, third)] == ["one two ", "three ", "four five "]
        assert isinstance(third[-1], ResponseEnded)
        assert (await provider.fetch(first[0].response_id)).text == "one two three four five "

    played(Script(["one ", "two ", "three ", "four ", "five "], every=0.03, breaks=[2, 1]), play)


@both
def test_characters_stay_whole_wherever_the_stream_breaks(played: Any) -> None:
    """Surrogate halves in two deltas, late combining marks, and characters of four bytes."""
    deltas = ["hi \ud83d", "\ude00 e", "\u0301 👩", "\u200d", "🚀 𝄞", "\u2028 end"]

    async def play(provider: Provider) -> None:
        first = await read_until_it_breaks(provider.stream(ASK), ProviderConnectionLost)
        assert isinstance(first[0], ResponseStarted)
        rest = await read(provider.resume(first[0].response_id, last_of(first), ASK))

        assert text_of(first + rest) == "hi 😀 e\u0301 👩\u200d🚀 𝄞\u2028 end"
        assert (await provider.fetch(first[0].response_id)).text == text_of(first + rest)

    for at in range(1, len(deltas)):
        played(Script(deltas, every=0.005, breaks=[at]), play)


@both
def test_replay_with_another_text_is_returned_unchanged(played: Any) -> None:
    """The caller that compares the texts must see the difference."""

    async def play(provider: Provider) -> str:
        response_id, _ = await read_whole(provider)
        return text_of(await read(provider.resume(response_id, -1, ASK)))

    assert played(Script(["one ", "two"], replays=["uno ", "due"]), play) == "uno due"


@both
def test_old_stream_cannot_be_resumed_but_can_be_fetched(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id, seen = await read_whole(provider)

        with pytest.raises(ReattachRefused) as refused:
            await read(provider.resume(response_id, 4, ASK))

        assert refused.value.provider_status == 400
        assert (await provider.fetch(response_id)).text == text_of(seen)

    played(Script(streams_for=0), play)


# ---- fetching


@both
def test_response_can_be_fetched_before_and_after_its_end(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id = await begin(provider)

        before = await provider.fetch(response_id)
        await asyncio.sleep(0.4)
        after = await provider.fetch(response_id)

        assert before.ended is None
        assert after.ended is not None
        assert (after.text, after.refusal, after.ended.incomplete_reason) == ("Hello, world", False, None)
        assert after.ended.usage is not None

    played(Script(every=0.05), play)


@both
def test_fetched_refusal_is_marked_as_refusal(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id, seen = await read_whole(provider)
        fetched = await provider.fetch(response_id)

        assert (fetched.text, fetched.refusal) == (text_of(seen), True) == ("I cannot.", True)

    played(Script(["I ", "cannot."], refusal=True), play)


@both
def test_incomplete_reason_is_streamed_resumed_and_fetched(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id, seen = await read_whole(provider)
        resumed = await read(provider.resume(response_id, last_of(seen), ASK))
        fetched = await provider.fetch(response_id)

        for ended in (seen[-1], resumed[-1], fetched.ended):
            assert isinstance(ended, ResponseEnded)
            assert ended.incomplete_reason == "max_tokens"
        assert fetched.text == "Hello, world"

    played(Script(end=ResponseEnded(None, incomplete_reason="max_tokens")), play)


@both
@pytest.mark.parametrize("error", [ProviderUnavailable(), RequestRefused()])
def test_failure_is_streamed_resumed_and_fetched(played: Any, error: AttemptFailed) -> None:
    async def play(provider: Provider) -> None:
        seen = await read_until_it_breaks(provider.stream(ASK), type(error))
        assert isinstance(seen[0], ResponseStarted)
        resumed = await read_until_it_breaks(provider.resume(seen[0].response_id, 4, ASK), type(error))
        fetched = await provider.fetch(seen[0].response_id)

        assert (type(fetched.failure), fetched.ended) == (type(error), None)
        assert (text_of(seen), text_of(resumed)) == ("Hello, world", ", world")

    played(Script(error=error), play)


@both
def test_forgotten_response_is_lost(played: Any) -> None:
    """Cancelling it succeeds."""

    async def play(provider: Provider) -> None:
        response_id, _ = await read_whole(provider)

        await asyncio.sleep(0.05)
        with pytest.raises(ResponseLost) as lost:
            await provider.fetch(response_id)
        with pytest.raises(ReattachRefused) as refused:
            await read(provider.resume(response_id, 4, ASK))
        await provider.cancel(response_id)

        assert lost.value.retryable
        assert (lost.value.provider_status, refused.value.provider_status) == (404, 404)

    played(Script(keeps_for=0.01), play)


@both
@pytest.mark.parametrize("response_id", ["", "resp_unknown"])
def test_unknown_response_is_treated_as_lost(played: Any, response_id: str) -> None:
    """A server that is only compatible with OpenAI may return an empty id."""

    async def play(provider: Provider) -> None:
        with pytest.raises(ResponseLost):
            await provider.fetch(response_id)
        with pytest.raises(ReattachRefused):
            await read(provider.resume(response_id, -1, ASK))
        await provider.cancel(response_id)

    played(Script(), play)


# ---- deleting


@both
def test_deleted_response_is_gone(played: Any) -> None:
    """Deleting it again, or one that never was, is no error."""

    async def play(provider: Provider) -> None:
        response_id, _ = await read_whole(provider)

        for gone in (response_id, response_id, "resp_unknown", ""):
            await provider.delete(gone)

        with pytest.raises(ResponseLost):
            await provider.fetch(response_id)
        with pytest.raises(ReattachRefused):
            await read(provider.resume(response_id, 4, ASK))

    played(Script(), play)


# ---- cancelling


@both
def test_cancelling_a_response_twice_succeeds(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id = await begin(provider)

        for _ in range(2):
            await provider.cancel(response_id)

        with pytest.raises(ResponseLost):
            await provider.fetch(response_id)

    played(Script(every=1.0), play)


@both
def test_cancelling_an_ended_response_changes_nothing(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id, seen = await read_whole(provider)

        await provider.cancel(response_id)

        assert (await provider.fetch(response_id)).text == text_of(seen)

    played(Script(), play)


@both
def test_reader_of_a_cancelled_response_gets_response_lost(played: Any) -> None:
    async def play(provider: Provider) -> None:
        async with provider.stream(ASK) as stream:
            started = await anext(stream)
            assert isinstance(started, ResponseStarted)
            await provider.cancel(started.response_id)
            with pytest.raises(ResponseLost):
                await drain(stream)

    played(Script(every=0.2), play)


@both
def test_leaving_the_stream_does_not_stop_the_response(played: Any) -> None:
    async def play(provider: Provider) -> None:
        response_id = await begin(provider)

        assert text_of(await read(provider.resume(response_id, -1, ASK))) == "Hello, world"

    played(Script(every=0.02), play)


# ---- only on the OpenAI adapter


def test_stream_that_ends_silently_on_cancel_is_stream_cut() -> None:
    async def play(provider: Provider) -> None:
        async with provider.stream(ASK) as stream:
            started = await anext(stream)
            assert isinstance(started, ResponseStarted)
            await provider.cancel(started.response_id)
            with pytest.raises(StreamCut):
                await drain(stream)

    with_stand_in(Scenario(every=0.2, cancels_silently=True), play)


def test_resume_after_the_final_event_is_stream_cut() -> None:
    """Nothing is left to stream, so the response has to be fetched."""

    async def play(provider: Provider) -> None:
        response_id, _ = await read_whole(provider)
        assert await read_until_it_breaks(provider.resume(response_id, 99, ASK), StreamCut) == []

    with_stand_in(Scenario(), play)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ReattachRefused), (404, ReattachRefused), (409, ReattachRefused), (503, ProviderUnavailable)]
)
def test_resume_is_refused_on_4xx_and_unavailable_on_503(status: int, kind: type[AttemptFailed]) -> None:
    async def play(provider: Provider) -> None:
        response_id = await begin(provider)
        await read_until_it_breaks(provider.resume(response_id, 0, ASK), kind)

    with_stand_in(Scenario(refuses_resume=status), play)


def test_silent_resumed_stream_is_a_timeout() -> None:
    async def play(provider: Provider) -> None:
        first = await read_until_it_breaks(provider.stream(ASK), ProviderTimeout)
        assert isinstance(first[0], ResponseStarted)
        second = await read_until_it_breaks(provider.resume(first[0].response_id, last_of(first), ASK), ProviderTimeout)
        third = await read(provider.resume(first[0].response_id, last_of(second), ASK))

        assert [text_of(part) for part in (first, second, third)] == ["Hello", ", ", "world"]

    with_stand_in(Scenario(stalls=[5, 1]), play, idle_timeout=0.2)


def test_queued_response_is_not_a_timeout() -> None:
    async def play(provider: Provider) -> None:
        response_id = await begin(provider)
        assert text_of(await read(provider.resume(response_id, 0, ASK))) == "Hello, world"

    with_stand_in(Scenario(queued=0.5), play, idle_timeout=0.2)


def test_background_request_is_always_stored() -> None:
    """OpenAI refuses a background request that is not to be stored."""
    with BackgroundOpenAI(Scenario()) as openai:
        request = ModelRequest(model="gpt-4o-mini", prompt="Hi", background=True, extra={"store": False, "background": False})

        response_id = with_provider(openai, lambda provider: read(provider.stream(request)))[0].response_id  # type: ignore[union-attr]
        with_provider(openai, lambda provider: read(provider.resume(response_id, 5, request)))
        with_provider(openai, lambda provider: read(provider.resume(response_id, -1, request)))

        assert openai.requests[0]["body"] == {
            "model": "gpt-4o-mini",
            "input": "Hi",
            "stream": True,
            "background": True,
            "store": True,
            "stream_options": {"include_obfuscation": False},
        }
        assert openai.requests[1]["query"] == {"stream": "true", "starting_after": "5", "include_obfuscation": "false"}
        assert openai.requests[2]["query"] == {"stream": "true", "include_obfuscation": "false"}


OPERATIONS: dict[str, Callable[[Provider, str], Awaitable[Any]]] = {
    "reattached": lambda provider, response_id: read(provider.resume(response_id, 0, ASK)),
    "retrieved": lambda provider, response_id: provider.fetch(response_id),
    "cancelled": lambda provider, response_id: provider.cancel(response_id),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_replaced_key_works_at_once_for_every_operation(operation: str) -> None:
    """An unchanged key is not tried twice."""
    key = ["old"]

    async def play(url: str, forget: Callable[[], None]) -> None:
        provider = OpenAIResponses(lambda: Credentials(key[-1], url), forget=forget)
        first = provider.client()
        try:
            await OPERATIONS[operation](provider, response_id)
        finally:
            await provider.client().close()
            await first.close()

    with BackgroundOpenAI(Scenario(every=0.01)) as openai:
        response_id = with_provider(openai, begin)
        openai.settings = Settings(keys=("new",))

        with pytest.raises(AuthenticationFailed):
            asyncio.run(play(openai.url, lambda: None))
        asyncio.run(play(openai.url, lambda: key.append("new")))

        assert len(openai.requests) == 1 + 1 + 2
        assert openai.counts[operation] == 1


def test_unreachable_provider_is_connection_lost() -> None:
    provider = OpenAIResponses(lambda: Credentials("key", "http://127.0.0.1:9/v1"))

    for operation in (lambda: provider.fetch("resp_1"), lambda: provider.cancel("resp_1"), lambda: read(provider.resume("resp_1", 0, ASK))):
        with pytest.raises(ProviderConnectionLost):
            asyncio.run(operation())


def test_repeated_text_before_the_cursor_is_skipped() -> None:
    """Compatible servers may not know `starting_after`."""
    reader = ResponseReader(after=5)

    texts = [reader.read(data_of(delta(text, number))) for number, text in ((4, "one "), (5, "two "), (6, "three"))]

    assert texts == [[], [], [TextDelta("three", 6)]]


def test_text_of_the_final_event_has_its_sequence_number() -> None:
    content = [{"type": "output_text", "text": "All at once"}]
    last = event("response.completed", sequence_number=9, response={"status": "completed", "output": [{"content": content}]})

    assert (ResponseReader().read(data_of(last)) or [])[0] == TextDelta("All at once", 9)


def test_fetched_text_joins_the_parts_of_a_message_and_separates_messages() -> None:
    """Lone surrogates are replaced."""
    parts = [
        [{"type": "output_text", "text": "one \ud83d"}, {"type": "output_text", "text": "\ude00 two "}],
        [{"type": "refusal", "refusal": "no\ud83d"}],
    ]
    response = {"status": "completed", "output": [{"type": "reasoning"}, *({"type": "message", "content": part} for part in parts)]}

    assert fetched(json.dumps(response).encode()) == FetchedResponse("one 😀 two \n\nno\ufffd", ResponseEnded(None), refusal=True)


@pytest.mark.parametrize("nonsense", [b"", b"[]", b"<html>", b"\xff"])
def test_unreadable_fetched_response_is_stream_malformed(nonsense: bytes) -> None:
    with pytest.raises(StreamMalformed):
        fetched(nonsense)


@pytest.mark.parametrize("kind", ["response.failed", "response.cancelled", "response.completed"])
def test_final_event_with_status_cancelled_is_response_lost(kind: str) -> None:
    with pytest.raises(ResponseLost):
        ResponseReader().read(data_of(event(kind, response={"status": "cancelled", "error": None})))
