"""Every job type on the laptop cloud, with the example that ships with it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from infra.cloud import Cloud
from infra.examples import EXAMPLES
from infra.local.workers import restart_workers
from infra.naming import openai_secret_name
from tests.e2e.stack import Api, Model, Stack, until


@dataclass(frozen=True)
class SubmittedExample:
    """An example that was submitted, and the model that answers it."""

    job_id: str
    model: Model


@pytest.fixture(scope="module")
def submitted(stack: Stack, api: Api) -> dict[str, SubmittedExample]:
    """All examples, submitted together, because each takes some time."""
    return {kind: submit(stack.model(), api, kind) for kind in EXAMPLES}


def submit(model: Model, api: Api, kind: str) -> SubmittedExample:
    example = EXAMPLES[kind]
    if example.reply:
        model.reply(example.answer())
    submission = example.submission(kind)
    content = {"input": submission.input} if example.is_input else {"prompt": submission.prompt}
    return SubmittedExample(api.submit(job_type=kind, options=example.options, config=model.config, **{"prompt": None, **content}), model)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_example_of_every_job_type_completes(api: Api, submitted: dict[str, SubmittedExample], kind: str) -> None:
    """The reply is streamed, milestones are recorded, and the output is parsed."""
    example, job_id = EXAMPLES[kind], submitted[kind].job_id

    result = api.wait_for_end(job_id)

    assert (result["status"], result["error"]) == ("completed", None), result
    progress = api.get(f"/jobs/{job_id}/progress")
    assert progress["progress_percentage"] == 100
    assert {stage["status"] for stage in progress["stages"]} == {"completed"}
    history = api.get(f"/jobs/{job_id}/progress-history")["data"]
    assert next(event["name"] for event in history if event["kind"] == "job") == "created"
    if example.reply:
        assert result["parsed"] == json.loads(example.answer())
        assert progress["milestones"], progress
        assert {milestone["name"] for milestone in progress["milestones"]} == {e["name"] for e in history if e["kind"] == "milestone"}
    [request] = submitted[kind].model.requests
    assert request["stream"] is True


def test_output_that_violates_the_schema_is_retried_and_kept(api: Api, model: Model) -> None:
    """The second violation is final."""
    model.reply('{"findings": "none that I would know of"}')

    job_id = api.submit(job_type="security_analysis", prompt="contract A {}", config={**model.config, "max_attempts": 2})
    result = api.wait_for_end(job_id)

    assert (result["status"], result["error"]["code"], result["error"]["retryable"]) == ("failed", "output_invalid", True), result
    assert (result["output"], result["parsed"]) == ('{"findings": "none that I would know of"}', None)
    assert [row["error_code"] for row in api.get(f"/jobs/{job_id}/attempts")["data"]] == ["output_invalid"] * 2


def test_story_has_a_preliminary_answer_and_is_deduplicated(api: Api, model: Model) -> None:
    model.delay_first_token(2)
    model.reply(EXAMPLES["story_enhancement"].answer())
    story = EXAMPLES["story_enhancement"].submission("story_enhancement").input

    first = api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": story, "config": model.config}).json()
    again = api.call("POST", "/jobs", {"job_type": "story_enhancement", "input": story, "config": model.config}).json()

    assert first["preliminary"]["source"] == "local_fallback", first
    assert (again["job_id"], again["deduplicated"]) == (first["job_id"], True)
    assert api.wait_for_end(first["job_id"])["parsed"]["source"] == "model"


def test_job_type_options_are_validated_and_documented(api: Api) -> None:
    answer = api.call("POST", "/jobs", {"job_type": "code_review", "prompt": "x = 1", "options": {"min_severity": "terrible", "nope": 1}})
    document = api.get("/openapi.json")

    assert answer.status_code == 400
    assert {detail["path"] for detail in answer.json()["error"]["details"]} == {"options.min_severity", "options.nope"}
    assert "min_severity" in json.dumps(document)
    assert "code_review" in json.dumps(document)


@contextmanager
def without_a_key(stack: Stack) -> Iterator[None]:
    """Remove the OpenAI key of the stage, and restore it afterwards."""
    secrets, name = stack.aws("secretsmanager"), openai_secret_name("local")
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    without = {**json.loads(before), "api_key": ""}
    cloud = Cloud("local", stack.aws_endpoint)
    secrets.put_secret_value(SecretId=name, SecretString=json.dumps(without))
    restart_workers(cloud)
    try:
        yield
    finally:
        secrets.put_secret_value(SecretId=name, SecretString=before)
        restart_workers(cloud)


def test_without_a_key_stories_use_the_fallback_and_others_are_held(stack: Stack, api: Api, model: Model) -> None:
    model.reply("There is a key now.")
    story: Any = {"title": "The miracle", "content": "It is a revolutionary, guaranteed miracle!"}
    with without_a_key(stack):
        scored = api.wait_for_end(api.submit(prompt=None, job_type="story_enhancement", input=story, config=model.config))
        waiting = api.submit(config=model.config, expires_in=90)  # also limits the delay of its wake-up, which would stay in the lane
        until(lambda: api.get(f"/jobs/{waiting}")["status"] == "held", "a job that waits for a key")
        record = api.get(f"/jobs/{waiting}")

    assert (scored["status"], scored["fallback"], float(scored["cost"])) == ("completed", True, 0), scored
    assert scored["parsed"]["source"] == "local_fallback"
    assert (record["reason"], record["attempt"]) == ("openai_not_configured", 0)
    api.call("POST", f"/jobs/{waiting}/retry")
    assert api.wait_for_end(waiting)["output"] == "There is a key now."


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_export_is_created_and_downloaded(api: Api, model: Model, kind: str) -> None:
    model.reply("=1+1")
    tag = f"export-{model.name[-12:]}-{kind}"
    ids = [api.submit(config=model.config, tags=[tag]) for _ in range(3)]
    for job_id in ids:
        api.wait_for_end(job_id)

    job_id = api.submit(prompt=None, job_type="export", input={"filter": {"tag": tag}}, options={"format": kind}, priority="high")
    result = api.wait_for_end(job_id)

    assert (result["status"], result["parsed"]["rows"], float(result["cost"])) == ("completed", 3, 0), result
    answer = api.call("GET", f"/jobs/{job_id}/download")
    assert answer.status_code == 307
    text = httpx2.get(answer.headers["Location"], trust_env=False).text
    assert text == httpx2.get(result["parsed"]["link"], trust_env=False).text
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {row["output"] for row in rows} == {"'=1+1"}, "a spreadsheet would evaluate the model's text as a formula"
    assert all(one in text for one in ids)


def test_data_cleanup_requires_an_operator_and_dry_run_deletes_nothing(stack: Stack, api: Api) -> None:
    refused = api.call("POST", "/jobs", {"job_type": "data_cleanup", "input": {"days": 300, "dry_run": True}})
    operator = stack.api("operator")

    job_id = operator.submit(prompt=None, job_type="data_cleanup", input={"days": 300, "failed_days": 300, "dry_run": True})

    assert refused.status_code == 403, refused.text
    result = operator.wait_for_end(job_id)
    assert (result["status"], result["parsed"]["deleted"], result["parsed"]["dry_run"]) == ("completed", 0, True), result
