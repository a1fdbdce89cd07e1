"""A pause in the middle of a flood of jobs, on the laptop cloud."""

from __future__ import annotations

import os
import time
from typing import Any

from chalicelib.domain.units import parse_rfc3339
from tests.e2e.stack import Api, Model, Stack, until

ROWS = int(os.environ.get("HEADRACE_E2E_FLOOD", "500"))
PAUSED_SECONDS = 8.0  # how long nothing may start
HOLDS_AFTER_MS = 2_000  # what docs/pauses.md promises
OUT_OF_ORDER = 150  # rows: a hundred wait in the queue of released jobs, and as many workers take them at once
TIMEOUT = 400.0


def rows_of(api: Api, batch: str) -> list[dict[str, Any]]:
    """All rows of a batch that have jobs, in the order of its input."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = api.get(f"/batches/{batch}", detailed="true", limit=100, **({"cursor": cursor} if cursor else {}))
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def started(rows: list[dict[str, Any]]) -> list[int]:
    return [parse_rfc3339(row["started_at"]) for row in rows if row["started_at"]]


def wait_for_counts(api: Api, batch: str, name: str, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        counts = api.get(f"/batches/{batch}")["counts"]
        if counts[name] >= count:
            return
        time.sleep(0.5)
    raise AssertionError(f"never {count} {name}: {api.get(f'/batches/{batch}')['counts']}")


def test_a_pause_in_a_flood_stops_what_has_not_begun_and_a_resumption_completes_it_in_order(stack: Stack, model: Model) -> None:
    api, operator = stack.api(), stack.api("operator")
    model.reply("Done.")
    items = [f"Row {number}." for number in range(ROWS)]
    submitted = api.call("POST", "/batches", {"items": items, "config": model.config, "priority": "normal"})
    assert submitted.status_code == 202, submitted.text
    batch = submitted.json()["batch_id"]
    wait_for_counts(api, batch, "completed", ROWS // 5)

    scope = {"type": "general", "lane": "normal"}
    paused = operator.call("POST", "/pauses", {"scope": scope, "reason": "in the middle of a flood"})
    try:
        assert paused.status_code == 201, paused.text
        paused_at = parse_rfc3339(paused.json()["paused_at"])
        time.sleep(PAUSED_SECONDS)
        during = rows_of(api, batch)
        listed = {row["name"]: row for row in operator.get("/queues/general")["data"]}
    finally:
        resumed = operator.call("POST", "/queues/general:normal/resume", {})

    assert resumed.json()["resumed"] is True, resumed.text
    in_time = started(during)
    assert 0 < len(in_time) < ROWS
    assert max(in_time) <= paused_at + HOLDS_AFTER_MS, max(in_time) - paused_at
    held = [row for row in during if row["status"] == "held"]
    assert held
    # On a busy machine the pauses cannot be read in time by every worker: their jobs wait for that, and start no sooner.
    assert "paused" in {row["reason"] for row in held} <= {"paused", "pauses_unknown"}
    assert (listed["general:normal"]["paused"], listed["general:low"]["paused"]) == (True, False)

    with stack.sweeping():
        wait_for_counts(api, batch, "completed", ROWS)
    rows = rows_of(api, batch)

    assert [row["status"] for row in rows] == ["completed"] * ROWS
    assert {row["attempt"] for row in rows} == {1}
    until(lambda: len(model.requests) >= ROWS, "every request has ended")
    assert len(model.requests) == ROWS
    waited = {row["row"] for row in held}
    order = started([row for row in rows if row["row"] in waited])
    late = [place for place in range(len(order)) if place >= OUT_OF_ORDER and order[place] < order[place - OUT_OF_ORDER]]
    assert late == []
