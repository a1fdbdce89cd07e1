"""The OpenAI provider against a server on the loopback that sends valid and invalid responses."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from typing import Any, TypeVar

import pytest

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failures import (
    AttemptFailed,
    AuthenticationFailed,
    ContentRefused,
    NotConfigured,
    ProviderConnectionLost,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRefused,
    StreamCut,
    StreamMalformed,
)
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.text import SurrogateJoiner
from chalicelib.ports import ModelRequest, ProviderEvent, ResponseEnded, ResponseStarted, TextDelta
from tests.contract.openai.loopback import CREATED, USAGE, Abort, Answer, Loopback, Pause, completed, delta, event, refused

T = TypeVar("T")
ASK = ModelRequest(model="gpt-4o-mini", prompt="Say hello.", timeout=5.0)


def played(*answers: Answer, play: Callable[[Loopback, OpenAIResponses], Awaitable[T]], **settings: Any) -> T:
    """Run `play` with a provider and a server that sends these responses."""

    async def run() -> T:
        async with Loopback(*answers) as server:
            provider = OpenAIResponses(lambda: Credentials("sk-test-0123456789", server.url), **settings)
            try:
                return await play(server, provider)
            finally:
                await provider.client().close()

    return asyncio.run(run())


async def read(provider: OpenAIResponses, request: ModelRequest = ASK) -> list[ProviderEvent]:
    async with provider.stream(request) as events:
        return [seen async for seen in events]


def events_of(*steps: Any, whole: bool = True, **settings: Any) -> list[ProviderEvent]:
    return played(Answer(list(steps), whole=whole), play=lambda _, provider: read(provider), **settings)


def text_of(seen: list[ProviderEvent]) -> str:
    return "".join(one.text for one in seen if isinstance(one, TextDelta))


def error_of(answer: Answer, kind: type[T], **settings: Any) -> T:
    async def play(_: Loopback, provider: OpenAIResponses) -> T:
        with pytest.raises(AttemptFailed) as raised:
            await read(provider)
        assert type(raised.value) is kind, repr(raised.value)
        return raised.value

    return played(answer, play=play, **settings)


# ---- valid streams


def test_stream_yields_start_text_deltas_and_end() -> None:
    """Unknown event types are skipped."""
    seen = events_of(
        CREATED,
        event("response.in_progress", response={}),
        event("response.output_item.added", item={"type": "message"}),
        delta("Hello", 4),
        delta(", world", 5),
        event("response.something.new", surprise=True),
        event("response.output_text.done", text="Hello, world"),
        completed(),
    )

    assert seen == [
        ResponseStarted("resp_1", "gpt-4o-mini-2024-07-18"),
        TextDelta("Hello", 4),
        TextDelta(", world", 5),
        ResponseEnded(Usage(input=12, cached=4, output=7, reasoning=2), "gpt-4o-mini-2024-07-18"),
    ]


def test_refusal_is_a_text_delta_marked_as_refusal() -> None:
    seen = events_of(CREATED, event("response.refusal.delta", delta="I cannot", sequence_number=3), completed())

    assert seen[1] == TextDelta("I cannot", 3, refusal=True)


@pytest.mark.parametrize(
    ("given", "reason"), [("max_output_tokens", "max_tokens"), ("content_filter", "content_filter"), (None, "unknown")]
)
def test_incomplete_response_has_a_reason(given: str | None, reason: str) -> None:
    response = {"status": "incomplete", "incomplete_details": {"reason": given}, "usage": USAGE}

    for kind in ("response.incomplete", "response.completed"):  # compatible servers send it in either
        seen = events_of(CREATED, delta("Hel"), event(kind, response=response))
        assert isinstance(seen[-1], ResponseEnded)
        assert seen[-1].incomplete_reason == reason


def test_text_that_is_only_in_the_final_event_is_delivered() -> None:
    output = [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": "All at once"}]}]

    seen = events_of(CREATED, completed(output=output))

    assert seen[1] == TextDelta("All at once")
    assert isinstance(seen[2], ResponseEnded)


def test_streamed_text_is_not_repeated_from_the_final_event() -> None:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]

    assert text_of(events_of(CREATED, delta("Hello"), completed(output=output))) == "Hello"


def test_done_markers_comments_and_pings_are_ignored() -> None:
    seen = events_of(
        b": hello\n\n", CREATED, event("keepalive"), delta("Hi"), b"data: [DONE]\n\n", b": ping\n\n", completed(), b"data: [DONE]\n\n"
    )

    assert text_of(seen) == "Hi"


def test_final_event_without_usage_ends_the_stream() -> None:
    assert events_of(CREATED, delta("Hi"), completed(usage=None))[-1] == ResponseEnded(None, "gpt-4o-mini-2024-07-18")


# ---- text as bytes


def test_characters_stay_whole_when_bytes_arrive_one_by_one() -> None:
    text = "Grüße, 世界 👋🏽"
    stream = CREATED + f'data: {{"type":"response.output_text.delta","delta":"{text}"}}\r\n\r\n'.encode() + completed()

    seen = events_of(*(stream[at : at + 1] for at in range(len(stream))))

    assert text_of(seen) == text


def test_unicode_line_separator_inside_json_does_not_end_a_line() -> None:
    """JSON may contain U+2028, U+2029 and U+0085 unescaped."""
    text = "one\u2028two\u2029three\x85four\x7f"

    assert text_of(events_of(CREATED, f'data: {{"type":"response.output_text.delta","delta":"{text}"}}\n\n'.encode(), completed())) == text


def test_surrogate_halves_in_two_deltas_can_be_joined() -> None:
    halves = (
        rb'data: {"type":"response.output_text.delta","delta":"hi \ud83d"}',
        rb'data: {"type":"response.output_text.delta","delta":"\ude00"}',
    )

    seen = events_of(CREATED, *(half + b"\n\n" for half in halves), completed())

    joiner = SurrogateJoiner()
    assert "".join(joiner.feed(one.text) for one in seen if isinstance(one, TextDelta)) + joiner.flush() == "hi 😀"


def test_large_deltas_arrive_whole() -> None:
    large = "0123456789" * 20_000

    assert text_of(events_of(CREATED, delta(large), delta(large), completed())) == large * 2


# ---- broken streams


def test_stream_without_a_final_event_is_stream_cut() -> None:
    """The SDK's own iteration ends here without an error."""
    assert error_of(Answer([CREATED, delta("Hel")]), StreamCut).provider_request_id == "req_1"


