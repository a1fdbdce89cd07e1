"""Measurements that do not depend on the machine: DynamoDB units, and the cost of a job."""

from __future__ import annotations

from typing import Any

import pytest

from bench import cost
from bench.findings import finding, verdicts
from bench.units import index_units, item_bytes, read_units, write_units
from infra.tables import Index, Table

TABLE = Table("jobs", "id", indexes=(Index("by_state", "g_s", "g_sk"), Index("by_tenant", "g_t", "id", include=("type",))))
QUEUED: dict[str, Any] = {"id": {"S": "1"}, "g_s": {"S": "queued"}, "g_sk": {"S": "1"}, "g_t": {"S": "t"}, "type": {"S": "general"}}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The measured cost of one job, shared by the tests of this module."""
    return cost.measure()


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({"id": {"S": "job"}}, 5),
        ({"é": {"S": "é"}}, 4),  # names and values in UTF-8
        ({"n": {"N": "1763800000000"}}, 5),  # one byte, and one for every two digits without the zeros at the ends
        ({"n": {"N": "0"}}, 3),
        ({"b": {"B": b"12345"}}, 6),
        ({"f": {"BOOL": True}}, 2),
        ({"s": {"SS": ["ab", "c"]}}, 4),
        ({"m": {"M": {"a": {"S": "b"}}}}, 7),  # three bytes for the map, and one for each entry
        ({"l": {"L": [{"S": "a"}]}}, 6),
    ],
)
def test_item_size_counts_attribute_names_and_values(item: dict[str, Any], size: int) -> None:
    assert item_bytes(item) == size


@pytest.mark.parametrize(
    ("old", "new", "units"),
    [
        (None, QUEUED, 3),  # the item and two index entries
        (QUEUED, {**QUEUED, "owner": {"S": "w"}}, 1),  # the attribute is in no index
        (QUEUED, {**QUEUED, "g_s": {"S": "failed"}}, 3),  # one index entry is removed and another one added
        (QUEUED, {**QUEUED, "type": {"S": "other"}}, 2),  # one index entry is rewritten
        (QUEUED, {name: value for name, value in QUEUED.items() if name != "g_s"}, 2),  # one index entry is removed
        (QUEUED, None, 3),
        (None, {**QUEUED, "text": {"S": "x" * 1024}}, 4),  # two KB and two index entries
        (None, None, 1),  # deletes a missing item
    ],
)
def test_write_units_count_the_item_and_each_changed_index_entry(old: Any, new: Any, units: int) -> None:
    assert write_units(TABLE, old, new) == units


def test_a_transaction_doubles_the_item_but_not_its_index_entries() -> None:
    assert write_units(TABLE, None, QUEUED, in_transaction=True) == 4
    assert index_units(TABLE, None, QUEUED) == 2


@pytest.mark.parametrize(
    ("size", "consistent", "units"), [(0, True, 1), (4096, True, 1), (4097, True, 2), (4097, False, 1), (10, False, 0.5)]
)
def test_read_units_are_charged_per_four_kilobytes(size: int, consistent: bool, units: float) -> None:
    assert read_units(size, consistent=consistent) == units


def test_a_million_jobs_cost_no_more_than_the_targets(found: dict[str, Any]) -> None:
    """200 USD in total, 30 USD of it for DynamoDB."""
    assert [key for key, aim in found["aim"].items() if found["value"][key] > aim] == []
    assert found["met"]


def test_each_step_of_a_job_stays_within_its_write_units(found: dict[str, Any]) -> None:
    """A claim touches no index, and no cost grows with the number of tokens."""
    units = {kind: row["write_units"] for kind, row in found["kinds"].items()}

    assert units["claim"] == 1
    assert units["finish"] == 3
    assert units["log"] == found["kinds"]["log"]["requests"] <= 8
    assert units["lease"] <= 4
    assert found["requests"]["frames posted"] <= 100
    assert units["mark of what is counted"] == units["counters"] == 2
    assert sum(units.values()) <= 46


def test_per_token_designs_cost_several_times_as_much(found: dict[str, Any]) -> None:
    sums = {name: sum(bill.values()) for name, bill in found["bills"].items()}

    assert sums["a post per token"] > 5 * sums["ours"]
    assert sums["a log write per token"] > 3 * sums["ours"]


def test_a_finding_contains_its_targets_and_measured_values(found: dict[str, Any]) -> None:
    assert {"name", "measures", "aim", "value", "met", "kinds", "bills", "requests", "assumptions"} <= set(found)
    assert "dollars a million jobs" in cost.show(found)


def test_a_target_is_either_an_upper_or_a_lower_bound() -> None:
    assert finding("x", "", {"a": 1.0}, {"a": 1.0})["met"]
    assert not finding("x", "", {"a": 1.0}, {"a": 1.1})["met"]
    assert not finding("x", "", {"a": 1.0}, {"a": 0.9}, at_least=True)["met"]
    assert "MISSED" in verdicts(finding("x", "", {"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 0.5}))
