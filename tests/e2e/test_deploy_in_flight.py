"""A changed version is deployed, from another checkout, while jobs run.

AWS lets running invocations end on the old code. The emulator kills them, which is harder: every
job that runs is recovered by its lease.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from chalicelib.domain.queues.lanes import LANES
from infra.local import stack_file
from tests.e2e.chaos import AT_TASK, StrayMessages, Workers
from tests.e2e.stack import Api, Model, Stack, _infra, until, words
from tests.e2e.subscribers import SocketSubscriber
from tests.e2e.test_webhooks import API, DELIVER, LOOPBACK, allowed
from tests.kit.paths import ROOT
from tests.kit.receiver import Receiver, receiver

WORDS = 250  # five seconds
TIME = 240.0  # seconds for a job that is recovered: its lease ends, a sweep finds it, it runs again
COPIED = ("app.py", "chalicelib", "infra", "requirements.txt", ".chalice/config.json", ".chalice/policies")
SHARED = (".venv", ".venv-cloud", ".local", ".chalice/deployments")
CHANGES = (  # file, text, and what takes its place
    ("chalicelib/job_types/general.py", "You complete one task in the background", "You complete one task of many in the background"),
    (
        "infra/chalice_config.py",
        '"local": {"HEADRACE_LOG_LEVEL"',
        f'"local": {{"HEADRACE_WEBHOOK_NETWORKS": "{LOOPBACK}", "HEADRACE_LOG_LEVEL"',
    ),
)
FUNCTIONS = ("worker_low", "worker_work", "deliver", "sweep_job_ends")  # some of those that are replaced
# A file that takes seconds to read.
IMPORTED_ROWS = 1_800
ROW = json.dumps({"input": "y", "metadata": {f"k{number}": number for number in range(400)}})


@dataclass
class Run:
    """What happened before, during and after the deployment."""

    name: str  # of the batch that is made from the file
    text: str
    before: list[str] = field(default_factory=list)  # jobs that had ended
    running: list[str] = field(default_factory=list)  # jobs that were streaming when it began
    meanwhile: list[str] = field(default_factory=list)  # jobs that were accepted while it went on
    dependents: dict[str, str] = field(default_factory=dict)  # by the job that each waits for
    imported: str = ""  # the task whose worker was replaced
    exports: list[str] = field(default_factory=list)  # tasks that were accepted while it went on
    notified: set[str] = field(default_factory=set)  # jobs with a webhook
    received: list[tuple[str, str]] = field(default_factory=list)  # by the webhooks: message id and job
    doubled: list[tuple[str, str]] = field(default_factory=list)  # the ids that one request got when it was sent twice
    watched: dict[str, SocketSubscriber] = field(default_factory=dict)
    watching: list[Future[None]] = field(default_factory=list)
    code: list[dict[str, str]] = field(default_factory=list)  # of some functions, before and after
    addresses: list[tuple[Any, ...]] = field(default_factory=list)  # of the stage, before and after

    @property
    def jobs(self) -> list[str]:
        """All that ask a model."""
        return self.before + self.running + self.meanwhile + list(self.dependents.values())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second checkout with a change, which has never deployed anything."""
    folder = tmp_path_factory.mktemp("second")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name in SHARED:
        (folder / name).symlink_to(ROOT / name)
    for name, old, new in CHANGES:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
    return folder


@pytest.fixture(scope="module")
def run(stack: Stack, checkout: Path) -> Iterator[Run]:
    """One deployment for all tests. Afterwards the code of this checkout is deployed again."""
    queues = StrayMessages(stack, Random(0))
    api, model, run, workers = stack.api(), stack.model(), Run(uuid4().hex, words(WORDS)), Workers(stack, stack.api())
    model.reply(run.text)
    try:
        with receiver() as webhooks, allowed(stack, API, DELIVER), queues.short_visibility_timeout(), ThreadPoolExecutor(40) as threads:
            _fill(run, stack, api, model, threads, webhooks)
            assert until(lambda: workers.hit("frozen", Random(0), "work", AT_TASK), "a task that runs")
            deployment = threads.submit(_deploy_from, checkout)
            while wait([deployment], timeout=1).not_done:
                _submit_meanwhile(run, stack, api, model, threads, webhooks)
            deployment.result()
            _note_state(run, stack)
            _settle(run, stack, api, webhooks)
            until(lambda: not queues.left(), "the redelivery of the messages of workers that were replaced")
        yield run
    finally:
        workers.resume_all()
        stack_file.write({**(stack_file.read() or {}), "code": "of another checkout"})
        _infra("up")


