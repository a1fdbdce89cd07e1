"""Parameters that Headrace adds by itself, at accounts and servers that refuse them."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.adapters.openai import provider as provider_module
from chalicelib.adapters.openai.provider import OpenAIResponses, request_fields
from chalicelib.domain.failures import ProviderTimeout, ReattachRefused, RequestRefused, StreamCut
from chalicelib.ports import ModelRequest, ProviderEvent, ResponseStarted
from chalicelib.settings import Settings, SettingsError
from tests.contract.openai.loopback import CREATED, Answer, Loopback, Pause, completed, delta, refused
from tests.contract.openai.test_provider import ASK, error_of, played, read, text_of
from tests.contract.openai.test_quirky_openai import asked
from tests.kit.quirky_openai import QuirkyOpenAI

STREAMED = Answer([CREATED, delta("Hello"), completed()])
SCOPED = {"prompt_cache_key": "scoped"}
WHOLE = Answer(
    [
        json.dumps(
            {
                "id": "resp_1",
                "model": "m",
                "status": "completed",
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
            }
        ).encode()
    ],
    headers={"content-type": "application/json"},
)


def text_and_requests(
    *answers: Answer, request: ModelRequest = ASK, times: int = 1, **settings: Any
) -> tuple[list[str], list[dict[str, Any]]]:
    async def play(server: Loopback, provider: OpenAIResponses) -> tuple[list[str], list[dict[str, Any]]]:
        return [text_of(await read(provider, request)) for _ in range(times)], server.requests

    return played(*answers, play=play, **settings)


# ---- asked again


OBFUSCATION = "stream_options.include_obfuscation"
FASTAPI = {"detail": [{"type": "extra_forbidden", "loc": ["body", name]} for name in ("store", "stream_options")]}


def other(status: int, body: str, kind: str = "application/json") -> Answer:
    return Answer([body.encode()], status, {"content-type": kind})


@pytest.mark.parametrize(
    ("answer", "left_out"),
    [
        (refused(400, message=f"Unknown parameter: '{OBFUSCATION}'.", param=OBFUSCATION), {"stream_options"}),
        (refused(400, message="Unrecognized request argument supplied: stream_options"), {"stream_options"}),
        (refused(400, message="Unsupported parameter: 'prompt_cache_key' is not supported."), {"prompt_cache_key"}),
        (refused(400, message="[{'loc': ('body', 'store'), 'msg': 'Extra inputs are not permitted'}]"), {"store"}),
        (refused(400, message='json: unknown field "store"'), {"store"}),
        (refused(422, message="Additional properties are not allowed ('prompt_cache_key', 'store')"), {"prompt_cache_key", "store"}),
        (other(422, json.dumps(FASTAPI)), {"store", "stream_options"}),
        (other(422, json.dumps({"object": "error", "message": FASTAPI, "code": None})), {"store", "stream_options"}),
        (refused(400, message="store: Extra inputs are not permitted"), {"store"}),
        (refused(400, message="body.store: property store not in schema"), {"store"}),
        (refused(400, message="Argument not supported: prompt_cache_key"), {"prompt_cache_key"}),
        (refused(400, message="Unrecognized request arguments supplied: metadata, prompt_cache_key"), {"prompt_cache_key"}),
        (refused(400, message="json: cannot unmarshal object into Go struct field .stream_options of type bool"), {"stream_options"}),
        (other(422, "unknown field `store`, expected one of `model`, `input`", "text/plain"), {"store"}),
    ],
)
def test_a_refused_parameter_of_ours_is_left_out(answer: Answer, left_out: set[str]) -> None:
    """The next request to the model is right at once."""
    request = ModelRequest(model="m", prompt="Hi", timeout=5.0, extra=SCOPED)

    texts, requests = text_and_requests(answer, STREAMED, request=request, times=2)

    assert texts == ["Hello", "Hello"]
    assert [set(requests[0]) - set(one) for one in requests] == [set(), left_out, left_out]


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, {"message": "Your organization must be verified to stream this model.", "param": "stream", "code": "unsupported_value"}),
        (400, {"message": "Your organization must be verified to stream this model."}),
        (400, {"message": "Streaming is not supported for this model."}),
        (422, {"message": "This deployment does not support streaming"}),
        (501, {"message": "stream is not implemented: unsupported"}),
    ],
)
def test_a_refused_stream_is_asked_again_without(status: int, fields: dict[str, Any]) -> None:
    texts, requests = text_and_requests(refused(status, **fields), WHOLE, times=2)

    assert texts == ["Hello", "Hello"]
    assert [one.get("stream") for one in requests] == [True, None, None]
    assert "stream_options" not in requests[1]


@pytest.mark.parametrize("quirk", ["unverified", "no-obfuscation"])
def test_the_stand_in_answers_after_one_refusal(quirky_openai: QuirkyOpenAI, quirk: str) -> None:
    assert text_of(asked(quirky_openai, f"[[{quirk}]] Say hello"))
    assert len(quirky_openai.requests) == 2


def test_two_refusals_of_one_request_are_both_learned() -> None:
    answers = (refused(400, message="Unknown parameter: 'store'."), refused(400, message="Unknown parameter: 'stream_options'."))

    texts, requests = text_and_requests(*answers, STREAMED)

    assert texts == ["Hello"]
    assert [set(requests[0]) - set(one) for one in requests] == [set(), {"store"}, {"store", "stream_options"}]


def test_a_refusal_is_forgotten_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """An organisation may be verified meanwhile."""
    now = [1_000.0]
    monkeypatch.setattr(provider_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def play(server: Loopback, provider: OpenAIResponses) -> list[Any]:
        for later in (0, 3_500, 200):
            now[0] += later
            await read(provider)
        return [one.get("stream") for one in server.requests]

    assert played(refused(400, message="No.", param="stream"), WHOLE, WHOLE, STREAMED, play=play) == [True, None, None, True]


def test_another_model_of_the_same_server_is_asked_with_everything() -> None:
    async def play(server: Loopback, provider: OpenAIResponses) -> list[dict[str, Any]]:
        for model in ("one", "two"):
            await read(provider, ModelRequest(model=model, prompt="Hi", timeout=5.0))
        return server.requests

    requests = played(refused(400, message="Unknown parameter: 'store'."), STREAMED, play=play)

    assert ["store" in one for one in requests] == [True, False, True]


# ---- not asked again


def test_a_parameter_that_is_refused_again_and_again_ends_the_request(quirky_openai: QuirkyOpenAI) -> None:
    with pytest.raises(RequestRefused):
        asked(quirky_openai, "[[fastapi-422]] hi")
    assert len(quirky_openai.requests) == 2


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ModelRequest(model="m", prompt="Hi", temperature=0.3), "temperature"),
        (ModelRequest(model="m", prompt="Hi", max_tokens=50), "max_output_tokens"),
        (ModelRequest(model="m", prompt="Hi", extra={"store": True}), "store"),
        (ModelRequest(model="m", prompt="Hi", background=True), "store"),
        (ModelRequest(model="m", prompt="Hi", extra={"safety_identifier": "x"}), "safety_identifier"),
    ],
)
def test_what_the_caller_asked_for_is_never_left_out(request_: ModelRequest, param: str) -> None:
    """The refusal says how the parameter is called here."""

    async def play(server: Loopback, provider: OpenAIResponses) -> tuple[str, int]:
        with pytest.raises(RequestRefused) as raised:
            await read(provider, request_)
        return raised.value.message, len(server.requests)

    message, count = played(refused(400, message=f"Unsupported parameter: '{param}'.", param=param), STREAMED, play=play)

    assert count == 1
    assert "`config." in message


def test_words_about_something_else_do_not_change_the_request() -> None:
    for words in ("The prompt says 'store' and is too long.", "Invalid value for 'input': the stream of words is not supported by 'x'."):
        error_of(refused(400, message=words, param="input"), RequestRefused)


# ---- asked for, or set by the operator


def test_a_request_without_a_stream_asks_for_none() -> None:
    texts, [request] = text_and_requests(WHOLE, request=ModelRequest(model="m", prompt="Hi", timeout=5.0, stream=False))

    assert texts == ["Hello"]
    assert not {"stream", "stream_options"} & set(request)


@pytest.mark.parametrize("answer", [STREAMED, WHOLE])
@pytest.mark.parametrize("streamed", [True, False])
def test_the_answer_is_read_as_it_comes_whatever_was_asked_for(answer: Answer, streamed: bool) -> None:
    texts, _ = text_and_requests(answer, request=ModelRequest(model="m", prompt="Hi", timeout=5.0, stream=streamed))

    assert texts == ["Hello"]


def test_a_stream_that_is_sent_as_json_is_read_as_a_stream() -> None:
    mislabelled = {"content-type": "application/json"}

    assert text_and_requests(Answer(STREAMED.steps, headers=mislabelled))[0] == ["Hello"]
    error_of(Answer([CREATED, delta("Hel")], headers=mislabelled), StreamCut)


def test_an_error_in_a_whole_answer_with_status_200_is_the_providers_error() -> None:
    failed = Answer([b'{"error": {"code": "invalid_prompt", "message": "Too long."}}'], headers={"content-type": "application/json"})

    assert "Too long." in error_of(failed, RequestRefused).message


def test_omitted_parameters_are_never_sent() -> None:
    request = ModelRequest(model="m", prompt="Hi", max_tokens=50, extra=SCOPED, timeout=5.0)
    omits = Settings.from_env(
        {"HEADRACE_OMIT_PARAMETERS": "stream,stream_options, store,prompt_cache_key,max_output_tokens"}
    ).omit_parameters

    _, [sent] = text_and_requests(WHOLE, request=request, omits=omits)

    assert sent == {"model": "m", "input": "Hi"}


def test_the_operators_omission_of_store_spares_what_the_caller_asked_for() -> None:
    assert request_fields(ModelRequest(model="m", prompt="Hi", extra={"store": True}), {"store"})["store"] is True
    assert request_fields(ModelRequest(model="m", prompt="Hi", background=True), {"store"})["store"] is True


def test_an_unknown_omission_is_refused() -> None:
    with pytest.raises(SettingsError, match="HEADRACE_OMIT_PARAMETERS"):
        Settings.from_env({"HEADRACE_OMIT_PARAMETERS": "model"})


# ---- while the answer is awaited


def test_cancelling_a_request_without_a_stream_closes_its_connection() -> None:
    """OpenAI learns from it that the answer is not wanted."""

    async def play(server: Loopback, provider: OpenAIResponses) -> None:
        task = asyncio.create_task(read(provider, ModelRequest(model="m", prompt="Hi", stream=False, timeout=30.0)))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.hung_up.wait(), 2)

    played(Answer([b"{", Pause(5), b"}"], headers={"content-type": "application/json"}), play=play)


def test_an_answer_without_a_stream_that_does_not_end_is_a_timeout() -> None:
    slow = Answer([b"{", Pause(5), b"}"], headers={"content-type": "application/json"})

    async def play(_: Loopback, provider: OpenAIResponses) -> None:
        with pytest.raises(ProviderTimeout):
            await read(provider, ModelRequest(model="m", prompt="Hi", stream=False, timeout=0.3))

    played(slow, play=play)


def test_a_background_request_whose_stream_is_refused_gives_its_id() -> None:
    queued = Answer([b'{"id": "resp_7", "status": "queued", "output": []}'], headers={"content-type": "application/json"})
    request = ModelRequest(model="m", prompt="Hi", background=True, timeout=5.0)

    async def play(_: Loopback, provider: OpenAIResponses) -> list[ProviderEvent]:
        seen: list[ProviderEvent] = []

        async def gather() -> None:
            async with provider.stream(request) as events:
                async for one in events:
                    seen.append(one)  # noqa: PERF401 - a comprehension that raises loses what it has collected

        with pytest.raises(ReattachRefused):
            await gather()
        return seen

    assert played(refused(400, message="No.", param="stream"), queued, play=play) == [ResponseStarted("resp_7", "")]
