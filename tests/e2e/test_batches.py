"""Batches on the laptop cloud, some with failures injected while rows run."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from tests.e2e.stack import Api, Model, Stack, until

ROWS = int(os.environ.get("HEADRACE_E2E_ROWS", "120"))  # 2000 rows take two minutes more on two cores
TIMEOUT = 600.0
TOPICS = ("tides", 'the word "tide"', "line\nbreaks, and commas", "Ebbe und Flut · 潮")


def sheet(rows: int) -> bytes:
    """Return a CSV in Excel's format: a byte order mark, CRLF, quotes and line breaks in fields."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["ID", "Prompt", "topic"])
    writer.writerows([f"r{number:05d}", f"Write about number {number}.", TOPICS[number % len(TOPICS)]] for number in range(rows))
    return b"\xef\xbb\xbf" + text.getvalue().encode()


class Batches:
    """The `/batches` routes as one caller."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def submit(self, content: bytes, kind: str = "text/csv", **query: Any) -> dict[str, Any]:
        answer = self.api.call("POST", "/batches", content=content, query=query, headers={"Content-Type": kind})
        assert answer.status_code == (200 if query.get("dry_run") else 202), answer.text
        body: dict[str, Any] = answer.json()
        return body

    def get(self, batch_id: str) -> dict[str, Any]:
        """Return a batch. The counts of its rows must add up to the total."""
        body: dict[str, Any] = self.api.get(f"/batches/{batch_id}")
        counts = body["counts"]
        assert sum(counts[name] for name in counts if name != "total") == counts["total"], counts
        return body

    def wait(self, batch_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the batch has ended with one of these statuses."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            body = self.get(batch_id)
            if body["finished_at"] and body["status"] in statuses:
                return body
            assert not body["finished_at"] or body["status"] in statuses, body
            time.sleep(0.5)
        raise AssertionError(f"not finished: {self.get(batch_id)}")

    def export(self, batch_id: str, kind: str) -> str:
        answer = self.api.call("GET", f"/batches/{batch_id}/export", query={"format": kind})
        if answer.status_code == 307:  # a presigned URL, which needs no key
            answer = httpx2.get(answer.headers["Location"], trust_env=False, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.text)


@pytest.fixture
def batches(api: Api) -> Batches:
    return Batches(api)


def test_csv_batch_completes_in_order_after_failed_rows_are_retried(batches: Batches, model: Model) -> None:
    """Failures are injected while it runs; rows are retried in the middle and at the end."""
    created = batches.submit(
        sheet(ROWS),
        model=model.name,
        prompt_template="Row {{ID}} on {{topic}}: {{input}}",
        name="tides",
        config=json.dumps({"system_prompt": "Say:"}),
    )
    batch_id, injected, retried, seen = created["batch_id"], 0, False, -1
    deadline = time.monotonic() + TIMEOUT

    while time.monotonic() < deadline:
        body = batches.get(batch_id)
        counts = body["counts"]
        if body["finished_at"]:
            break
        if injected < ROWS // 50 and counts["completed"] > seen + ROWS // 20:
            seen = counts["completed"]
            model.fail(400)
            model.fault("disconnect", 2)
            injected += 1
        if not retried and counts["failed"] and counts["completed"] > ROWS // 3:
            retried = True
            answer = batches.api.call("POST", f"/batches/{batch_id}/retry-failed", {})
            assert answer.status_code == 202, answer.text
            partial = json.loads(batches.export(batch_id, "json"))
            assert [row["id"] for row in partial["items"]] == [f"r{number:05d}" for number in range(ROWS)]
            assert {"completed"} < {row["status"] for row in partial["items"]}
        time.sleep(0.5)
    assert retried, counts
    assert body["status"] == ("completed_with_failures" if body["counts"]["failed"] else "completed"), body

    while body["counts"]["failed"]:
        assert batches.api.call("POST", f"/batches/{batch_id}/retry-failed", {}).status_code == 202
        body = batches.wait(batch_id, "completed", "completed_with_failures")

    rows = json.loads(batches.export(batch_id, "json"))["items"]
    assert body["counts"] == {"total": ROWS, "completed": ROWS} | dict.fromkeys(
        ("waiting", "queued", "processing", "failed", "cancelled"), 0
    )
    assert [row["id"] for row in rows] == [f"r{number:05d}" for number in range(ROWS)]
    for number, row in enumerate(rows):
        assert f"Row r{number:05d} on" in row["output"], row
    assert Decimal(body["cost"]) == sum(Decimal(row["cost"]) for row in rows)
    csv_rows = list(csv.DictReader(io.StringIO(batches.export(batch_id, "csv"))))
    assert [row["id"] for row in csv_rows] == [row["id"] for row in rows]
    assert [row["output"] for row in csv_rows] == [row["output"] for row in rows]
    assert max(row["attempt"] for row in rows) >= 2, "no injected failure had an effect"


def test_dry_run_estimates_the_cost_and_creates_no_batch(batches: Batches, model: Model) -> None:
    before = [one["batch_id"] for one in batches.api.get("/batches")["data"]]

    estimate = batches.submit(sheet(30), model=model.name, prompt_template="On {{topic}}: {{input}}", dry_run="true")

    assert estimate["count"] == 30, estimate
    assert Decimal(estimate["estimated_cost"]) > 0
    assert [one["batch_id"] for one in batches.api.get("/batches")["data"]] == before


def test_batch_is_created_from_an_upload(stack: Stack, batches: Batches, model: Model) -> None:
    """Another tenant cannot use the upload."""
    model.reply("Noted.")
    upload = batches.api.upload("text/csv", sheet(20))

    answer = batches.api.call("POST", "/batches", {"upload_id": upload, "config": model.config, "prompt_template": "{{input}}"})
    stranger = stack.api("other_user").call("POST", "/batches", {"upload_id": upload})

    assert answer.status_code == 202, answer.text
    assert stranger.status_code == 404, stranger.text
    assert batches.wait(answer.json()["batch_id"], "completed")["counts"]["completed"] == 20


def test_cancelled_batch_starts_no_further_rows(batches: Batches, model: Model) -> None:
    model.delay_first_token(2)
    created = batches.submit(sheet(200), model=model.name, parallel_limit=5)
    until(lambda: batches.get(created["batch_id"])["counts"]["processing"], "a row that runs")

    answer = batches.api.call("DELETE", f"/batches/{created['batch_id']}")

    assert answer.status_code in (200, 202), answer.text
    body = batches.wait(created["batch_id"], "cancelled")
    assert body["counts"]["cancelled"] >= 150, body["counts"]
    assert len(model.requests) <= 50


def test_batch_stops_when_failures_exceed_its_tolerance(batches: Batches, model: Model) -> None:
    for _ in range(12):
        model.fail(400)
    created = batches.submit(sheet(100), model=model.name, parallel_limit=4, failure_tolerance=0.1)

    body = batches.wait(created["batch_id"], "failed")

    assert body["reason"] == "failure_tolerance", body
    assert body["counts"]["failed"] >= 11
    assert body["counts"]["cancelled"] > 0, body["counts"]


def test_rows_of_a_batch_may_depend_on_each_other(batches: Batches, model: Model) -> None:
    steps = {
        "items": [
            {"id": "sum", "content": "Join {{parents.left.output}} and {{parents.right.output}}", "depends_on": ["left", "right"]},
            {"id": "left", "content": "LEFT"},
            {"id": "right", "content": "RIGHT"},
        ],
        "config": model.echo,
    }

    created = batches.submit(json.dumps(steps).encode(), "application/json")
    batches.wait(created["batch_id"], "completed")

    rows = json.loads(batches.export(created["batch_id"], "json"))["items"]
    assert [row["id"] for row in rows] == ["sum", "left", "right"]
    assert "Say: LEFT" in rows[0]["output"]
    assert "Say: RIGHT" in rows[0]["output"]


def test_invalid_batch_content_is_refused_with_its_location(batches: Batches) -> None:
    def refusal(content: bytes, kind: str = "text/csv", **query: Any) -> dict[str, Any]:
        answer = batches.api.call("POST", "/batches", content=content, query=query, headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text
        body: dict[str, Any] = answer.json()["error"]
        return body

    assert "UTF-16" in json.dumps(refusal("id,prompt\na,b".encode("utf-16")))
    assert "line 3" in json.dumps(refusal(b"id,prompt\na,b\nc,d,e"))
    assert "colour" in json.dumps(refusal(b"id,prompt\na,b", prompt_template="{{colour}}"))
    cycle = {"items": [{"id": "a", "content": "x", "depends_on": ["b"]}, {"id": "b", "content": "y", "depends_on": ["a"]}]}
    answer = batches.api.call("POST", "/batches", cycle)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "dependency_cycle"), answer.text
