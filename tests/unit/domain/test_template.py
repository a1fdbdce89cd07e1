"""What a template in a prompt stands for."""

from __future__ import annotations

import string
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import TemplateProblem
from chalicelib.domain.template import ESCAPED_BRACES, fill, fill_within, names, names_within, rename_placeholders

NAMES = st.text(string.ascii_letters + string.digits + "_- ", min_size=1, max_size=12).map(str.strip).filter(bool)


def test_a_place_is_filled_with_its_value_and_spaces_around_the_name_do_not_count() -> None:
    assert fill("Dear {{ name }}, {{name}}!", {"name": "Ada"}) == "Dear Ada, Ada!"


def test_steps_lead_into_objects_and_lists_and_what_is_no_text_is_put_in_as_json() -> None:
    parents = {"audit": {"output": "fine", "parsed": {"findings": [{"title": "A"}], "score": 3}}}

    assert fill("{{parents.audit.parsed.findings.0.title}} {{parents.audit.parsed.score}}", {"parents": parents}) == "A 3"
    assert fill("{{parents.audit.parsed.findings}}", {"parents": parents}) == '[{"title": "A"}]'


def test_a_column_with_a_dot_in_its_name_is_found_whole() -> None:
    assert fill("{{a.b}}", {"a.b": "column"}) == "column"


@pytest.mark.parametrize("text", ["{{missing}}", "{{a.b}}", "{{}}", "{{a.0}}", "{{list.9}}", "{{list.-x}}"])
def test_a_place_that_cannot_be_filled_is_named_with_what_there_is(text: str) -> None:
    with pytest.raises(TemplateProblem, match=r"known are \{\{a\}\}, \{\{list\}\}"):
        fill(text, {"a": 1, "list": [1]})


@given(st.text(), st.dictionaries(NAMES, st.text()))
def test_what_is_put_in_is_never_read_as_a_template(value: str, others: dict[str, str]) -> None:
    """A row's text that looks like a template stays as it is."""
    hostile = f"{{{{other}}}}{value}{{{{input}}}}"

    assert fill("[{{input}}]", {**others, "input": hostile}) == f"[{hostile}]"


@given(st.lists(st.tuples(st.text(string.ascii_letters + " {}\n", max_size=20), NAMES), max_size=6))
def test_filling_is_putting_the_values_between_what_stands_around_them(parts: list[tuple[str, str]]) -> None:
    """The places are found whatever stands around them, as long as that has no pair of braces of its own."""
    parts = [(text.replace("{", "").replace("}", ""), name) for text, name in parts]
    values = {name: f"<{name}>" for _, name in parts}

    assert fill("".join(f"{text}{{{{{name}}}}}" for text, name in parts), values) == "".join(f"{text}<{name}>" for text, name in parts)
    assert names("".join(f"{text}{{{{{name}}}}}" for text, name in parts)) == tuple(dict.fromkeys(name for _, name in parts))


@given(st.text())
def test_any_text_is_a_template_or_is_refused_and_without_braces_stays_what_it_is(text: str) -> None:
    if "{{" not in text:
        assert fill(text, {}) == text
        return
    try:
        fill(text, {})
    except TemplateProblem:
        assert names(text)


def test_four_braces_stand_for_two_that_are_to_stay() -> None:
    assert fill(f"{ESCAPED_BRACES}name}}}} is {{{{name}}}}", {"name": "Ada"}) == "{{name}} is Ada"
    assert names(f"{ESCAPED_BRACES}name}}}}") == ()


def test_a_json_value_is_filled_in_all_its_texts_and_asks_for_what_they_ask() -> None:
    given: Any = {"turns": [{"speaker": "{{who}}", "n": 1}], "{{key}}": None}

    assert fill_within(given, {"who": "Ada"}) == {"turns": [{"speaker": "Ada", "n": 1}], "{{key}}": None}
    assert names_within(given) == ("who",)


def test_text_that_is_nearly_all_places_takes_no_time() -> None:
    """A megabyte of braces that never close, and spaces where names would be: each is looked at once."""
    text = ("{{" + " " * 330) * 3_000

    began = time.process_time()
    found = names(text)

    assert found == ()
    assert time.process_time() - began < 0.5


def test_a_long_value_in_very_many_places_is_refused_before_it_is_made() -> None:
    """A worker must not run out of memory for what one job asks for: all the others that it runs would end with it."""
    value = "long " * 20_000

    for make in (
        lambda: fill("{{it}}" * 40_000, {"it": value}),
        lambda: fill_within(["{{it}}"] * 40_000, {"it": value}),
        lambda: rename_placeholders("{{it}}" * 40_000, ("it",), value),
    ):
        tracemalloc.start()
        with pytest.raises(TemplateProblem, match="4,000,000"):
            make()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()