def test_dropped_connection_is_connection_lost() -> None:
    error_of(Answer([CREATED, delta("Hel"), Abort()]), ProviderConnectionLost)
    error_of(Answer([CREATED, delta("Hel")], whole=False), ProviderConnectionLost)


def test_text_before_a_dropped_connection_is_delivered() -> None:
    got: list[ProviderEvent] = []

    async def play(_: Loopback, provider: OpenAIResponses) -> None:
        async with provider.stream(ASK) as events:
            async for seen in events:
                got.append(seen)  # noqa: PERF401 - a comprehension that raises loses what it has collected

    with pytest.raises(ProviderConnectionLost):
        played(Answer([CREATED, delta("Hel"), Pause(0.05), Abort()]), play=play)

    assert text_of(got) == "Hel"


@pytest.mark.parametrize(
    "nonsense",
    [
        b'data: {"type": "response.outp\n\n',
        b"data: [1, 2]\n\n",
        b'data: {"type":"response.output_text.delta","delta":7}\n\n',
        b"data: \xff\xfe{}\n\n",
    ],
)
def test_unreadable_event_is_stream_malformed(nonsense: bytes) -> None:
    error_of(Answer([CREATED, delta("Hel"), nonsense, completed()]), StreamMalformed)


def test_endless_line_is_stream_malformed() -> None:
    """The line must not fill the memory first."""
    error_of(Answer([CREATED, b"data: ", *[b"x" * 1_000_000] * 9]), StreamMalformed)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("rate_limit_exceeded", ProviderRateLimited),
        ("insufficient_quota", ProviderQuotaExhausted),
        ("server_error", ProviderUnavailable),
        ("something_new", ProviderUnavailable),
        ("invalid_prompt", RequestRefused),
        ("context_length_exceeded", RequestRefused),
        ("bio_policy", ContentRefused),
        ("invalid_api_key", AuthenticationFailed),
    ],
)
def test_error_in_the_stream_is_classified_by_code(code: str, kind: type[AttemptFailed]) -> None:
    """It is an event, nested in one, data without a type, or a failed response."""
    error = {"code": code, "message": "Said so."}

    for last in (
        event("error", **error),
        event("error", error=error),
        event("response.failed", response={"status": "failed", "error": error}),
        b'data: {"error": {"code": "%s", "message": "Said so."}}\n\n' % code.encode(),
    ):
        assert error_of(Answer([CREATED, delta("Hel"), last]), kind).provider_request_id == "req_1"


