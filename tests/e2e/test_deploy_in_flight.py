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
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.queues.lanes import LANES
from infra.local import stack_file
from tests.e2e.stack import Api, Model, Stack, _infra, until, words
from tests.e2e.subscribers import SocketSubscriber
from tests.kit.paths import ROOT

WORDS = 250  # five seconds
TIME = 150.0  # seconds for a job that is recovered: its lease ends, a sweep finds it, it runs again
SWEEP_SECONDS = 5.0  # between two sweeps, which the schedule would run every minute
COPIED = ("app.py", "chalicelib", "infra", "requirements.txt", ".chalice/config.json", ".chalice/policies")
SHARED = (".venv", ".venv-cloud", ".local", ".chalice/deployments")
SCHEDULED = json.dumps(
    {**dict.fromkeys(("version", "account", "region", "source", "id", "time", "detail-type"), ""), "detail": {}, "resources": []}
)
CHANGED = "chalicelib/job_types/general.py", "You complete one task in the background", "You complete one task of many in the background"


@dataclass
class Run:
    """What happened before, during and after the deployment."""

    text: str
    before: list[str] = field(default_factory=list)  # jobs that had ended
    running: list[str] = field(default_factory=list)  # jobs that were streaming when it began
    meanwhile: list[str] = field(default_factory=list)  # jobs that were accepted while it went on
    doubled: list[tuple[str, str]] = field(default_factory=list)  # the ids that one request got when it was sent twice
    watched: dict[str, SocketSubscriber] = field(default_factory=dict)
    watching: list[Future[None]] = field(default_factory=list)
    code: list[str] = field(default_factory=list)  # of the workers, before and after
    addresses: list[tuple[Any, ...]] = field(default_factory=list)  # of the stage, before and after

    @property
    def jobs(self) -> list[str]:
        return self.before + self.running + self.meanwhile


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
    name, old, new = CHANGED
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    return folder


@pytest.fixture(scope="module")
def run(stack: Stack, checkout: Path) -> Iterator[Run]:
    """One deployment for all tests. Afterwards the code of this checkout is deployed again."""
    api, model, run = stack.api(), stack.model(), Run(words(WORDS))
    model.reply(run.text)
    try:
        with ThreadPoolExecutor(40) as threads:
            _fill(run, stack, api, model, threads)
            deployment = threads.submit(_deploy_from, checkout)
            while wait([deployment], timeout=1).not_done:
                run.meanwhile.append(_submit_until_accepted(run, api, model, f"{model.name}-{len(run.meanwhile)}"))
                _watch(run, stack, run.meanwhile[-1], threads)
            deployment.result()
            _note_state(run, stack)
            while wait(run.watching, timeout=SWEEP_SECONDS).not_done:
                stack.aws("lambda").invoke(FunctionName="headrace-local-sweep", InvocationType="Event", Payload=SCHEDULED)
        yield run
    finally:
        stack_file.write({**(stack_file.read() or {}), "code": "of another checkout"})
        _infra("up")


def _fill(run: Run, stack: Stack, api: Api, model: Model, threads: ThreadPoolExecutor) -> None:
    """Let one job end and one in every lane stream."""
    run.before = [api.submit(config=model.config)]
    api.wait_for_end(run.before[0])
    run.running = [api.submit(config=model.config, priority=lane) for lane in LANES]
    for job_id in run.before + run.running:
        _watch(run, stack, job_id, threads)
    for job_id in run.running:
        until(lambda job_id=job_id: run.watched[job_id].text, f"the first text of {job_id}")  # type: ignore[misc]
    _note_state(run, stack)


def _watch(run: Run, stack: Stack, job_id: str, threads: ThreadPoolExecutor) -> None:
    run.watched[job_id] = SocketSubscriber(stack, job_id, timeout=TIME)
    run.watching.append(threads.submit(run.watched[job_id].watch))


def _submit_until_accepted(run: Run, api: Api, model: Model, key: str) -> str:
    """Submit a job as a client does: the same request again while the API is being replaced."""

    def accepted() -> str | None:
        answer = api.call("POST", "/jobs", {"prompt": key, "config": model.config}, headers={"Idempotency-Key": key})
        return str(answer.json()["job_id"]) if answer.status_code in (200, 202) else None

    first = until(accepted, "an accepted submission")
    run.doubled.append((first, until(accepted, "the answer to the same request")))
    return first


def _deploy_from(checkout: Path) -> None:
    command = [sys.executable, "-m", "infra", "deploy", "--stage", "local"]
    done = subprocess.run(
        command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _note_state(run: Run, stack: Stack) -> None:
    functions = stack.aws("lambda")
    run.code.append(functions.get_function_configuration(FunctionName="headrace-local-worker_low")["CodeSha256"])
    rest = sorted(api["id"] for api in stack.aws("apigateway").get_rest_apis()["items"])
    websocket = sorted(api["ApiId"] for api in stack.aws("apigatewayv2").get_apis()["Items"])
    sources = sorted(one["UUID"] for one in functions.list_event_source_mappings()["EventSourceMappings"])
    run.addresses.append((rest, websocket, sources))


def test_the_deployment_hit_jobs_in_flight_with_changed_code(run: Run) -> None:
    assert run.code[0] != run.code[1]
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


def test_a_request_that_is_repeated_during_the_deployment_makes_one_job(run: Run) -> None:
    assert [pair for pair in run.doubled if pair[0] != pair[1]] == []


def test_every_watcher_holds_every_token_once(run: Run) -> None:
    assert [job_id for job_id, watcher in run.watched.items() if watcher.text != run.text] == []