def _fill(run: Run, stack: Stack, api: Api, model: Model, threads: ThreadPoolExecutor, webhooks: Receiver) -> None:
    """Let one job end and one in every lane stream, each with a dependent, and let a file be read."""
    run.before = [_submit_until_accepted(run, api, model, f"{model.name}-before", webhooks.url())]
    api.wait_for_end(run.before[0])
    run.running = [api.submit(config=model.config, priority=lane, webhook_url=webhooks.url()) for lane in LANES]
    run.notified |= {*run.before, *run.running}
    for parent in run.running:
        run.dependents[parent] = api.submit(config=model.config, depends_on=[parent])
    for job_id in run.jobs:
        _watch(run, stack, job_id, threads)
    for job_id in run.running:
        until(lambda job_id=job_id: run.watched[job_id].text, f"the first text of {job_id}")  # type: ignore[misc]
    upload = api.upload("application/x-ndjson", f"{ROW}\n".encode() * IMPORTED_ROWS)
    run.imported = api.submit(prompt=None, job_type="csv_import", input={"upload_id": upload, "parallel_limit": 1, "name": run.name})
    _note_state(run, stack)


def _submit_meanwhile(run: Run, stack: Stack, api: Api, model: Model, threads: ThreadPoolExecutor, webhooks: Receiver) -> None:
    """Submit a job that is watched and notified, and a task."""
    run.meanwhile.append(_submit_until_accepted(run, api, model, f"{model.name}-{len(run.meanwhile)}", webhooks.url()))
    run.notified.add(run.meanwhile[-1])
    _watch(run, stack, run.meanwhile[-1], threads)
    task = {"job_type": "export", "input": {"ids": run.before}}
    run.exports.append(_accepted(api, task, f"{model.name}-export-{len(run.exports)}"))


def _settle(run: Run, stack: Stack, api: Api, webhooks: Receiver) -> None:
    """Wait until all has ended and been told."""
    deadline = time.monotonic() + TIME
    with stack.sweeping():
        for watcher in run.watching:
            watcher.result()
        for job_id in [run.imported, *run.exports]:
            api.wait_for_end(job_id, deadline - time.monotonic())
        batch = api.get(f"/jobs/{run.imported}/result")["parsed"]["batch_id"]
        api.call("DELETE", f"/batches/{batch}")  # its rows would occupy a lane that later tests look into
        until(lambda: run.notified <= {job_id for _, job_id in _received(webhooks)}, "all webhooks")
    run.received = _received(webhooks)


def _received(webhooks: Receiver) -> list[tuple[str, str]]:
    return [(one.headers["webhook-id"], json.loads(one.body)["data"]["job_id"]) for one in webhooks.received]


def _watch(run: Run, stack: Stack, job_id: str, threads: ThreadPoolExecutor) -> None:
    run.watched[job_id] = SocketSubscriber(stack, job_id, timeout=TIME)
    run.watching.append(threads.submit(run.watched[job_id].watch))


def _submit_until_accepted(run: Run, api: Api, model: Model, key: str, webhook: str) -> str:
    """Submit a job as a client does: the same request again while the API is being replaced."""
    body = {"prompt": key, "config": model.config, "webhook_url": webhook}
    first = _accepted(api, body, key)
    run.doubled.append((first, _accepted(api, body, key)))
    return first


def _accepted(api: Api, body: dict[str, Any], key: str) -> str:
    def accepted() -> str | None:
        answer = api.call("POST", "/jobs", body, headers={"Idempotency-Key": key})
        return str(answer.json()["job_id"]) if answer.status_code in (200, 202) else None

    return until(accepted, "an accepted submission")


