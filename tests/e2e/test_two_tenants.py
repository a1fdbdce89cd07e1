"""Two tenants on one stage: one does all that could harm the other, which notices nothing but load.

Both use the same model and lane. Only the prompts of the hostile one make the provider fail.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.e2e.chaos import Workers
from tests.e2e.hostile_tenant import HostileTenant, scenarios
from tests.e2e.stack import TIMEOUT, Api, Model, Stack, make_key, reached_at, until, words
from tests.e2e.subscribers import EventSource, SocketSubscriber
from tests.e2e.test_webhooks import API, DELIVER, allowed
from tests.kit.background_openai import BackgroundOpenAI
from tests.kit.live_response import Scenario
from tests.kit.receiver import Receiver, receiver
from tests.summary import SUMMARY

ROUND = 3  # jobs that are submitted together
MIN_ROUNDS = 4
PATIENCE = 180.0  # seconds until the other tenant must have done all that it does
ROWS = 8
LENGTH = 80  # words


class CountingApi(Api):
    """Counts the statuses of all answers."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.answers: Counter[int] = Counter()
        self._lock = threading.Lock()

    def call(self, *args: Any, **named: Any) -> httpx2.Response:
        answer = super().call(*args, **named)
        with self._lock:
            self.answers[answer.status_code] += 1
        return answer


@dataclass
class Job:
    """A job of the tenant that is served, and who watches it."""

    id: str
    text: str
    socket: SocketSubscriber | None = None
    events: EventSource | None = None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """What the tenant that is served got, while the other did its worst."""

    api: CountingApi
    hostile: HostileTenant
    jobs: list[Job] = field(default_factory=list)
    on_own_model: Job | None = None  # on the model whose circuit is open for the other tenant
    batch: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    circuits: list[dict[str, Any]] = field(default_factory=list)  # every circuit that it saw in another state than closed
    stage_circuits: dict[str, dict[str, Any]] = field(default_factory=dict)  # of both models, as the stage's admin sees them
    received: list[dict[str, Any]] = field(default_factory=list)  # by its webhooks
    expected: set[str] = field(default_factory=set)  # what its webhooks must be about

    @property
    def all_jobs(self) -> list[Job]:
        return self.jobs + ([self.on_own_model] if self.on_own_model else [])


@pytest.fixture(scope="module")
def run(stack: Stack) -> Iterator[Run]:
    """One run for all tests."""
    model, own_model, workers, tenant = stack.model(), stack.model(), Workers(stack, stack.api()), uuid4().hex[:8]
    model.reply(words(LENGTH, "row"))
    with (
        BackgroundOpenAI(*scenarios(), upstream=stack.openai_url) as openai,
        reached_at(stack, openai.url),
        receiver() as webhooks,
        allowed(stack, API, DELIVER),
        httpx2.Client(timeout=TIMEOUT, trust_env=False) as http,
    ):
        workers.end_idle()  # they have cached where OpenAI is
        served = replace(stack, http=http, tokens={"user": make_key(f"served-{tenant}", "user")})
        api = CountingApi(http, stack.api_url, served.tokens["user"])
        hostile = HostileTenant(stack, f"hostile-{tenant}", model.name, own_model.name)
        served_tenant = Served(served, openai, model, webhooks, Run(api, hostile))
        with hostile.attack():
            served_tenant.work(own_model)
        SUMMARY["hostile tenant"] = lambda: [f"{count} times {what}" for what, count in sorted(hostile.done.items())]
        yield served_tenant.finished(stack, (model, own_model))
    workers.end_idle()


