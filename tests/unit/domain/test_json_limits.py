"""JSON from outside: what is counted before it is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import json_limits
from chalicelib.domain.json_limits import MAX_LEVELS, JsonRefused, count_values, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8") | st.sampled_from('"\\,[{}]:')),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('"\\,[{}]: a', max_size=5), inner, max_size=5),
    max_leaves=30,
)


@given(value=VALUES, ascii_only=st.booleans())
def test_the_limit_is_the_number_of_values_whatever_the_texts_contain(value: Any, ascii_only: bool) -> None:
    document, count = json.dumps(value, ensure_ascii=ascii_only), count_values(value)
    # An empty list or object counts as one that has a value: that cannot be seen without parsing.
    most = count + document.count("[]") + document.count("{}")

    assert loads(document, most) == value
    assert loads(document.encode(), most) == value
    if count > 1:
        with pytest.raises(JsonRefused, match=f"at most {count - 1:,} are allowed"):
            loads(document, count - 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_that_json_may_have_is_counted(encoding: str) -> None:
    document = json.dumps({"a": [1, 2, "ü,,"]}, ensure_ascii=False).encode(encoding)

    assert loads(document, 5) == {"a": [1, 2, "ü,,"]}
    with pytest.raises(JsonRefused, match="has 5 values; at most 4 are allowed"):
        loads(document, 4)


def test_nesting_is_refused_beyond_the_limit_and_brackets_in_texts_are_none() -> None:
    assert loads("[" * MAX_LEVELS + "]" * MAX_LEVELS)
    assert loads(json.dumps(["[" * 1_000, '"' * 1_000, "\\" * 1_001, "{" * 1_000])) is not None
    with pytest.raises(JsonRefused, match="is nested 101 levels deep; at most 100 are allowed"):
        loads("[" * (MAX_LEVELS + 1) + "]" * (MAX_LEVELS + 1))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("9" * 5_000, "4,300 digits"),
        ("[" * 100_000, "values"),
        ('{"a":' * 200 + "1" + "}" * 200, "200 levels"),
    ],
)
def test_what_exceeds_a_limit_is_refused_before_it_is_parsed(document: str, message: str) -> None:
    with pytest.raises(JsonRefused, match=message):
        loads(document)


@pytest.mark.parametrize("document", ["", "{", '"' * 3, '{"a" 1}', "nul", b"\xff\xfe", b"\xc3", "\ufeff1"])
def test_what_is_not_json_raises_a_value_error(document: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kinds are those of the standard library
        loads(document)


def test_limits_of_documents_leave_room_for_the_largest_batch() -> None:
    """10,000 rows with a dozen fields each, as docs/batches.md allows them."""
    rows = [{"id": str(n), "prompt": "x", "priority": "low", "metadata": {f"m{k}": k for k in range(8)}} for n in range(10_000)]

    assert len(loads(json.dumps({"items": rows}), json_limits.MAX_ROWS_VALUES)["items"]) == 10_000


@pytest.mark.parametrize(
    ("document", "path", "name"),
    [
        ('{"a":1,"a":1}', "a", "`a`"),
        ('{"items":[{"b":{"\\u0061":1,"a":2}}]}', "items.0.b.a", "`a`"),
        ('[[{"x":1}],{"x":1,"y":2,"x":3}]', "1.x", "`x`"),
        ('{"a":{"x":1,"x":2},"a":3}', "", "`x`"),  # its place is gone with the first value
        ('{"\ufeffa":1,"\ufeffa":2}', "\\ufeffa", "`\\ufeffa`"),
    ],
)
def test_a_field_that_occurs_twice_is_refused_with_its_place(document: str, path: str, name: str) -> None:
    with pytest.raises(JsonRefused) as caught:
        loads(document)

    assert caught.value.path == path
    assert f"{name} twice" in str(caught.value)
    assert loads(document, unique_names=False) == json.loads(document)


@given(VALUES)
def test_a_document_with_each_name_once_is_never_refused_for_its_names(value: Any) -> None:
    assert loads(json.dumps(value)) == value
