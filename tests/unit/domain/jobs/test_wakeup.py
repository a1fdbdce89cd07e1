"""Wake-up messages: parsed back to what was sent, or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import InvalidMessage
from chalicelib.domain.queues.wakeup import WakeUp

ID = "job_01JZZZZZZZZZZZZZZZZZZZZZZZ"


@given(job_id=st.from_regex(r"job_[0-9A-HJKMNP-TV-Z]{26}", fullmatch=True), generation=st.integers(1, 10**9))
def test_wake_up_round_trips_through_json(job_id: str, generation: int) -> None:
    wake_up = WakeUp(job_id, generation)

    assert WakeUp.from_json(wake_up.to_json()) == wake_up


def test_unknown_fields_are_ignored() -> None:
    """An older worker must accept the messages of a newer sender."""
    assert WakeUp.from_json(f'{{"job_id": "{ID}", "generation": 2, "more": [1]}}') == WakeUp(ID, 2)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "null",
        "[]",
        "3",
        "{}",
        f'{{"job_id": "{ID}"}}',
        '{"job_id": "", "generation": 1}',
        '{"job_id": 3, "generation": 1}',
        '{"job_id": "j", "generation": 1}',
        f'{{"job_id": "{ID}0", "generation": 1}}',
        f'{{"job_id": "{ID.lower()}", "generation": 1}}',
        f'{{"job_id": "{ID}\\n", "generation": 1}}',
        f'{{"job_id": "{ID}", "generation": "1"}}',
        f'{{"job_id": "{ID}", "generation": true}}',
        f'{{"job_id": "{ID}", "generation": 1.5}}',
        f'{{"job_id": "{ID}", "generation": ' + "9" * 5_000 + "}",
        "[" * 200_000,  # deep enough to exhaust the parser
    ],
)
def test_malformed_message_raises_invalid_message(body: str) -> None:
    """The handler sends such a message to the dead-letter queue and processes the others."""
    with pytest.raises(InvalidMessage):
        WakeUp.from_json(body)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_arbitrary_json_raises_only_invalid_message(value: object) -> None:
    with pytest.raises(InvalidMessage):
        WakeUp.from_json(json.dumps(value))
