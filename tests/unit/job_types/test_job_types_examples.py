"""The example audit matches its job type, and describes the contract next to it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from chalicelib import job_types
from chalicelib.domain.execution.progress import ProgressTracker
from chalicelib.domain.metrics.estimate import estimate_tokens
from chalicelib.domain.validation.schema import problems
from tests.kit.paths import EXAMPLES

CONTRACT = (EXAMPLES / "vulnerable_vault.sol").read_text().splitlines()
TEXT = (EXAMPLES / "vulnerable_vault.reply.json").read_text()
REPLY: dict[str, Any] = json.loads(TEXT)
TYPE = job_types.get("security_analysis")
LOCATION = re.compile(r"VulnerableVault\.(\w+), lines (\d+)-(\d+)")
AT = 1_800_000_000_000


def test_the_example_audit_matches_the_response_schema() -> None:
    """Its fields come in the order of the schema."""
    assert TYPE.response_schema is not None
    assert problems(TYPE.response_schema, REPLY) == ()
    assert list(REPLY) == list(TYPE.response_schema["properties"])


@pytest.mark.parametrize("finding", REPLY["findings"], ids=lambda finding: finding["title"])
def test_every_finding_location_lies_in_the_named_function(finding: dict[str, str]) -> None:
    locations = finding["location"].split("; ")

    for location in locations:
        match = LOCATION.fullmatch(location)
        assert match, location
        name, first, last = match[1], int(match[2]), int(match[3])
        opened = [line for line in CONTRACT[:first] if re.match(r"    (function|modifier) ", line)][-1]
        assert re.match(rf"    (function|modifier) {name}\(", opened), opened
        assert all(line != "    }" for line in CONTRACT[first - 1 : last - 1])
        assert "".join(CONTRACT[first - 1 : last]).strip()


@pytest.mark.parametrize("finding", REPLY["findings"], ids=lambda finding: finding["title"])
def test_every_name_quoted_in_a_finding_is_in_the_contract(finding: dict[str, str]) -> None:
    """A few words of the language and of the token are allowed as well."""
    known = {"false", "receive", "unchecked", "tx.origin", "msg.sender", "token.transferFrom", "token.transfer"}

    for quoted in re.findall(r"`([^`]+)`", finding["description"]):
        name = quoted.split("(")[0]
        assert name in known or any(name in line for line in CONTRACT), quoted


def test_findings_are_sorted_by_severity_and_set_the_overall_risk() -> None:
    rank = ["critical", "high", "medium", "low", "informational"]
    severities = [finding["severity"] for finding in REPLY["findings"]]

    assert severities == sorted(severities, key=rank.index)
    assert REPLY["overall_risk"] == severities[0]


def test_streaming_the_example_audit_passes_all_stages_and_milestones() -> None:
    tracker = ProgressTracker(TYPE, TYPE.typical_tokens)
    events = tracker.begin(AT)
    for start in range(0, len(TEXT), 4):
        events += tracker.feed(TEXT[start : start + 4], AT + start)
    for stage in ("validation", "finalization"):
        events += tracker.start_stage(stage, AT + len(TEXT))
    events += tracker.end(AT + len(TEXT))

    begun = [event["name"] for event in events if event["kind"] == "stage" and event["status"] == "processing"]
    milestones = [event["name"] for event in events if event["kind"] == "milestone"]
    assert begun == list(TYPE.stages)
    assert milestones == [f"{finding['severity']} finding" for finding in REPLY["findings"]] + ["overall risk"]


def test_the_example_audit_has_the_typical_length_of_its_type() -> None:
    """The progress percentage is based on that length."""
    assert estimate_tokens(TEXT) == pytest.approx(TYPE.typical_tokens, rel=0.35)
