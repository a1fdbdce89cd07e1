"""What the provider makes of answers in several parts, and of usage and tiers as servers report them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.adapters.openai.events import ResponseReader, fetched, whole
from chalicelib.domain.failures import AddressInvalid, AttemptFailed, ReattachRefused, RequestRefused, StreamCut, StreamMalformed
from chalicelib.domain.jobs.job import Usage
from chalicelib.ports import ProviderEvent, ResponseEnded, ResponseStarted, TextDelta
from tests.contract.openai.loopback import CREATED, Answer, Pause, completed, event
from tests.contract.openai.test_provider import error_of, events_of, text_of
from tests.contract.openai.test_quirky_openai import asked
from tests.kit.quirky_openai import PERSON, QuirkyOpenAI

FIRST, SECOND = "I will look it up.", "It is 42."


def item(number: int, text: str = "", kind: str = "output_text", **more: Any) -> dict[str, Any]:
    part = {"type": kind, "refusal" if kind == "refusal" else "text": text}
    return {"type": "message", "id": f"msg_{number}", "content": [part] if text else [], **more}


def added(index: int, number: int | None = None, **more: Any) -> bytes:
    return event("response.output_item.added", output_index=index, item=item(index if number is None else number, **more))


def done(index: int, text: str, **more: Any) -> bytes:
    return event("response.output_item.done", output_index=index, item=item(index, text, **more))


def delta(text: str, index: int | None = None, number: int = 0, kind: str = "output_text", **more: Any) -> bytes:
    place = {} if index is None else {"output_index": index}
    return event(f"response.{kind}.delta", delta=text, item_id=f"msg_{number if index is None else index}", **place, **more)


def ended(seen: list[ProviderEvent]) -> ResponseEnded:
    assert isinstance(seen[-1], ResponseEnded)
    return seen[-1]


# ---- several messages


def test_commentary_is_not_part_of_the_text(quirky_openai: QuirkyOpenAI) -> None:
    assert text_of(asked(quirky_openai, "[[phases]] x")) == PERSON


def test_messages_without_a_phase_are_separated_by_a_blank_line() -> None:
    seen = events_of(CREATED, added(0), delta(FIRST, 0), done(0, FIRST), added(1), delta("It ", 1), delta("is 42.", 1), completed())

    assert text_of(seen) == f"{FIRST}\n\n{SECOND}"
    assert [one.message for one in seen if isinstance(one, TextDelta)] == [False, True, False]


@pytest.mark.parametrize("announced", [True, False])
def test_messages_are_told_apart_by_their_ids_where_deltas_have_no_index(announced: bool) -> None:
    begins = [added(0), added(1)] if announced else [b"", b""]

    seen = events_of(CREATED, *filter(None, [begins[0], delta(FIRST), begins[1], delta(SECOND, number=1)]), completed())

    assert text_of(seen) == f"{FIRST}\n\n{SECOND}"


def test_commentary_whose_deltas_have_no_index_is_left_out() -> None:
    seen = events_of(
        CREATED, added(0, phase="commentary"), delta(FIRST), added(1, phase="final_answer"), delta(SECOND, number=1), completed()
    )

    assert text_of(seen) == SECOND


def test_an_item_whose_id_changes_within_the_stream_is_one_item() -> None:
    """Some proxies make a new id for each event."""
    pieces = [event("response.output_text.delta", delta=text, output_index=0, item_id=f"msg_{text}") for text in ("It ", "is ", "42.")]

    assert text_of(events_of(CREATED, added(0, 7), *pieces, done(0, SECOND), completed(output=[item(9, SECOND)]))) == SECOND


def test_a_repeated_item_is_read_once() -> None:
    seen = events_of(CREATED, added(0), delta(SECOND, 0), done(0, SECOND), done(0, SECOND), completed(output=[item(0, SECOND)] * 2))

    assert text_of(seen) == SECOND


def test_commentary_alone_is_the_text() -> None:
    said = item(0, FIRST, phase="commentary")

    assert text_of(events_of(CREATED, added(0, phase="commentary"), delta(FIRST, 0), completed(output=[said]))) == FIRST


def test_reasoning_is_not_part_of_the_text() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hmm."}]}
    seen = events_of(
        CREATED,
        event("response.output_item.added", output_index=0, item={**thought, "content": []}),
        event("response.reasoning_text.delta", output_index=0, delta="Hmm."),
        event("response.reasoning_summary_text.delta", output_index=0, delta="Hm."),
        event("response.output_item.done", output_index=0, item=thought),
        added(1),
        delta(SECOND, 1),
        completed(output=[thought, item(1, SECOND)]),
    )

    assert text_of(seen) == SECOND


def test_a_refusal_after_text_is_set_apart_and_marked() -> None:
    seen = events_of(CREATED, added(0), delta("Well.", 0), delta("I cannot.", 0, kind="refusal"), completed())

    assert [(one.text, one.refusal) for one in seen if isinstance(one, TextDelta)] == [("Well.", False), ("\n\nI cannot.", True)]


@pytest.mark.parametrize(
    "content",
    [
        SECOND,
        [{"type": "output_text", "text": SECOND}],
        [{"type": "text", "text": SECOND}],
        [None, 7, {"type": "output_text", "text": SECOND}],
    ],
)
def test_text_that_is_sent_only_whole_is_read_in_every_form(content: Any) -> None:
    message = {"type": "message", "id": "msg_0", "content": content}
    last = event("response.output_item.done", output_index=0, item=message)

    assert text_of(events_of(CREATED, added(0), last, completed())) == SECOND
    assert text_of(events_of(CREATED, completed(output=[message]))) == SECOND


@pytest.mark.parametrize(
    "whole_part",
    [
        event("response.output_text.done", output_index=0, item_id="msg_0", content_index=0, text=SECOND),
        event("response.content_part.done", output_index=0, item_id="msg_0", part={"type": "output_text", "text": SECOND}),
    ],
)
@pytest.mark.parametrize("before", [[], [delta(SECOND, 0)]])
def test_a_part_that_is_sent_only_whole_is_read_and_otherwise_not_repeated(whole_part: bytes, before: list[bytes]) -> None:
    assert text_of(events_of(CREATED, added(0), *before, whole_part, whole_part, done(0, SECOND), completed())) == SECOND


def test_commentary_that_is_sent_only_whole_is_left_out() -> None:
    said = event("response.output_text.done", output_index=0, item_id="msg_0", text=FIRST)

    assert text_of(events_of(CREATED, added(0, phase="commentary"), said, added(1), delta(SECOND, 1), completed())) == SECOND


def test_a_refusal_that_is_sent_only_whole_is_marked() -> None:
    seen = events_of(CREATED, event("response.refusal.done", output_index=0, item_id="msg_0", refusal="No."), completed())

    assert [(one.text, one.refusal) for one in seen if isinstance(one, TextDelta)] == [("No.", True)]


def test_a_delta_of_nothing_is_no_text() -> None:
    nothing = event("response.output_text.delta", delta=None, item_id="msg_0", output_index=0)

    assert text_of(events_of(CREATED, nothing, delta(SECOND, 0), completed())) == SECOND


def test_the_stream_of_another_api_is_known_at_its_first_event() -> None:
    """So it is not asked, and paid for, three times."""
    chunk = b'data: {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'

    assert "Chat Completions" in error_of(Answer([chunk, b"data: [DONE]\n\n"]), AddressInvalid).message


def test_text_beyond_the_deltas_is_taken_from_the_final_event() -> None:
    output = [item(0, FIRST), item(1, SECOND)]

    assert text_of(events_of(CREATED, added(0), delta(FIRST, 0), completed(output=output))) == f"{FIRST}\n\n{SECOND}"
    assert text_of(events_of(CREATED, added(0), delta("I will", 0), completed(output=output))) == f"{FIRST}\n\n{SECOND}"
    assert text_of(events_of(CREATED, added(0), delta("Other", 0), completed(output=output))) == "Other"


@pytest.mark.parametrize("after", [2, 3, 4, 6])
def test_a_resumed_stream_has_the_same_text_wherever_it_begins(after: int) -> None:
    """Also between two messages, and within commentary."""
    stream = [
        added(0, phase="commentary"),
        delta("Let me see.", 0),
        added(1),
        delta("I will ", 1),
        delta("look it up.", 1),
        added(2),
        delta("It is ", 2),
        delta("42.", 2),
        completed(),
    ]
    events = [{**json.loads(one.split(b"data: ")[1]), "sequence_number": number} for number, one in enumerate(stream, 1)]

    def read(reader: ResponseReader, part: list[dict[str, Any]]) -> str:
        return text_of([one for each in part for one in reader.read(json.dumps(each).encode()) or ()])

    before = read(ResponseReader(), events[:after])
    known = max((each["sequence_number"] for each in events[:after] if "delta" in each and each["output_index"] > 0), default=0)

    assert before + read(ResponseReader(known), events[known:]) == f"{FIRST}\n\n{SECOND}"


def test_a_fetched_response_has_the_text_of_its_stream() -> None:
    output = [item(0, "Let me see.", phase="commentary"), item(1, FIRST), item(2, SECOND)]

    assert fetched(json.dumps({"status": "completed", "output": output}).encode()).text == f"{FIRST}\n\n{SECOND}"


# ---- silence


@pytest.mark.parametrize(
    "before",
    [
        [CREATED],
        [CREATED, event("response.in_progress", response={})],
        [CREATED, added(0, phase="commentary"), delta(FIRST, 0), done(0, FIRST, phase="commentary")],
        [CREATED, added(0)],
        [CREATED, event("response.output_item.done", output_index=0, item={"type": "reasoning"})],
    ],
)
def test_silence_before_an_answer_may_last_as_long_as_the_request_allows(before: list[bytes]) -> None:
    assert text_of(events_of(*before, Pause(0.4), delta(SECOND, 1), completed(), idle_timeout=0.2)) == SECOND


# ---- usage and tier

DETAILS = {"cached_tokens": 4, "reasoning_tokens": 2}


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}, Usage(input=20, output=10)),
        (
            {"prompt_tokens": 20, "completion_tokens": 10, "prompt_tokens_details": DETAILS, "completion_tokens_details": DETAILS},
            Usage(input=20, cached=4, output=10, reasoning=2),
        ),
        ({"input_tokens": 20, "total_tokens": 30}, Usage(input=20, output=10)),
        ({"input_tokens": 20.0, "output_tokens": 10.0}, Usage(input=20, output=10)),
        (
            {"input_tokens": 3, "output_tokens": 1, "input_tokens_details": DETAILS, "output_tokens_details": DETAILS},
            Usage(input=3, cached=3, output=1, reasoning=1),
        ),
        (
            {"prompt_tokens": 20, "completion_tokens": 10, "prompt_cache_hit_tokens": 4},
            Usage(input=20, cached=4, output=10),
        ),
        ({"prompt_tokens": 20, "completion_tokens": 10, "cached_tokens": 4}, Usage(input=20, cached=4, output=10)),
        ({"input_tokens": 20, "output_tokens": 0, "total_tokens": 20}, None),
        ({"input_tokens": 20, "total_tokens": 20}, None),
        ({"input_tokens": 0, "prompt_tokens": 20, "output_tokens": 0, "completion_tokens": 10}, None),
        ({}, None),
        (None, None),
        ("30", None),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, None),
        ({"input_tokens": "20", "output_tokens": None}, None),
        ({"input_tokens": True, "output_tokens": True}, None),
        ({"input_tokens": -5, "output_tokens": 10}, None),
        ({"input_tokens": 10**30, "output_tokens": 10}, None),
        ({"input_tokens": 20}, None),
        ({"tokens": 30}, None),
    ],
)
def test_usage_is_read_by_all_known_names_and_is_missing_otherwise(counted: Any, usage: Usage | None) -> None:
    """What is absent or no count is never taken for zero."""
    assert ended(events_of(CREATED, delta(SECOND, 0), completed(usage=counted))).usage == usage


@pytest.mark.parametrize(("quirk", "usage"), [("chat-usage", Usage(input=20, output=10)), ("no-usage", None)])
def test_usage_of_chat_completions_and_none_at_all(quirky_openai: QuirkyOpenAI, quirk: str, usage: Usage | None) -> None:
    assert ended(asked(quirky_openai, f"[[{quirk}]] hi")).usage == usage


def test_no_output_is_a_count_where_there_is_no_text() -> None:
    counted = {"input_tokens": 20, "output_tokens": 0}

    assert ended(events_of(CREATED, completed(usage=counted))).usage == Usage(input=20)
    assert ended(read_whole({"status": "completed", "output": [item(0, SECOND)], "usage": counted})).usage is None


def test_usage_beside_the_response_counts() -> None:
    last = event("response.completed", response={"status": "completed", "output": []}, usage={"input_tokens": 20, "output_tokens": 10})

    assert ended(events_of(CREATED, delta(SECOND, 0), last)).usage == Usage(input=20, output=10)


def test_the_service_tier_that_was_served_is_reported() -> None:
    assert ended(events_of(CREATED, delta(SECOND, 0), completed(service_tier="Priority"))).tier == "priority"
    assert ended(events_of(CREATED, delta(SECOND, 0), completed(service_tier="flex"))).tier == "flex"
    assert ended(events_of(CREATED, delta(SECOND, 0), completed(service_tier=7))).tier is None


# ---- answers that are not streamed


def read_whole(response: Any, **settings: Any) -> list[ProviderEvent]:
    return list(whole(json.dumps(response).encode(), **settings))


def test_a_whole_answer_has_the_same_events_as_a_stream() -> None:
    response = {
        "id": "resp_1",
        "model": "m",
        "status": "completed",
        "output": [item(0, SECOND)],
        "usage": {"input_tokens": 5, "output_tokens": 4},
    }

    assert read_whole(response) == [
        ResponseStarted("resp_1", "m"),
        TextDelta(SECOND, tokens=4),
        ResponseEnded(Usage(input=5, output=4), "m"),
    ]


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ({"error": {"code": "invalid_prompt", "message": "No."}}, RequestRefused),
        ({"status": "failed", "error": {"code": "invalid_prompt", "message": "No."}, "output": []}, RequestRefused),
        ({"hello": "world"}, StreamMalformed),
        ([], StreamMalformed),
        ({"id": "resp_1", "status": "in_progress", "output": []}, StreamCut),
    ],
)
def test_a_whole_answer_that_is_none_is_a_failure(response: Any, kind: type[AttemptFailed]) -> None:
    with pytest.raises(kind):
        read_whole(response)


def test_a_background_response_that_is_not_streamed_has_to_be_fetched() -> None:
    seen: list[ProviderEvent] = []
    with pytest.raises(ReattachRefused):
        seen.extend(whole(json.dumps({"id": "resp_1", "status": "queued", "output": []}).encode(), background=True))
    events = whole(json.dumps({"id": "resp_1", "status": "queued", "output": []}).encode(), background=True)
    assert next(events) == ResponseStarted("resp_1", "")


# ---- any answer, read in any way

WORDS = st.text(alphabet="ab \n", min_size=1, max_size=6)
MESSAGES = st.lists(
    st.tuples(st.sampled_from([None, "commentary", "final_answer"]), st.booleans(), st.lists(WORDS, max_size=4)), max_size=5
)


def stream_of(messages: list[tuple[str | None, bool, list[str]]], announced: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The events of a response with these messages, and the response itself."""
    events: list[dict[str, Any]] = []
    output = []
    for index, (phase, refusal, deltas) in enumerate(messages):
        whole = item(index, "".join(deltas), "refusal" if refusal else "output_text", **({"phase": phase} if phase else {}))
        if announced or phase:
            events.append({"type": "response.output_item.added", "output_index": index, "item": {**whole, "content": []}})
        kind = f"response.{'refusal' if refusal else 'output_text'}.delta"
        events += [{"type": kind, "output_index": index, "item_id": f"msg_{index}", "delta": delta} for delta in deltas]
        events.append({"type": "response.output_item.done", "output_index": index, "item": whole})
        output.append(whole)
    response = {"status": "completed", "output": output}
    events.append({"type": "response.completed", "response": response})
    return [{**one, "sequence_number": number} for number, one in enumerate(events, 1)], response


def text_read(reader: ResponseReader, events: list[dict[str, Any]]) -> tuple[str, int]:
    """What a reader makes of these events, and the number of the last that had text."""
    deltas = [one for each in events for one in reader.read(json.dumps(each).encode()) or () if isinstance(one, TextDelta)]
    return "".join(one.text for one in deltas), max((one.sequence for one in deltas), default=-1)


@settings(deadline=None)
@given(MESSAGES, st.booleans())
def test_the_text_of_a_stream_is_that_of_the_fetched_response(messages: Any, announced: bool) -> None:
    events, response = stream_of(messages, announced)

    assert text_read(ResponseReader(), events)[0] == fetched(json.dumps(response).encode()).text


@settings(deadline=None)
@given(MESSAGES, st.data())
def test_a_stream_that_is_resumed_anywhere_has_the_same_text(messages: Any, data: Any) -> None:
    """Each token once, in order."""
    events, _ = stream_of(messages, announced=True)
    cut = data.draw(st.integers(0, len(events) - 1))
    before, known = text_read(ResponseReader(), events[:cut])

    rest, _ = text_read(ResponseReader(known), events[max(0, known) :])

    assert before + rest == text_read(ResponseReader(), events)[0]