def test_rate_limit_in_the_stream_takes_retry_after_from_its_message() -> None:
    limited = event("error", code="rate_limit_exceeded", message="Rate limit reached. Please try again in 1m2.5s. Visit ...")

    assert error_of(Answer([CREATED, limited]), ProviderRateLimited).retry_after == 63


# ---- idle timeouts


def test_pings_do_not_hide_a_stall() -> None:
    """Pings keep the SDK's own timeout from firing."""
    pings = [step for _ in range(40) for step in (b": ping\n\n", Pause(0.02), event("keepalive"), Pause(0.02))]
    began = time.monotonic()

    error_of(Answer([CREATED, delta("Hel"), *pings, completed()]), ProviderTimeout, idle_timeout=0.2)

    assert 0.15 < time.monotonic() - began < 1.2


def test_silent_stream_is_a_timeout() -> None:
    error_of(Answer([CREATED, delta("Hel"), Pause(3), completed()]), ProviderTimeout, idle_timeout=0.2)


def test_flex_request_may_be_silent_as_long_as_its_timeout_allows() -> None:
    """Before its response begins to stream, and in it."""
    flex = dataclasses.replace(ASK, extra={"service_tier": "flex"})

    async def play(_: Loopback, provider: OpenAIResponses) -> list[ProviderEvent]:
        return await read(provider, flex)

    answer = Answer([CREATED, Pause(0.4), delta("4"), Pause(0.4), delta("2"), completed()])
    assert text_of(played(answer, play=play, idle_timeout=0.2)) == "42"


def test_reasoning_model_may_be_silent_for_longer() -> None:
    reasoning = event("response.output_item.added", item={"type": "reasoning"})

    assert text_of(events_of(CREATED, reasoning, Pause(0.4), delta("42"), completed(), idle_timeout=0.2)) == "42"


def test_slow_consumer_does_not_cause_an_idle_timeout() -> None:
    async def play(_: Loopback, provider: OpenAIResponses) -> int:
        count = 0
        async with provider.stream(ASK) as events:
            async for _seen in events:
                await asyncio.sleep(0.15)
                count += 1
        return count

    assert played(Answer([CREATED, delta("a"), Pause(0.05), delta("b"), completed()]), play=play, idle_timeout=0.1) == 4


# ---- error responses


def test_rate_limit_error_has_retry_after_status_and_request_id() -> None:
    error = error_of(refused(429, code="rate_limit_exceeded", message="Slow", headers={"retry-after": "2.2"}), ProviderRateLimited)

    assert (error.retry_after, error.provider_status, error.provider_request_id) == (3, 429, "req_1")


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 2),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-4"}, 0),
        ({}, None),
    ],
)
def test_retry_after_is_parsed_from_seconds_and_milliseconds(headers: dict[str, str], wait: int | None) -> None:
    assert error_of(refused(429, message="Slow", headers=headers), ProviderRateLimited).retry_after == wait


def test_retry_after_may_be_a_date() -> None:
    error = error_of(refused(429, message="Slow", headers={"retry-after": formatdate(time.time() + 30, usegmt=True)}), ProviderRateLimited)

    assert 28 <= (error.retry_after or 0) <= 31


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, ProviderQuotaExhausted),
        (429, {"code": "billing_hard_limit_reached"}, ProviderQuotaExhausted),
        (429, {}, ProviderRateLimited),
        (401, {"code": "invalid_api_key"}, AuthenticationFailed),
        (403, {}, RequestRefused),  # a firewall, perhaps because of this one request
        (403, {"code": "unsupported_country_region_territory"}, AuthenticationFailed),
        (403, {"code": "model_not_found"}, RequestRefused),  # what one request may not have must not stop the others
        (403, {"code": "content_policy_violation"}, ContentRefused),
        (400, {"code": "invalid_value"}, RequestRefused),
        (400, {"code": "content_policy_violation"}, ContentRefused),
        (404, {"code": "model_not_found"}, RequestRefused),
        (408, {}, ProviderTimeout),
        (409, {}, RequestRefused),
        (422, {}, RequestRefused),
        (500, {}, ProviderUnavailable),
        (503, {"code": "rate_limit_exceeded"}, ProviderRateLimited),
    ],
)
def test_error_response_is_classified_by_status_and_code(status: int, error: dict[str, str], kind: type[AttemptFailed]) -> None:
    assert error_of(refused(status, **{"message": "No.", **error}), kind).provider_status == status


