"""JSON within a model's answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.validation import embedded_json
from chalicelib.domain.validation.embedded_json import MAX_CANDIDATES, MAX_PASSES, candidates, unwrapped

PERSON = {"name": "Ada", "born": 1815}
TEXT = json.dumps(PERSON)


@pytest.mark.parametrize(
    "answer",
    [
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}\n```",
        f"```JSON\r\n{TEXT}\r\n```\n",
        f"Here it is:\n\n```json\n{TEXT}\n```\nAnything else?",
        f"I will extract the person now.{TEXT}",
        f"{TEXT}\n\nI hope that this helps :-}}",
        f"\ufeff{TEXT}",
        f"<think>A person {{maybe}}, or [two]? {json.dumps({'draft': 1})}</think>\n{TEXT}",
        f"{TEXT}\n{TEXT}",
        f'He said "{{" and then: {TEXT}',
        f"Not this: {{name: Ada}}. This: {TEXT}",
    ],
)
def test_one_document_is_found_in_what_is_around_it(answer: str) -> None:
    assert candidates(answer) == [PERSON]


def test_a_fenced_value_may_be_of_any_kind() -> None:
    assert candidates("```json\n42\n```") == [42]


@pytest.mark.parametrize(
    "answer", ["", "no JSON", "{", "}{", "{'name': 'Ada'}", "[" * 500, '"' + "{" * 500, "{" * 60 + "}" * 60 + "x" * 10]
)
def test_an_answer_without_json_has_no_candidates(answer: str) -> None:
    assert candidates(answer) == []


def test_several_documents_are_all_returned_up_to_a_limit() -> None:
    assert candidates('{"a": 1} or {"a": 2}') == [{"a": 1}, {"a": 2}]
    assert len(candidates(" ".join(f"[{n}]" for n in range(100)))) == MAX_CANDIDATES + 1


@pytest.mark.parametrize("answer", ["[" * 400_000, '{"a": ' * 100_000, '["' * 200_000, "{" + '"' * 399_999])
def test_a_hostile_answer_is_scanned_four_times_at_most(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[int] = []
    end_of = embedded_json._end_of
    monkeypatch.setattr(embedded_json, "_end_of", lambda text, start: (scans.append(start), end_of(text, start))[1])

    candidates(answer)

    assert len(scans) <= MAX_PASSES + 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('Here: {"tag": "</think>"} Done.', [{"tag": "</think>"}]),
        ('Thoughts with {"a": 1}.</think>{"tag": "</think>"}', [{"tag": "</think>"}]),
        ('Thoughts with {"a": 1}.</think>No answer.', []),
    ],
)
def test_end_of_thoughts_within_a_text_of_the_document_ends_no_thoughts(answer: str, found: list[Any]) -> None:
    assert candidates(answer) == found


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.integers() | st.text(), min_size=1), st.text(alphabet="abc .,!\n"))
def test_json_between_plain_words_is_found(value: dict[str, Any], words: str) -> None:
    assert candidates(f"{words}{json.dumps(value)}{words}") == [value]


@pytest.mark.parametrize(
    ("value", "inner"), [({"person": PERSON}, [PERSON]), ([PERSON], [PERSON]), (TEXT, [PERSON]), ("Ada", []), (PERSON, []), (7, [])]
)
def test_a_wrapping_of_one_value_is_unwrapped(value: Any, inner: list[Any]) -> None:
    assert list(unwrapped(value)) == inner