def _deploy_from(checkout: Path) -> None:
    command = [sys.executable, "-m", "infra", "deploy", "--stage", "local"]
    done = subprocess.run(
        command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _note_state(run: Run, stack: Stack) -> None:
    functions = stack.aws("lambda")
    run.code.append({name: functions.get_function_configuration(FunctionName=f"headrace-local-{name}")["CodeSha256"] for name in FUNCTIONS})
    rest = sorted(api["id"] for api in stack.aws("apigateway").get_rest_apis()["items"])
    websocket = sorted(api["ApiId"] for api in stack.aws("apigatewayv2").get_apis()["Items"])
    sources = sorted(one["UUID"] for one in functions.list_event_source_mappings()["EventSourceMappings"])
    run.addresses.append((rest, websocket, sources))


def test_the_deployment_hit_jobs_in_flight_with_changed_code(run: Run) -> None:
    assert [name for name in FUNCTIONS if run.code[0][name] == run.code[1][name]] == []
    assert any(watcher.started_over for watcher in run.watched.values()), "no running job was interrupted"
    assert run.meanwhile


def test_the_second_checkout_deployed_the_same_stage(run: Run) -> None:
    """It has the same APIs and event sources as before, though only the first checkout had made them."""
    assert run.addresses[0] == run.addresses[1]


def test_no_job_is_lost(run: Run, stack: Stack) -> None:
    results = {job_id: stack.api().get(f"/jobs/{job_id}/result") for job_id in run.jobs}

    assert {job_id: one["status"] for job_id, one in results.items() if one["status"] != "completed"} == {}
    assert [job_id for job_id, one in results.items() if one["output"] != run.text] == []


def test_no_job_is_done_twice(run: Run, stack: Stack) -> None:
    """Every job has one attempt that counts, and ended once; one that had ended was not run again."""
    attempts = {job_id: stack.api().get(f"/jobs/{job_id}/attempts")["data"] for job_id in run.jobs}

    assert {job_id: rows for job_id, rows in attempts.items() if [row["wasted"] for row in rows].count(False) != 1} == {}
    assert [len(attempts[job_id]) for job_id in run.before] == [1]
    ends = {job_id: {frame["version"] for frame in watcher.events("job_completed")} for job_id, watcher in run.watched.items()}
    assert {job_id: versions for job_id, versions in ends.items() if len(versions) != 1} == {}


def test_no_task_is_lost_or_done_twice(run: Run, stack: Stack) -> None:
    """The worker of one was replaced in the middle of its file, from which one batch was made."""
    api = stack.api()
    results = {job_id: api.get(f"/jobs/{job_id}/result") for job_id in [run.imported, *run.exports]}

    assert run.exports
    assert {job_id: one for job_id, one in results.items() if one["status"] != "completed"} == {}
    assert [one["error_code"] for one in api.get(f"/jobs/{run.imported}/attempts")["data"]].count("worker_lost") == 1
    made = [one["batch_id"] for one in api.get("/batches")["data"] if one["name"] == run.name]
    assert made == [results[run.imported]["parsed"]["batch_id"]]
    assert {results[job_id]["parsed"]["rows"] for job_id in run.exports} == {1}


def test_every_dependent_runs_once_its_parent_has_ended(run: Run, stack: Stack) -> None:
    api = stack.api()
    times = {job_id: api.get(f"/jobs/{job_id}") for pair in run.dependents.items() for job_id in pair}

    early = [child for parent, child in run.dependents.items() if times[child]["started_at"] < times[parent]["finished_at"]]
    assert early == []


def test_every_webhook_is_delivered_with_one_message_for_each_job(run: Run) -> None:
    """A sender that is replaced may send a message again; its id is the same, so a receiver recognises it."""
    assert {job_id for _, job_id in run.received} == run.notified
    assert len({message for message, _ in run.received}) == len(run.notified)


def test_a_request_that_is_repeated_during_the_deployment_makes_one_job(run: Run) -> None:
    assert [pair for pair in run.doubled if pair[0] != pair[1]] == []


def test_every_watcher_holds_every_token_once(run: Run) -> None:
    assert [job_id for job_id, watcher in run.watched.items() if watcher.text != run.text] == []
