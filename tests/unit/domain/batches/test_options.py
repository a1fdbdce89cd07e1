"""What is said once for all rows of a batch, in the query or in a JSON body."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.batches.options import BatchOptions, merge_options, options_from_query, parse_options
from chalicelib.domain.errors import InvalidRequest


def refused(said: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        parse_options(said)
    return [detail.path for detail in caught.value.details]


def test_nothing_needs_to_be_said() -> None:
    terms = parse_options({})

    assert terms == BatchOptions()
    assert (terms.type, terms.priority, terms.parallel_limit, terms.failure_tolerance) == ("general", "low", None, None)


def test_null_is_not_said() -> None:
    assert (
        parse_options(dict.fromkeys(("name", "config", "batch_size", "priority", "dry_run", "delimiter", "prompt_template")))
        == BatchOptions()
    )


def test_short_names_go_where_they_belong() -> None:
    said = {"type": "general", "model": "m", "config": {"max_tokens": 50, "priority": "high"}, "delimiter": "semicolon"}

    assert parse_options(said) == BatchOptions(type="general", config={"max_tokens": 50, "model": "m"}, priority="high", delimiter=";")


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"type": "a", "job_type": "b"}, ["type"]),
        ({"priority": "low", "config": {"priority": "high"}}, ["priority"]),
        ({"config": {"priority": "soon"}}, ["config.priority"]),
        ({"config": {"priority": ["low"]}}, ["config.priority"]),
        (
            {"batch_size": 0, "delay": -1, "failure_tolerance": 2, "parallel_limit": 1.5},
            ["batch_size", "delay", "failure_tolerance", "parallel_limit"],
        ),
        ({"delimiter": "|"}, ["delimiter"]),
        ({"prompt_template": "no place"}, ["prompt_template"]),
        ({"nme": "x"}, ["nme"]),
    ],
)
def test_what_cannot_be_used_is_named(said: dict[str, Any], wrong: list[str]) -> None:
    assert sorted(refused(said)) == sorted(wrong)


def test_in_the_query_what_is_no_text_is_json() -> None:
    query = {"name": "7", "batch_size": "7", "dry_run": "true", "config": '{"max_tokens": 50}', "prompt_template": "{{input}}"}

    assert options_from_query(query) == {**query, "batch_size": 7, "dry_run": True, "config": {"max_tokens": 50}}


def test_what_is_no_json_there_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        options_from_query({"batch_size": "many", "dry_run": "yes", "config": "{"})
    assert [detail.path for detail in caught.value.details] == ["config", "batch_size", "dry_run"]


def test_two_places_may_say_the_same_but_not_two_things() -> None:
    assert merge_options({"name": "a", "delay": None}, {"name": "a", "delay": 3, "model": "m"}) == {"name": "a", "delay": 3, "model": "m"}
    with pytest.raises(InvalidRequest):
        merge_options({"name": "a"}, {"name": "b"})
