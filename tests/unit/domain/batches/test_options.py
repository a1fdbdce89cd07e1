"""Options for all rows of a batch, from the query or from a JSON body."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.batches.options import (
    MAX_RELEASE_DAYS,
    BatchOptions,
    check_release_time,
    merge_options,
    options_from_query,
    parse_options,
)
from chalicelib.domain.errors import InvalidRequest


def refused(given: dict[str, Any]) -> list[str]:
    """The paths at which the options are refused."""
    with pytest.raises(InvalidRequest) as caught:
        parse_options(given)
    return [detail.path for detail in caught.value.details]


def test_all_batch_options_have_defaults() -> None:
    options = parse_options({})

    assert options == BatchOptions()
    assert (options.type, options.priority, options.parallel_limit, options.failure_tolerance) == ("general", "low", None, None)


def test_null_options_are_ignored() -> None:
    assert (
        parse_options(dict.fromkeys(("name", "config", "batch_size", "priority", "dry_run", "delimiter", "prompt_template")))
        == BatchOptions()
    )


def test_top_level_model_and_config_priority_are_normalised() -> None:
    given = {"type": "general", "model": "m", "config": {"max_tokens": 50, "priority": "high"}, "delimiter": "semicolon"}

    assert parse_options(given) == BatchOptions(type="general", config={"max_tokens": 50, "model": "m"}, priority="high", delimiter=";")


@pytest.mark.parametrize(
    ("given", "invalid"),
    [
        ({"type": "a", "job_type": "b"}, ["type"]),
        ({"priority": "low", "config": {"priority": "high"}}, ["priority"]),
        ({"config": {"priority": "soon"}}, ["config.priority"]),
        ({"config": {"priority": ["low"]}}, ["config.priority"]),
        (
            {"batch_size": 0, "delay": -1, "failure_tolerance": 2, "parallel_limit": 1.5},
            ["batch_size", "delay", "failure_tolerance", "parallel_limit"],
        ),
        ({"delimiter": "||"}, ["delimiter"]),
        ({"delimiter": '"'}, ["delimiter"]),
        ({"delimiter": "\n"}, ["delimiter"]),
        ({"delimiter": ""}, ["delimiter"]),
        ({"prompt_template": "no placeholder"}, ["prompt_template"]),
        ({"nme": "x"}, ["nme"]),
    ],
)
def test_invalid_options_are_reported_by_path(given: dict[str, Any], invalid: list[str]) -> None:
    assert sorted(refused(given)) == sorted(invalid)


def test_query_options_other_than_text_are_parsed_as_json() -> None:
    query = {"name": "7", "batch_size": "7", "dry_run": "true", "config": '{"max_tokens": 50}', "prompt_template": "{{input}}"}

    assert options_from_query(query) == {**query, "batch_size": 7, "dry_run": True, "config": {"max_tokens": 50}}


def test_malformed_json_in_query_options_is_reported_by_path() -> None:
    with pytest.raises(InvalidRequest) as caught:
        options_from_query({"batch_size": "many", "dry_run": "yes", "config": "{"})
    assert [detail.path for detail in caught.value.details] == ["config", "batch_size", "dry_run"]


def test_merge_options_accepts_equal_values_and_rejects_conflicts() -> None:
    assert merge_options({"name": "a", "delay": None}, {"name": "a", "delay": 3, "model": "m"}) == {"name": "a", "delay": 3, "model": "m"}
    with pytest.raises(InvalidRequest):
        merge_options({"name": "a"}, {"name": "b"})


@pytest.mark.parametrize(
    ("options", "rows", "days"),
    [
        (BatchOptions(batch_size=1, delay=3_600), 10_000, 9_999 / 24),
        (BatchOptions(batch_size=6, delay=3_600), 10_000, 1_666 / 24),
        (BatchOptions(batch_size=1, delay=600), 10_000, 9_999 / 144),
    ],
)
def test_a_batch_whose_last_group_comes_after_60_days_is_refused_with_the_numbers(options: BatchOptions, rows: int, days: float) -> None:
    """Its rows are deleted after 70 days."""
    with pytest.raises(InvalidRequest) as caught:
        check_release_time(options, rows)

    [detail] = caught.value.details
    assert detail.path == "delay"
    for number in (f"{rows:,} rows", f"groups of {options.batch_size}", f"{options.delay:,g} s", f"{days:,.1f} days", "within 60"):
        assert number in detail.message


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (BatchOptions(delay=3_600), 10_000),  # groups of 100 by default: four days
        (BatchOptions(batch_size=1), 10_000),
        (BatchOptions(batch_size=10_000, delay=3_600), 10_000),
        (BatchOptions(batch_size=1, delay=3_600), 24 * MAX_RELEASE_DAYS + 1),
        (BatchOptions(), 1),
    ],
)
def test_a_batch_whose_last_group_comes_within_60_days_is_accepted(options: BatchOptions, rows: int) -> None:
    check_release_time(options, rows)

    assert options.release_seconds(rows) <= MAX_RELEASE_DAYS * 86_400