def test_non_json_error_response_is_classified_by_status() -> None:
    error_of(Answer([b"<html>Bad gateway</html>"], 502, {"content-type": "text/html"}), ProviderUnavailable)


def test_openai_error_message_is_redacted_and_truncated() -> None:
    error = error_of(refused(400, message=f"Bad field 'x' with sk-proj-abcdefgh12345 {'y' * 2_000}"), RequestRefused)

    assert error.message.startswith("OpenAI refused the request: Bad field 'x' with [hidden] yyy")
    assert len(error.message) < 600


def test_refused_key_is_never_quoted() -> None:
    error = error_of(refused(401, message="Incorrect API key provided: sk-test-0123456789.", code="invalid_api_key"), AuthenticationFailed)

    assert "sk-test" not in error.message


def test_refused_connection_is_connection_lost() -> None:
    async def play() -> None:
        provider = OpenAIResponses(lambda: Credentials("key", "http://127.0.0.1:9/v1"))
        with pytest.raises(ProviderConnectionLost):
            await read(provider)

    asyncio.run(play())


def test_response_that_does_not_start_is_a_timeout() -> None:
    async def play(url: str) -> None:
        with pytest.raises(ProviderTimeout):
            await read(OpenAIResponses(lambda: Credentials("key", url)), dataclasses.replace(ASK, timeout=0.3))

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(play(f"http://127.0.0.1:{silent.getsockname()[1]}/v1"))


# ---- requests


def request_body(request: ModelRequest) -> dict[str, Any]:
    async def play(server: Loopback, provider: OpenAIResponses) -> dict[str, Any]:
        await read(provider, request)
        return server.requests[0]

    return played(Answer([CREATED, completed()]), play=play)


def test_minimal_request_sends_only_the_defaults() -> None:
    assert request_body(ASK) == {
        "model": "gpt-4o-mini",
        "input": "Say hello.",
        "stream": True,
        "store": False,
        "stream_options": {"include_obfuscation": False},
    }


def test_full_request_sends_every_field() -> None:
    """`extra` cannot override the model, `stream` or `background`."""
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    extra = {
        "store": True,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "stream": False,
        "background": True,
        "model": "other",
    }

    body = request_body(dataclasses.replace(ASK, instructions="Be brief.", max_tokens=50, temperature=0.0, schema=schema, extra=extra))

    assert body == {
        "model": "gpt-4o-mini",
        "input": "Say hello.",
        "stream": True,
        "store": True,
        "stream_options": {"include_obfuscation": False},
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "temperature": 0.0,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low", "format": {"type": "json_schema", **schema}},
    }


def test_lone_surrogates_in_a_prompt_are_replaced() -> None:
    body = request_body(dataclasses.replace(ASK, prompt="hi \ud83d", instructions="\ude00"))

    assert (body["input"], body["instructions"]) == ("hi \ufffd", "\ufffd")


def test_json_flag_requests_the_json_object_format() -> None:
    assert request_body(dataclasses.replace(ASK, json=True))["text"] == {"format": {"type": "json_object"}}


# ---- connections and keys


def test_connection_is_reused_after_a_complete_response() -> None:
    async def play(server: Loopback, provider: OpenAIResponses) -> int:
        for _ in range(3):
            await read(provider)
        return server.connections

    assert played(Answer([CREATED, delta("Hi"), completed(), Pause(0.01)]), play=play) == 1


def test_leaving_the_stream_early_closes_the_connection() -> None:
    """OpenAI learns from it that the rest is not wanted."""

    async def play(server: Loopback, provider: OpenAIResponses) -> float:
        async with provider.stream(ASK) as events:
            async for seen in events:
                if isinstance(seen, TextDelta):
                    break
        began = time.monotonic()
        await asyncio.wait_for(server.hung_up.wait(), 2)
        return time.monotonic() - began

    assert played(Answer([CREATED, delta("Hel"), Pause(5), completed()]), play=play) < 0.5


