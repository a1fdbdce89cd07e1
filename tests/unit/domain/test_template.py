"""Templates in prompts: placeholders, paths, escapes and limits."""

from __future__ import annotations

import string
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import TemplateProblem
from chalicelib.domain.template import (
    ESCAPED_BRACES,
    fill,
    fill_within,
    match_names,
    match_names_within,
    name_key,
    names,
    names_within,
    rename_placeholders,
)

NAMES = st.text(string.ascii_letters + string.digits + "_- ", min_size=1, max_size=12).map(str.strip).filter(bool)


def test_placeholder_names_may_have_surrounding_spaces() -> None:
    assert fill("Dear {{ name }}, {{name}}!", {"name": "Ada"}) == "Dear Ada, Ada!"


def test_paths_reach_into_objects_and_lists_and_values_render_as_json() -> None:
    parents = {"audit": {"output": "fine", "parsed": {"findings": [{"title": "A"}], "score": 3}}}

    assert fill("{{parents.audit.parsed.findings.0.title}} {{parents.audit.parsed.score}}", {"parents": parents}) == "A 3"
    assert fill("{{parents.audit.parsed.findings}}", {"parents": parents}) == '[{"title": "A"}]'


def test_column_name_with_a_dot_matches_as_a_whole() -> None:
    assert fill("{{a.b}}", {"a.b": "column"}) == "column"


@pytest.mark.parametrize("text", ["{{missing}}", "{{a.b}}", "{{}}", "{{a.0}}", "{{list.9}}", "{{list.-x}}"])
def test_unresolvable_placeholder_lists_the_available_names(text: str) -> None:
    with pytest.raises(TemplateProblem, match=r"known are \{\{a\}\}, \{\{list\}\}"):
        fill(text, {"a": 1, "list": [1]})


@given(st.text(), st.dictionaries(NAMES, st.text()))
def test_inserted_values_are_not_expanded_again(value: str, others: dict[str, str]) -> None:
    """A row whose text looks like a template must not read other columns."""
    hostile = f"{{{{other}}}}{value}{{{{input}}}}"

    assert fill("[{{input}}]", {**others, "input": hostile}) == f"[{hostile}]"


@given(st.lists(st.tuples(st.text(string.ascii_letters + " {}\n", max_size=20), NAMES), max_size=6))
def test_fill_replaces_placeholders_and_keeps_all_other_text(parts: list[tuple[str, str]]) -> None:
    parts = [(text.replace("{", "").replace("}", ""), name) for text, name in parts]
    values = {name: f"<{name}>" for _, name in parts}

    assert fill("".join(f"{text}{{{{{name}}}}}" for text, name in parts), values) == "".join(f"{text}<{name}>" for text, name in parts)
    assert names("".join(f"{text}{{{{{name}}}}}" for text, name in parts)) == tuple(dict.fromkeys(name for _, name in parts))


@given(st.text())
def test_arbitrary_text_is_filled_or_raises_template_problem(text: str) -> None:
    if "{{" not in text:
        assert fill(text, {}) == text
        return
    try:
        fill(text, {})
    except TemplateProblem:
        assert names(text)


def test_escaped_braces_are_literal() -> None:
    assert fill(f"{ESCAPED_BRACES}name}}}} is {{{{name}}}}", {"name": "Ada"}) == "{{name}} is Ada"
    assert names(f"{ESCAPED_BRACES}name}}}}") == ()


def test_fill_within_fills_every_string_value_of_a_json_document() -> None:
    """Keys of objects are not filled."""
    given: Any = {"turns": [{"speaker": "{{who}}", "n": 1}], "{{key}}": None}

    assert fill_within(given, {"who": "Ada"}) == {"turns": [{"speaker": "Ada", "n": 1}], "{{key}}": None}
    assert names_within(given) == ("who",)


def test_parsing_many_unclosed_braces_takes_linear_time() -> None:
    """Each of the braces and spaces is visited once."""
    text = ("{{" + " " * 330) * 3_000

    began = time.process_time()
    found = names(text)

    assert found == ()
    assert time.process_time() - began < 0.5


def test_oversized_expansion_is_refused_before_memory_is_allocated() -> None:
    """A worker out of memory would end all the other jobs in its process."""
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


class TestMatchNames:
    def test_name_is_written_as_the_known_one(self) -> None:
        assert match_names("{{language}} {{ CITY }} {{Language.0}}", ["Language", "City"]) == "{{Language}} {{City}} {{Language.0}}"

    @pytest.mark.parametrize("text", ["{{Language}}", "{{other}}", "{{{{language}}", "{language}", "language", "{{parents.a.output}}"])
    def test_other_text_stays(self, text: str) -> None:
        assert match_names(text, ["Language"]) == text

    def test_name_in_small_letters_comes_first_and_otherwise_the_name_has_to_be_the_only_one(self) -> None:
        assert match_names("{{INPUT}}", ["Input", "input"]) == "{{input}}"
        assert match_names("{{language}}", ["Language", "LANGUAGE"]) == "{{language}}"

    def test_names_in_all_texts_of_a_value_are_matched(self) -> None:
        assert match_names_within({"A": ["{{a}}", 1, {"b": "{{A}}"}]}, ["A"]) == {"A": ["{{A}}", 1, {"b": "{{A}}"}]}

    @given(st.text(max_size=30), st.lists(st.text(max_size=8), max_size=4))
    def test_matched_template_never_fails_because_of_the_match(self, text: str, known: list[str]) -> None:
        values = dict.fromkeys(known, "x")
        template = f"{text}{{{{{known[0].upper() if known else 'a'}}}}}"
        matched = match_names(template, values)

        assert [name_key(name) for name in names(matched)] == [name_key(name) for name in names(template)] or len(names(matched)) < len(
            names(template)
        )

    def test_key_leaves_out_capitals_blanks_around_and_what_is_invisible(self) -> None:
        assert {name_key(name) for name in ("Größe", " gro\u0308ße ", "\ufeffGRÖSSE\u200b", "gr\u00adöße\u00a0")} == {"grösse"}