class Served:
    """The tenant that does ordinary things."""

    def __init__(self, stack: Stack, openai: BackgroundOpenAI, model: Model, webhooks: Receiver, run: Run) -> None:
        self._stack, self._openai, self._model, self._webhooks, self._run = stack, openai, model, webhooks, run
        self._names = (model.name, run.hostile.own_model)
        self._threads = ThreadPoolExecutor(40)
        self._watching: list[Future[None]] = []

    def work(self, own_model: Model) -> None:
        """Submit jobs, round after round, until the other tenant has done all that it does."""
        run, rounds, deadline = self._run, 0, time.monotonic() + PATIENCE
        with self._threads:
            self._submit_batch()
            while rounds < MIN_ROUNDS or (run.hostile.missing() and time.monotonic() < deadline):
                rounds += 1
                self._run_round()
                if run.on_own_model is None and run.hostile.done["job held"]:
                    run.on_own_model = self._submit(own_model)
            until(lambda: run.api.get(f"/batches/{run.batch['batch_id']}")["finished_at"], "the end of the batch")
            for one in self._watching:
                one.result()

    def _run_round(self) -> None:
        jobs = [self._submit(self._model) for _ in range(ROUND)]
        self._run.jobs += jobs
        for job in jobs:
            self._run.api.wait_for_end(job.id)
        seen = {one["model"]: one for one in self._run.api.get("/circuits")["data"]}  # of all tests
        self._run.circuits += [seen[name] for name in self._names if name in seen and seen[name]["state"] != "closed"]

    def _submit(self, model: Model) -> Job:
        """Submit a job with a text of its own; every other one is watched by a socket."""
        run = self._run
        number = len(run.all_jobs)
        prompt, text = f"Job {number} of {model.name}.", words(LENGTH, f"job{number}word")
        deltas = [f"{word} " for word in text.split()[:-1]] + [text.split()[-1]]
        self._openai.scenarios.append(Scenario(prompt=prompt, foreground=True, deltas=deltas, every=0.02))
        hook = {"webhook_url": self._webhooks.url()} if number % ROUND == 0 else {}
        job = Job(run.api.submit(prompt=prompt, config=model.config, **hook), text)
        run.expected |= {job.id} if hook else set()
        job.socket, job.events = (SocketSubscriber(self._stack, job.id), None) if number % 2 else (None, EventSource(run.api, job.id))
        self._watching.append(self._threads.submit((job.socket or job.events).watch))  # type: ignore[union-attr]
        return job

    def _submit_batch(self) -> None:
        content = {"items": [f"Row {number}." for number in range(ROWS)], "config": self._model.config, "webhook_url": self._webhooks.url()}
        answer = self._run.api.call("POST", "/batches", content)
        assert answer.status_code == 202, answer.text
        self._run.batch = answer.json()
        self._run.expected.add(self._run.batch["batch_id"])

    def finished(self, stack: Stack, models: tuple[Model, ...]) -> Run:
        """Collect what the tests look at, once the webhooks have arrived."""
        run, api = self._run, self._run.api

        def events() -> list[dict[str, Any]]:
            return [json.loads(one.body) for one in self._webhooks.received]

        until(lambda: run.expected <= {_subject(event) for event in events()}, "all webhooks")
        run.received = events()
        run.batch = api.get(f"/batches/{run.batch['batch_id']}")
        run.rows = json.loads(api.call("GET", f"/batches/{run.batch['batch_id']}/export", query={"format": "json"}).text)["items"]
        for job in run.all_jobs:
            job.result = api.get(f"/jobs/{job.id}/result")
        known = {one["model"]: one for one in stack.api("stage_admin").get("/circuits")["data"]}
        run.stage_circuits = {model.name: known[model.name] for model in models if model.name in known}
        return run


def _subject(event: dict[str, Any]) -> str:
    return str(event["data"].get("batch_id") or event["data"]["job_id"])


def _records(stack: Stack, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Return the records of jobs: the API shows neither how often a job was queued nor its crashes."""
    keys = [{"id": {"S": job_id}} for job_id in ids]
    rows = stack.aws("dynamodb").batch_get_item(RequestItems={"headrace-local-jobs": {"Keys": keys}})["Responses"]["headrace-local-jobs"]
    return {row["id"]["S"]: row for row in rows}


def test_the_other_tenant_did_its_worst(run: Run) -> None:
    """Otherwise the tests below would prove nothing."""
    assert run.hostile.missing() == [], dict(run.hostile.done)


def test_every_job_completes_in_its_first_attempt_with_its_text(run: Run) -> None:
    ends = [(job.result["status"], job.result["attempt"], job.result["output"]) for job in run.all_jobs]

    assert len(run.jobs) >= ROUND * MIN_ROUNDS
    assert ends == [("completed", 1, job.text) for job in run.all_jobs]


def test_no_job_is_held_and_no_worker_dies(run: Run, stack: Stack) -> None:
    """A job that was held, retried or recovered would have been queued again."""
    ids = [job.id for job in run.all_jobs] + [row["job_id"] for row in run.rows]
    records = _records(stack, ids)

    assert set(records) == set(ids)
    assert {job_id: row for job_id, row in records.items() if int(row["gen"]["N"]) != 1} == {}
    assert {job_id: row for job_id, row in records.items() if int(row.get("crashes", {"N": "0"})["N"])} == {}


def test_the_circuit_of_the_other_tenant_is_its_own(run: Run) -> None:
    """A job of this tenant runs on the model while the jobs of the other one wait."""
    assert run.on_own_model is not None
    assert run.circuits == []
    assert {name: circuit["state"] for name, circuit in run.stage_circuits.items() if circuit["state"] != "closed"} == {}


def test_no_request_is_refused(run: Run) -> None:
    assert {status: count for status, count in run.api.answers.items() if status == 429 or status >= 500} == {}


def test_every_watcher_holds_every_token_once(run: Run) -> None:
    sockets = [(job, job.socket) for job in run.all_jobs if job.socket]
    sources = [(job, job.events) for job in run.all_jobs if job.events]

    assert sockets
    assert sources
    assert [socket.frames for job, socket in sockets if "".join(socket.appended) != job.text or socket.started_over] == []
    assert [events.events for job, events in sources if events.text != job.text or "reset" in events.names] == []


def test_batch_completes_and_each_webhook_is_delivered_once(run: Run) -> None:
    assert (run.batch["status"], run.batch["counts"]["completed"]) == ("completed", ROWS)
    assert [row["output"] for row in run.rows] == [words(LENGTH, "row")] * ROWS
    assert Counter(_subject(event) for event in run.received) == Counter(run.expected)
    assert {event["type"] for event in run.received} == {"job.completed", "batch.completed"}
