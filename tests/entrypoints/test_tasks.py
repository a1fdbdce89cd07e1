"""Job types without a model, through `app.py`: submissions, refusals, downloads and limits."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from chalicelib import bootstrap
from chalicelib.domain.jobs.job_type import JobType
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.work import work


def submit(api: Api, token: str = "user", **fields: Any) -> Any:
    return api.call("POST", "/jobs", fields, token)


def export_jobs(api: Api, token: str = "user", **options: Any) -> str:
    """Run an export of all jobs that the caller may read, and return its id."""
    reply = submit(api, token, type="export", input={"filter": {"type": "general"}}, options=options)
    assert reply.status == 202, reply.text
    work(api)
    return str(reply.json["job_id"])


def test_a_completed_export_can_be_downloaded(api: Api) -> None:
    """An export costs nothing and needs no model."""
    api.submit()
    work(api)
    reply = submit(api, type="export", input={"filter": {"status": "completed"}})
    job_id = reply.json["job_id"]
    waiting = api.call("GET", f"/jobs/{job_id}/download")
    work(api)

    record = api.call("GET", f"/jobs/{job_id}").json
    result = api.call("GET", f"/jobs/{job_id}/result").json
    found = api.call("GET", f"/jobs/{job_id}/download")

    assert (reply.json["estimated_cost"], reply.json["max_cost"], reply.json["config"]["model"]) == ("0.000000", "0.000000", None)
    assert (waiting.status, waiting.headers["retry-after"]) == (202, "2")
    assert (record["status"], record["cost"], record["usage"]["total_tokens"]) == ("completed", "0.000000", 0)
    assert (result["model"], result["parsed"]["rows"], result["timings"]["time_to_first_token"]) == (None, 1, None)
    assert found.status == 307
    assert found.headers["location"] == found.json["location"]
    assert f"{job_id}/export.csv" in found.json["location"]
    rows = list(csv.DictReader(io.StringIO(api.container.job_files.kept["acme", job_id, "export.csv"].decode())))
    assert [row["output"] for row in rows] == ["Hello"]


@pytest.fixture
def api() -> Api:
    return Api(Script(deltas=["Hel", "lo"]))


@pytest.mark.parametrize(("token", "status"), [("user", 307), ("operator", 307), ("colleague", 404), ("stranger", 404), ("viewer", 403)])
def test_a_download_requires_the_right_to_read_the_result(api: Api, token: str, status: int) -> None:
    job_id = export_jobs(api)

    assert api.call("GET", f"/jobs/{job_id}/download", token=token).status == status


def test_a_job_without_an_object_has_nothing_to_download() -> None:
    """The JSON output of a model cannot name an object."""
    api = Api(Script(deltas=['{"object": "export.csv"}']))
    job_id = api.submit(config={"response_format": "json"})
    work(api)

    reply = api.call("GET", f"/jobs/{job_id}/download")

    assert api.job(job_id).status == "completed"
    assert (reply.status, reply.json["error"]["code"]) == (404, "nothing_to_download")


def test_an_expired_object_returns_410(api: Api) -> None:
    job_id = export_jobs(api)
    api.container.job_files.kept.clear()

    assert api.call("GET", f"/jobs/{job_id}/download").status == 410


def test_deleting_an_export_deletes_its_object(api: Api) -> None:
    """The objects of other exports stay."""
    job_id = export_jobs(api)
    other = export_jobs(api, "operator")

    reply = api.call("POST", "/bulk", {"action": "delete", "ids": [job_id]}, "operator")

    assert reply.json["done"] == 1, reply.text
    assert [key[1] for key in api.container.job_files.kept] == [other]


def test_all_invalid_fields_of_an_export_are_reported_at_once(api: Api) -> None:
    """Input, options and settings for models only are checked together."""
    reply = submit(
        api, type="export", input={"ids": ["a"], "batch_id": "b"}, options={"format": "xls"}, config={"model": "gpt-4o", "temperature": 1}
    )

    details = {detail["path"]: detail["message"] for detail in reply.json["error"]["details"]}
    assert reply.status == 400
    assert set(details) == {"input", "options.format", "config.model", "config.temperature"}
    assert details["input"] == "must have exactly one of ids, filter, batch_id"
    assert details["config.model"] == "means nothing for export, which asks no model"


def test_an_export_with_a_prompt_is_refused(api: Api) -> None:
    reply = submit(api, type="export", prompt="Export everything.")

    assert (reply.status, reply.json["error"]["details"][0]["path"]) == (400, "input")


def test_a_data_cleanup_requires_an_operator(api: Api) -> None:
    """The error names the required role; an estimate is refused in the same way."""
    refused = submit(api, type="data_cleanup", input={"days": 1})
    estimated = api.call("POST", "/jobs/estimate", {"type": "data_cleanup", "input": {}})
    allowed = submit(api, "operator", type="data_cleanup", input={"dry_run": True})
    work(api)

    assert (refused.status, refused.json["error"]["code"], estimated.status) == (403, "forbidden", 403)
    assert "need the role operator" in refused.json["error"]["message"]
    assert allowed.status == 202
    assert api.call("GET", f"/jobs/{allowed.json['job_id']}/result", token="operator").json["parsed"]["dry_run"] is True


def test_the_progress_of_an_export_shows_stages_and_milestones(api: Api) -> None:
    job_id = export_jobs(api)

    progress = api.call("GET", f"/jobs/{job_id}/progress").json

    assert (progress["progress_percentage"], progress["estimated_total_tokens"]) == (100, None)
    assert [stage["name"] for stage in progress["stages"]] == ["setup", "listing", "writing", "finalization"]
    assert progress["milestones"][0]["name"] == "object written"


def test_a_job_type_shows_its_limits_and_usage(api: Api) -> None:
    """Both are null for types without limits."""
    export = api.call("GET", "/job-types/export", token="stage_admin").json
    general = api.call("GET", "/job-types/general").json
    listed = {kind["job_type"]: kind for kind in api.call("GET", "/job-types").json["data"]}

    assert (export["limits"], export["in_use"]) == ({"concurrency": 2, "per_minute": 5}, 0)
    assert (export["default_model"], export["least_role"]) == (None, "user")
    assert (general["limits"], general["in_use"]) == ({"concurrency": None, "per_minute": None}, None)
    assert listed["data_cleanup"]["limits"] == {"concurrency": 1, "per_minute": 10}


def test_a_job_held_by_a_type_limit_shows_reason_and_next_attempt(api: Api) -> None:
    jobs = [submit(api, type="export", input={"filter": {}}).json["job_id"] for _ in range(6)]
    for _ in range(6):
        work(api)

    records = [api.call("GET", f"/jobs/{job_id}").json for job_id in jobs]

    held = [record for record in records if record["status"] == "held"]
    assert held
    assert {record["reason"] for record in held} <= {"type_rate", "type_concurrency"}
    assert all(record["next_attempt_at"] for record in held)
    assert api.call("GET", "/jobs?status=held").json["data"][0]["reason"] in ("type_rate", "type_concurrency")


@pytest.mark.parametrize(("setting", "limits"), [("export=-/3", (None, 3)), ("export=7/-", (7, None)), ("other=1/1", (2, 5))])
def test_type_limits_can_be_overridden_for_a_stage(
    api: Api, monkeypatch: pytest.MonkeyPatch, setting: str, limits: tuple[Any, Any]
) -> None:
    """`HEADRACE_TYPE_LIMITS` replaces single limits of a job type."""
    from chalicelib.settings import settings

    monkeypatch.setenv("HEADRACE_TYPE_LIMITS", setting)
    settings.cache_clear()
    try:
        kind: JobType = bootstrap.Container(settings()).job_type("export")
    finally:
        monkeypatch.undo()
        settings.cache_clear()

    assert kind.limits is not None
    assert (kind.limits.concurrency, kind.limits.per_minute) == limits
