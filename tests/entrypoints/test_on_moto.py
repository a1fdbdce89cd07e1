"""The real adapters on moto, through `app.py` in one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pytest
import requests

from chalicelib import bootstrap
from chalicelib.adapters.aws import client as aws
from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.queues.lanes import JOB_QUEUES, TASKS, WORK, queue_name
from chalicelib.settings import Settings
from infra.naming import bucket_name
from tests.kit.change_records import change
from tests.kit.http import CONTEXT, Api
from tests.kit.moto_stage import ACCOUNT, STAGE, RealAdapters, stage_on_moto
from tests.kit.provider import Script, ScriptedProvider

SCRIPTS = (Script(deltas=["all ", "of ", "it"], every=0.01, first=0.01), Script(deltas=["no"], every=0.01, error=RequestRefused("No.")))


class OnMoto(RealAdapters):
    """Every real adapter but the provider, which is scripted."""

    @cached_property
    def provider(self) -> Any:
        return ScriptedProvider(*SCRIPTS)


@pytest.fixture
def api() -> Iterator[Api]:
    """The API of a stage with its tables, queues, bucket and API keys."""
    made = Api()
    with stage_on_moto():
        bootstrap.override(OnMoto(Settings(stage=STAGE)))
        yield made


def deliver(api: Api, *queues: str) -> None:
    """Receive messages of these queues, by default `normal` and `work`, and invoke their workers."""
    for name in queues or ("normal", WORK.name):
        sqs, queue = aws.client("sqs"), aws.client("sqs").get_queue_url(QueueName=queue_name(STAGE, name))["QueueUrl"]
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=JOB_QUEUES[name].batch_size).get("Messages", [])
        records = [{"body": one["Body"], "receiptHandle": one["ReceiptHandle"], "messageId": one["MessageId"]} for one in messages]
        getattr(api.module, JOB_QUEUES[name].function)({"Records": records}, CONTEXT)


def test_a_submitted_job_completes_and_streams_its_text(api: Api) -> None:
    """A sweep after the end starts no second attempt."""
    job_id = api.submit()

    deliver(api)
    names = ("version", "account", "region", "source", "id", "time", "detail-type")
    api.module.sweep({**dict.fromkeys(names, ""), "detail": {}, "resources": []}, CONTEXT)

    result = api.call("GET", f"/jobs/{job_id}/result").json
    assert (result["status"], result["output"]) == ("completed", "all of it")
    slice_ = api.call("GET", f"/jobs/{job_id}/stream").text
    assert "event: tokens" in slice_
    assert "event: job_completed" in slice_
    assert [row["attempt"] for row in api.call("GET", f"/jobs/{job_id}/attempts").json["data"]] == [1]


def test_a_dependent_job_is_released_with_the_output_of_its_parent(api: Api) -> None:
    """Dependencies are stored in DynamoDB, and the change record arrives twice."""
    container = bootstrap.container()
    parent = api.submit()
    child = api.submit(prompt="Go on from: {{parents.first.output}}.", depends_on={"first": parent})
    deliver(api)
    assert api.call("GET", f"/jobs/{child}/status").json["status"] == "waiting"

    ended = container.jobs.get(parent)
    assert ended is not None
    api.module.on_job_change({"Records": [change(None, ended), change(None, ended)]}, CONTEXT)
    assert api.call("GET", f"/jobs/{child}/status").json["status"] == "queued"
    deliver(api)

    assert isinstance(container.provider, ScriptedProvider)
    assert container.provider.requests[1].prompt == "Go on from: all of it."
    graph = api.call("GET", f"/jobs/{child}/graph").json
    assert [node["status"] for node in graph["nodes"]] == ["completed", "failed"]
    assert graph["edges"] == [{"from": parent, "to": child, "alias": "first"}]


def test_a_failed_job_is_listed_and_deleted(api: Api) -> None:
    """Afterwards the `job_data` table has no row of the job."""
    api.submit()
    deliver(api)
    job_id = api.submit()
    deliver(api)

    [failed] = api.call("GET", "/failed-jobs", token="operator").json["data"]
    assert (failed["job_id"], failed["error"]["code"]) == (job_id, "request_invalid")
    removed = api.call("DELETE", f"/failed-jobs/{job_id}", token="operator")

    assert removed.json["deleted"] is True
    assert api.call("GET", f"/jobs/{job_id}").status == 404
    rows = aws.client("dynamodb").query(
        TableName=f"headrace-{STAGE}-job_data", KeyConditionExpression="id = :id", ExpressionAttributeValues={":id": {"S": job_id}}
    )
    assert rows["Items"] == []


def test_without_a_provider_key_stories_fall_back_and_other_jobs_wait(api: Api) -> None:
    """This runs on the real provider adapter; the held job has made no attempt."""
    bootstrap.override(RealAdapters(Settings(stage=STAGE)))
    story = {"title": "A miracle battery!", "content": "It charges instantly."}
    scored = api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": story}).json["job_id"]
    waiting = api.submit()

    deliver(api)

    result = api.call("GET", f"/jobs/{scored}/result").json
    assert (result["status"], result["model"], result["fallback"], float(result["cost"])) == ("completed", "local", True, 0)
    assert result["parsed"]["source"] == "local_fallback"
    record = api.call("GET", f"/jobs/{waiting}").json
    assert (record["status"], record["reason"], record["attempt"]) == ("held", "openai_not_configured", 0)
    assert api.call("GET", f"/jobs/{waiting}/attempts").json["data"] == []


def test_an_export_is_created_downloaded_and_deleted(api: Api) -> None:
    """The limiter slot of the export is free again, and deleting the job removes the S3 object."""
    api.submit()
    deliver(api)
    body = {"type": "export", "input": {"filter": {"status": "completed"}}, "options": {"format": "jsonl"}}
    job_id = api.call("POST", "/jobs", body).json["job_id"]
    in_use = []
    for _ in range(2):
        in_use.append(api.call("GET", "/job-types/export", token="stage_admin").json["in_use"])
        deliver(api)

    found = api.call("GET", f"/jobs/{job_id}/download")
    saved = requests.get(found.headers["location"], timeout=10)

    assert (found.status, saved.status_code, in_use) == (307, 200, [0, 0])
    assert [json.loads(line)["output"] for line in saved.text.splitlines()] == ["all of it"]
    assert api.call("POST", "/bulk", {"action": "delete", "ids": [job_id]}, "operator").json["done"] == 1
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=bucket_name(STAGE, ACCOUNT))


def test_a_data_cleanup_deletes_old_jobs(api: Api) -> None:
    old = api.submit()
    deliver(api)
    cancelled = [api.submit(priority="low") for _ in range(2)]
    assert api.call("POST", "/bulk", {"action": "cancel", "ids": cancelled}, "operator").json["done"] == 2
    given = {"type": "data_cleanup", "input": {"days": 0, "failed_days": 0}}
    job_id = api.call("POST", "/jobs", given, "operator").json["job_id"]
    deliver(api)

    output = api.call("GET", f"/jobs/{job_id}/result", token="operator").json["parsed"]
    assert (output["by_status"], output["looked_at"], output["more"]) == ({"completed": 1, "cancelled": 2}, 3, False)
    assert {api.call("GET", f"/jobs/{one}").status for one in (old, *cancelled)} == {404}


def test_a_csv_import_runs_its_batch_and_stores_a_delivery(api: Api) -> None:
    """The file is uploaded through the signed link, and the batch keeps its options."""
    upload = api.call("POST", "/uploads", {"content_type": "text/csv", "size": 13}).json
    assert requests.put(upload["url"], data=b"prompt\nhello\n", headers=upload["headers"], timeout=10).status_code == 200
    body = {"type": "csv_import", "input": {"upload_id": upload["upload_id"], "webhook_url": "https://hooks.example.com/x"}}
    job_id = api.call("POST", "/jobs", body).json["job_id"]

    deliver(api)
    result = api.call("GET", f"/jobs/{job_id}/result").json["parsed"]
    _tasks(api)
    deliver(api, "low")
    row = bootstrap.container().jobs.get(job_id_of_row(result["batch_id"], 0))
    assert row is not None
    api.module.count_jobs({"Records": [change(None, row)]}, CONTEXT)
    _tasks(api)

    assert (result["rows"], api.call("GET", f"/batches/{result['batch_id']}").json["status"]) == (1, "completed")
    (delivery,) = api.call("GET", f"/batches/{result['batch_id']}/deliveries").json["data"]
    assert (delivery["event"], delivery["address"], delivery["status"]) == ("batch.completed", "https://hooks.example.com/x", "pending")


def test_a_notification_job_stores_one_delivery(api: Api) -> None:
    given = {"to": "webhook:https://hooks.example.com/x", "subject": "Done", "message": "It is over."}
    job_id = api.call("POST", "/jobs", {"type": "notification", "input": given}).json["job_id"]

    deliver(api)

    (sent,) = api.call("GET", f"/jobs/{job_id}/result").json["parsed"]["deliveries"]
    (delivery,) = api.call("GET", f"/jobs/{job_id}/deliveries").json["data"]
    assert (delivery["delivery_id"], delivery["event"], sent["recipient"]) == (sent["delivery_id"], "notification", given["to"])


def _tasks(api: Api) -> None:
    """Receive the messages of the queue `tasks` and invoke `run_tasks` with each."""
    sqs, queue = aws.client("sqs"), aws.client("sqs").get_queue_url(QueueName=queue_name(STAGE, TASKS))["QueueUrl"]
    for one in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
        api.module.run_tasks(
            {"Records": [{"body": one["Body"], "receiptHandle": one["ReceiptHandle"], "messageId": one["MessageId"]}]}, CONTEXT
        )
