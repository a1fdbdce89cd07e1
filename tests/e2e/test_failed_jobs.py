"""Failed jobs, bulk operations and edited jobs, with the functions' IAM permissions."""

from __future__ import annotations

import json
from typing import Any

from chalicelib.domain.queues.lanes import dead_letter_queue_name
from tests.e2e.stack import Api, Model, Stack, until, words


def failed_job(api: Api, model: Model, **fields: Any) -> str:
    """Submit a job whose request OpenAI refuses with a permanent error. Return its id."""
    model.fail(400)
    job_id = api.submit(config=model.config, **fields)
    assert api.wait_for_end(job_id)["status"] == "failed"
    return job_id


def test_failed_job_is_listed_with_its_error_and_retried(stack: Stack, api: Api, model: Model) -> None:
    model.reply("At last.")
    job_id = failed_job(api, model)
    operator = stack.api("operator")

    rows = operator.get("/failed-jobs", model=model.name)["data"]
    answer = operator.call("POST", "/failed-jobs/retry", {"all": True, "model": model.name})

    assert [(row["job_id"], row["error"]["code"]) for row in rows] == [(job_id, "request_invalid")]
    assert (answer.status_code, answer.json()["done"]) == (200, 1), answer.text
    result = api.wait_for_end(job_id)
    assert (result["status"], result["output"], result["attempt"]) == ("completed", "At last.", 2)


def test_deleted_job_leaves_no_rows_and_no_objects(stack: Stack, api: Api, model: Model) -> None:
    """One prompt is so large that the API has to find and delete an object."""
    job_id = failed_job(api, model, metadata={"n": 1}, tags=["gone"])
    large = failed_job(api, model, input=None, prompt=words(60_000))
    operator = stack.api("operator")
    s3 = stack.aws("s3")
    [bucket] = [found["Name"] for found in s3.list_buckets()["Buckets"] if "content" in found["Name"]]

    def objects() -> list[str]:
        return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", []) if large in found["Key"]]

    assert objects()
    for one in (job_id, large):
        answer = operator.call("DELETE", f"/failed-jobs/{one}")
        assert (answer.status_code, answer.json()["deleted"]) == (200, True), answer.text

    assert objects() == []
    assert api.call("GET", f"/jobs/{job_id}").status_code == 404
    rows = stack.aws("dynamodb").query(
        TableName="headrace-local-job_data", KeyConditionExpression="id = :id", ExpressionAttributeValues={":id": {"S": job_id}}
    )
    assert rows["Items"] == []


def test_delayed_job_can_be_moved_to_now(api: Api, model: Model) -> None:
    """A second edit with the same ETag is refused."""
    model.reply("Now.")
    job_id = api.submit(config=model.config, delay=86_400)
    tag = api.call("GET", f"/jobs/{job_id}").headers["ETag"]

    moved = api.call("PATCH", f"/jobs/{job_id}", {"delay": 0, "priority": "high", "metadata": {"n": 2}}, headers={"If-Match": tag})
    late = api.call("PATCH", f"/jobs/{job_id}", {"tags": ["late"]}, headers={"If-Match": tag})

    assert (moved.status_code, moved.json()["priority"], moved.json()["metadata"]) == (200, "high", {"n": 2}), moved.text
    assert late.status_code in (409, 412)
    assert api.wait_for_end(job_id)["output"] == "Now."


def test_redrive_wakes_the_job_of_a_dead_letter(stack: Stack, api: Api) -> None:
    """Dead letters of unknown jobs are deleted, and one that is no wake-up stays."""
    sqs, name = stack.aws("sqs"), dead_letter_queue_name("local", "low")
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    sqs.purge_queue(QueueUrl=url)
    job_id = api.submit(delay=3_000)
    for body in (json.dumps({"job_id": job_id, "generation": 1}), json.dumps({"job_id": f"job_{3:026}", "generation": 1}), "garbage"):
        sqs.send_message(QueueUrl=url, MessageBody=body)

    answer = stack.api("stage_admin").call("POST", "/failed-jobs/redrive", {"lane": "low"})

    assert answer.status_code == 200, answer.text
    assert answer.json()["lanes"]["low"] == {"redriven": 1, "dropped": 1, "kept": 1}
    sqs.purge_queue(QueueUrl=url)
    assert api.call("POST", f"/jobs/{job_id}/cancel").status_code == 200


def test_bulk_operations_cancel_and_delete_jobs(stack: Stack, api: Api) -> None:
    tag, operator = f"e2e-{id(api)}", stack.api("operator")
    for _ in range(30):
        api.submit(delay=3_000, tags=[tag])

    def run_bulk(action: str, **more: Any) -> dict[str, Any]:
        started = operator.call("POST", "/bulk", {"action": action, "filter": {"tag": tag, **more}})
        assert started.status_code in (200, 202), started.text
        path = f"/bulk/{started.json()['bulk_id']}"
        return until(lambda: (bulk := operator.get(path))["status"] == "completed" and bulk, "the end of a bulk operation") or {}

    assert run_bulk("cancel")["done"] == 30
    assert run_bulk("delete", status="cancelled")["done"] == 30
    assert api.get("/jobs", tag=tag)["data"] == []