def test_cancelling_the_reader_closes_the_connection() -> None:
    async def play(server: Loopback, provider: OpenAIResponses) -> None:
        begun = asyncio.Event()

        async def one() -> None:
            async with provider.stream(ASK) as events:
                async for _ in events:
                    begun.set()

        task = asyncio.create_task(one())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.hung_up.wait(), 0.5)

    played(Answer([CREATED, delta("Hel"), Pause(5), completed()]), play=play)


def keys(*values: str) -> tuple[Callable[[str], Callable[[], Credentials]], Callable[[], None]]:
    """Credentials that change to the next key only after `forget`."""
    left: Iterator[str] = iter(values)
    now = [next(left)]

    def forget() -> None:
        now[0] = next(left, now[0])

    return (lambda url: lambda: Credentials(now[0], url)), forget


@pytest.mark.parametrize(("values", "used"), [(("old", "new"), ["old", "new"]), (("old",), ["old"])])
def test_refused_key_is_reloaded_once(values: tuple[str, ...], used: list[str]) -> None:
    """A replaced key works at once; an unchanged key is not tried twice."""
    credentials_for, forget = keys(*values)

    async def run() -> list[str]:
        async with Loopback(refused(401, message="No."), Answer([CREATED, completed()])) as server:
            provider = OpenAIResponses(credentials_for(server.url), forget=forget)
            first = provider.client()
            if len(values) == 2:
                await read(provider)
            else:
                with pytest.raises(AuthenticationFailed):
                    await read(provider)
            await provider.client().close()
            await first.close()
            return [headers["authorization"].removeprefix("Bearer ") for headers in server.headers]

    assert asyncio.run(run()) == used


def test_address_that_was_replaced_is_used_at_once_when_the_old_one_does_not_answer() -> None:
    async def run() -> str:
        async with Loopback() as gone:
            address = [gone.url]
        async with Loopback(Answer([CREATED, delta("Hi"), completed()])) as server:

            def forget() -> None:
                address[0] = server.url

            provider = OpenAIResponses(lambda: Credentials("sk-test-0123456789", address[0]), forget=forget)
            first = provider.client()
            events = await read(provider)
            await provider.client().close()
            await first.close()
            return "".join(event.text for event in events if isinstance(event, TextDelta))

    assert asyncio.run(run()) == "Hi"


def test_request_that_was_sent_is_not_repeated_when_its_connection_breaks() -> None:
    """OpenAI may have begun a response that is charged. The next attempt uses the newer address."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def run() -> list[int]:
        breaking = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        address, seen = [f"http://127.0.0.1:{breaking.sockets[0].getsockname()[1]}/v1"], list[int]()
        async with breaking, Loopback(Answer([CREATED, completed()])) as server:

            def forget() -> None:
                address[0] = server.url

            provider = OpenAIResponses(lambda: Credentials("sk-test-0123456789", address[0]), forget=forget)
            first = provider.client()
            with pytest.raises(ProviderConnectionLost):
                await read(provider)
            seen.append(len(server.requests))
            await read(provider)
            seen.append(len(server.requests))
            await provider.client().close()
            await first.close()
        return seen

    assert asyncio.run(run()) == [0, 1]


def test_unreadable_key_is_a_retryable_failure() -> None:
    def unreadable() -> Credentials:
        raise Unavailable

    with pytest.raises(ProviderUnavailable, match="key") as raised:
        asyncio.run(read(OpenAIResponses(unreadable)))
    assert raised.value.retryable


def test_importing_the_adapter_does_not_import_the_sdk() -> None:
    script = "import sys, chalicelib.adapters.openai.provider; print({'openai', 'httpx2', 'botocore'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("problem", "has_key"), [(None, True), (NotConfigured(), False), (Unavailable(), True), (PermissionError("secretsmanager"), True)]
)
def test_provider_is_configured_unless_the_secret_has_no_key(problem: Exception | None, has_key: bool) -> None:
    """A secret that cannot be read may hold a key, and the request then reports the problem."""

    def credentials() -> Credentials:
        if problem is not None:
            raise problem
        return Credentials("sk-test-0123456789")

    assert asyncio.run(OpenAIResponses(credentials).is_configured()) is has_key
