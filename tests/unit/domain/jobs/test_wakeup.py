"""The queue message: read back as it was, or refused with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import InvalidMessage
from chalicelib.domain.queues.wakeup import WakeUp

ID = "job_01JZZZZZZZZZZZZZZZZZZZZZZZ"


@given(job_id=st.from_regex(r"job_[0-9A-HJKMNP-TV-Z]{26}", fullmatch=True), generation=st.integers(1, 10**9))
def test_there_and_back(job_id: str, generation: int) -> None:
    """A message is read as what was sent."""
    wake_up = WakeUp(job_id, generation)

    assert WakeUp.from_json(wake_up.to_json()) == wake_up


def test_later_fields_are_ignored() -> None:
    """A newer sender may say more; an older worker still understands."""
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
        "[" * 200_000,  # deep enough to exhaust the reader
    ],
)
def test_what_is_no_wake_up(body: str) -> None:
    """A message that is not ours is named as such, whatever it is, so that it is set aside and stops nobody else."""
    with pytest.raises(InvalidMessage):
        WakeUp.from_json(body)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json(value: object) -> None:
    """Nothing but BadMessage comes out of a message that is none of ours."""
    with pytest.raises(InvalidMessage):
        WakeUp.from_json(json.dumps(value))
