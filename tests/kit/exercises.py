"""What the functions of a stage may have to do, with prompts, results and rows that are kept as objects.

Each exercise runs real entry points, each with its role. It checks what users see, and every call
that a role may not make is in `Roles.refused`. A new function, queue or right needs an exercise here.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from functools import cached_property
from typing import Any
from unittest.mock import patch

import requests
from botocore.exceptions import ClientError
from moto.apigatewaymanagementapi.models import apigatewaymanagementapi_backends

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws import sqs as sqs_adapter
from chalicelib.adapters.aws.openai_credentials import SecretsManagerCredentials
from chalicelib.adapters.compression import INLINE_BYTES, pack
from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys
from chalicelib.adapters.dynamodb.lines import DynamoLines
from chalicelib.adapters.dynamodb.open_index import OpenIndex
from chalicelib.adapters.memory.all import ManualClock
from chalicelib.adapters.memory.notifications import MemoryWebhookClient
from chalicelib.adapters.runtime.clock import SystemClock
from chalicelib.adapters.s3 import files
from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.failures import NotConfigured, RequestRefused
from chalicelib.domain.queues.causes import BUCKETS
from chalicelib.domain.queues.lanes import LANES, WORK, dead_letter_queue_name, queue_name
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.streaming.subscriptions import CONNECTION_SHARDS, connection_shard
from chalicelib.domain.units import Ms
from chalicelib.job_types import data_cleanup
from chalicelib.ports import QueueMessage, WebhookResponse
from chalicelib.services.auth.authenticate import secret_hash
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.scheduling import cause_queue, heads
from chalicelib.services.streaming import prune_connections
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.settings import Settings
from infra.naming import bucket_name, openai_secret_name, table_name
from tests.kit.container import InlineLoop
from tests.kit.failing_store import refusing
from tests.kit.iam import Roles
from tests.kit.lambdas import Lambdas
from tests.kit.moto_stage import ACCOUNT, REGION, STAGE, RealAdapters
from tests.kit.provider import Script, ScriptedProvider
from tests.kit.time import JumpingLoop

MAIL_FROM = "headrace@example.com"
SHORT_RUN_MS, LONG_RUN_MS = 4_000, 120_000  # a loop of the scheduler serves for 2 s, or until its lines are gone
BUCKET = bucket_name(STAGE, ACCOUNT)
WEBHOOK = "https://hooks.example.com/x"
LARGE = "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9FA5), k=9_500)))  # hard to compress, so it is kept as an object
assert len(pack(LARGE)) > INLINE_BYTES
ANSWER = Script(deltas=[LARGE[:-1], LARGE[-1]], every=4.0, first=0.01)
REFUSAL = Script(deltas=["no"], every=0.01, error=RequestRefused("No."))


class KeyedProvider(ScriptedProvider):
    """Answers `LARGE`, or fails the next `failures` requests. It reads the key of the stage, as the real provider does."""

    def __init__(self, credentials: Callable[[], object]) -> None:
        super().__init__(ANSWER)
        self.failures = 0
        self._credentials = credentials

    def stream(self, request: Any) -> Any:
        self._credentials()
        self.scripts[:] = [REFUSAL if self.failures > 0 else ANSWER]
        self.failures -= 1
        return super().stream(request)

    async def is_configured(self) -> bool:
        try:
            self._credentials()
        except NotConfigured:
            return False
        return True

    async def cancel(self, response_id: str) -> None:
        self._credentials()
        await super().cancel(response_id)


class MovingClock(ManualClock):
    """A clock that also moves while the scheduler waits on its event loop, or a loop of it would not end."""

    def __init__(self, start: Ms) -> None:
        super().__init__(start)
        self.loop = JumpingLoop()

    def now(self) -> Ms:
        return super().now() + round(self.loop.moment * 1000)


class FunctionContainer(RealAdapters):
    """The container of one kind of function: its provider and its receivers are scripted, all else is real."""

    def __init__(self, settings: Settings, clock: MovingClock, kind: str) -> None:
        super().__init__(settings)
        self._manual_clock, self._kind = clock, kind

    @cached_property
    def clock(self) -> Any:
        return self._manual_clock

    @cached_property
    def worker_loop(self) -> Any:
        return InlineLoop(self._manual_clock.loop if self._kind == "run_scheduler" else None)

    @cached_property
    def provider(self) -> Any:
        return KeyedProvider(SecretsManagerCredentials(STAGE, self._manual_clock))

    @cached_property
    def webhook_client(self) -> Any:
        return MemoryWebhookClient()


class Users:
    """A stage and who uses it: requests, messages of sockets, and what goes wrong meanwhile."""

    def __init__(self, cloud: Lambdas, clock: ManualClock) -> None:
        self.cloud, self.clock = cloud, clock
        self.gone: set[str] = set()  # connections that API Gateway no longer has
        aws._session().register("before-call.apigatewaymanagementapi", self._lose_connection)

    def call(self, method: str, url: str, body: Any = None, token: str = "user") -> Any:
        answer = self.cloud.call(method, url, body, token)
        assert answer.status < 400, f"{method} {url}: {answer.text}"
        return answer.json

    def submit(self, token: str = "user", **fields: Any) -> str:
        return str(self.call("POST", "/jobs", {"prompt": LARGE, **fields}, token)["job_id"])

    def status(self, job: str) -> str:
        return str(self.call("GET", f"/jobs/{job}/status", token="operator")["status"])

    def deliveries(self, of: str, token: str = "user") -> list[str]:
        return [each["status"] for each in self.call("GET", f"{of}/deliveries", token=token)["data"]]

    def connect(self, connection: str, *, ticket: bool = False, token: str = "user") -> None:
        query = {"ticket": self.call("POST", "/stream-tickets", {})["ticket"]} if ticket else None
        headers = {} if ticket else {"Authorization": f"Bearer hr_{token}"}
        answer = self.cloud.socket("$connect", connection=connection, headers=headers, queryStringParameters=query)
        assert answer == {"statusCode": 200}

    def send(self, connection: str, **message: Any) -> list[str]:
        """Send one message, and return the events of the frames that answer it."""
        before = len(self.events(connection))
        self.cloud.socket("$default", json.dumps(message), connection)
        return self.events(connection)[before:]

    def _lose_connection(self, model: Any, params: Any, **_: Any) -> None:
        if params["url_path"].rsplit("/", 1)[-1] in self.gone:
            response: Any = {"Error": {"Code": "GoneException"}, "ResponseMetadata": {"HTTPStatusCode": 410}}
            raise ClientError(response, model.name)

    def events(self, connection: str) -> list[str]:
        text, decoder, found, at = api_gateway().connections[connection].data.decode(), json.JSONDecoder(), [], 0
        while at < len(text):
            frame, at = decoder.raw_decode(text, at)
            found.append(str(frame["event"]))
        return found

    def container(self, kind: str) -> Any:
        return self.cloud.containers[kind]

    def receiver_is_down(self, down: bool) -> None:
        self.container("deliver").webhook_client.answer = lambda _: WebhookResponse(500 if down else 204)

    def fail_next(self, count: int) -> None:
        """Let the next requests to the provider fail for good."""
        self.container("worker").provider.failures = count

    def kill_worker(self, lane: str = "normal", seconds: float = 6.0) -> None:
        """Let a worker die while it streams: nothing after that is written, and its lease stays open."""
        sqs, ctx = aws.client("sqs"), self.container("worker")
        url = sqs.get_queue_url(QueueName=queue_name(STAGE, lane))["QueueUrl"]
        received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        messages = [QueueMessage(one["Body"], one["ReceiptHandle"], id=one["MessageId"]) for one in received]

        async def die() -> None:
            worker = asyncio.ensure_future(process_messages(ctx, lane, messages))
            await asyncio.sleep(seconds)
            with refusing(ctx.leases, "close", 10**6):
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)

        self.cloud.run(f"worker_{lane}", lambda: ctx.worker_loop.run(die()))

    def upload(self, text: str, content_type: str) -> str:
        data = text.encode()
        made = self.call("POST", "/uploads", {"content_type": content_type, "size": len(data)})
        assert requests.put(made["url"], data=data, headers=made["headers"], timeout=10).status_code == 200
        return str(made["upload_id"])

    def misdirect_task(self) -> None:
        """Move the wake-up of a task to a lane, where an older version of the code sends it."""
        sqs = aws.client("sqs")
        work, lane = (sqs.get_queue_url(QueueName=queue_name(STAGE, queue))["QueueUrl"] for queue in (WORK.name, "normal"))
        [message] = sqs.receive_message(QueueUrl=work)["Messages"]
        sqs.send_message(QueueUrl=lane, MessageBody=message["Body"])
        sqs.delete_message(QueueUrl=work, ReceiptHandle=message["ReceiptHandle"])

    def forget_object(self, part: str) -> None:
        aws.client("s3").delete_object(Bucket=BUCKET, Key=next(key for key in objects() if part in key))

    def forget_transcript(self, job: str) -> None:
        """What is left after a day: the record, the spec and the result."""
        table, dynamodb = table_name(STAGE, "job_data"), aws.client("dynamodb")
        rows = dynamodb.query(TableName=table, KeyConditionExpression="id = :id", ExpressionAttributeValues={":id": {"S": job}})
        for item in rows["Items"]:
            if not item["sk"]["S"].startswith(("result#", "spec")):
                dynamodb.delete_item(TableName=table, Key={"id": item["id"], "sk": item["sk"]})


class Exercises(Users):
    """What the functions may have to do. `run` does all of it, in order."""

    def run(self) -> None:
        steps = (
            *(self.limits, self.recipients, self.job, self.failing_receiver, self.sockets, self.dependents, self.changes),
            *(self.batch, self.cancelled_batches, self.tasks_of_other_types, self.dead_workers, self.lost_ends),
            *(self.lost_connection, self.operations, self.deletion),
        )
        for step in steps:
            try:
                step()
            finally:
                refused = [f"{role} may not: {ask}" for role, ask in self.cloud.roles.refused]
                assert refused == [], f"infra/policies.py does not allow what {step.__name__} needs"

    def limits(self) -> None:
        """The tenant has limits, so that every write of a job counts against them."""
        given = {"concurrency": 100, "user_concurrency": 50, "queued": {"total": 10_000, "low": 5_000}}
        self.call("PUT", "/limits/tenants/acme", given, "stage_admin")
        self.clock.advance(30)
        assert self.call("GET", "/limits")["limits"]["concurrency"] == 100

    def recipients(self) -> None:
        """The first use of a tenant creates its secrets."""
        self.call("PUT", "/webhooks/addresses", {"emails": ["ada@example.com"]}, "admin")
        self.call("POST", "/webhooks/rotate", {}, "admin")
        assert self.call("POST", "/webhooks/test", {"url": WEBHOOK}, "admin")["delivered"]

    def job(self) -> None:
        """Prompt and result are objects, and the end is told by webhook and e-mail."""
        self.connect("c1")
        job = self.submit(webhook_url=WEBHOOK, notify=["email:ada@example.com"])
        assert self.send("c1", action="subscribe", job_id=job) == ["connected"]
        self.cloud.settle()
        assert {"tokens", "job_completed"} <= set(self.events("c1"))
        assert self.call("GET", f"/jobs/{job}?include=prompt")["prompt"] == LARGE
        assert self.call("GET", f"/jobs/{job}/result")["output"] == LARGE
        assert self.call("GET", f"/jobs/{job}/text")["text"]
        assert self.cloud.call("GET", f"/jobs/{job}/stream").status == 200
        for view in ("status", "attempts", "progress", "progress-history", "graph"):
            self.call("GET", f"/jobs/{job}/{view}")
        assert self.deliveries(f"/jobs/{job}") == ["delivered", "delivered"]

    def failing_receiver(self) -> None:
        """The second attempt of a webhook, to which the schedule wakes, and the first use of another tenant."""
        self.receiver_is_down(True)
        other = self.submit("stranger", webhook_url=WEBHOOK)  # of a tenant that has no secrets yet
        self.cloud.settle()
        assert self.deliveries(f"/jobs/{other}", "stranger") == ["pending"]
        self.receiver_is_down(False)
        self.clock.advance(600)
        self.cloud.tick()
        self.cloud.settle()
        assert self.deliveries(f"/jobs/{other}", "stranger") == ["delivered"]

    def sockets(self) -> None:
        """A late subscriber gets the text of the object, and a gap when that is gone."""
        job = self.submit()
        self.cloud.settle()
        self.forget_transcript(job)
        self.connect("c2", ticket=True)
        assert "tokens" in self.send("c2", action="subscribe", job_id=job)
        self.forget_object(f"{job}/result")
        self.connect("c3")
        assert "gap" in self.send("c3", action="subscribe", job_id=job)
        assert self.cloud.call("GET", f"/jobs/{job}/text").status == 410
        self.send("c3", action="cancel", job_id=self.submit())
        self.send("c3", action="unsubscribe", job_id=job)
        self.cloud.socket("$disconnect", connection="c3")
        self.send("c1", action="subscribe", job_id=self.submit())
        self.cloud.deliver_messages()
        self.gone.add("c1")  # after the worker has sent its frames
        self.cloud.settle()

    def dependents(self) -> None:
        """A dependent gets the large output of its parent; one whose parent fails is cancelled."""
        parent, failing = self.submit(), self.submit(expires_in=1, delay=5)
        child = self.submit(prompt="Go on from: {{parents.first.output}}", depends_on={"first": parent})
        lost = self.submit(prompt="Go on from: {{parents.first.output}}", depends_on={"first": failing})
        self.cloud.settle()
        self.clock.advance(120)
        self.cloud.tick()
        self.cloud.settle()
        assert (self.status(child), self.status(lost)) == ("completed", "cancelled")

    def changes(self) -> None:
        """Requests that read, edit, repeat, retry and end jobs; a job whose spec is gone when its end is told."""
        self.call("POST", "/jobs/estimate", {"prompt": LARGE})
        keyed = [self.cloud.call("POST", "/jobs", {"prompt": LARGE, "delay": 600}, idempotency_key="k1").json["job_id"] for _ in range(2)]
        assert keyed[0] == keyed[1]
        self.submit(dedupe_key="one", delay=600)
        self.submit(dedupe_key="one", delay=600)
        self.call("PATCH", f"/jobs/{keyed[0]}", {"metadata": {"note": "changed"}, "priority": "high"})
        self.call("POST", f"/jobs/{keyed[0]}/cancel")
        self.fail_next(1)
        failed = self.submit()
        self.cloud.settle()
        assert self.status(failed) == "failed"
        self.call("POST", f"/jobs/{failed}/retry")
        self.cloud.settle()
        assert self.status(failed) == "completed"
        gone = self.submit(webhook_url=WEBHOOK)
        self.cloud.deliver_messages()
        self.forget_object(f"{gone}/spec")
        self.cloud.settle()
        for lane in LANES:
            assert self.submit(priority=lane)
        self.cloud.settle()

    def batch(self) -> None:
        """A batch from an upload, with large rows, is watched, retried, counted and exported."""
        rows = "".join(json.dumps({"prompt": LARGE}) + "\n" for _ in range(3))
        self.fail_next(1)
        upload = self.upload(rows, "application/x-ndjson")
        watched = self.call("POST", "/batches", {"upload_id": upload, "webhook_url": WEBHOOK})["batch_id"]
        self.connect("c4")
        self.send("c4", action="subscribe", batch_id=watched)
        self.cloud.settle()
        assert self.call("GET", f"/batches/{watched}?detailed=true")["status"] == "completed_with_failures"
        assert "batch_completed" in self.events("c4")
        assert self.deliveries(f"/batches/{watched}") == ["delivered"]
        self.gone.add("c4")
        self.call("POST", f"/batches/{watched}/retry-failed", {})
        self.cloud.settle()
        assert self.call("GET", f"/batches/{watched}")["status"] == "completed"
        self.call("POST", f"/batches/{watched}/recount", {}, "operator")
        self.cloud.call("GET", f"/batches/{watched}/export")
        self.call("GET", "/batches")

    def cancelled_batches(self) -> None:
        """A batch is cancelled while a lost connection watches it, and one loses its rows."""
        cancelled = self.call("POST", "/batches", {"items": ["a", "b"], "batch_size": 1, "delay": 600})["batch_id"]
        self.cloud.settle()
        self.connect("c5")
        self.send("c5", action="subscribe", batch_id=cancelled)
        self.gone.add("c5")
        self.call("DELETE", f"/batches/{cancelled}")
        lost = self.call("POST", "/batches", {"items": ["a", "b"]})["batch_id"]
        self.forget_object(f"{lost}/part")
        self.cloud.settle()

    def tasks_of_other_types(self) -> None:
        """The job types that call no model: an export, also one that is given up, an import, a notification and a warm-up."""

        def task(kind: str, token: str = "operator", **given: Any) -> str:
            job = str(self.call("POST", "/jobs", {"type": kind, "input": given}, token)["job_id"])
            self.cloud.settle()
            assert self.status(job) == "completed", self.call("GET", f"/jobs/{job}", token="operator")
            return job

        export = task("export", filter={"status": "completed"})
        assert self.cloud.call("GET", f"/jobs/{export}/download", token="operator").status == 307
        with patch.object(files, "PART_BYTES", 50_000), patch.object(files.S3FileWriter, "close", side_effect=RuntimeError("no end")):
            self.call("POST", "/jobs", {"type": "export", "input": {"filter": {"status": "completed"}}}, "operator")
            self.cloud.settle()
        task("csv_import", "user", upload_id=self.upload(f"prompt\n{LARGE}\n", "text/csv"), webhook_url=WEBHOOK)
        watched = self.submit("operator", prompt=None, type="cache_warmup", input={"prompts": ["a"]})
        self.connect("c6", token="operator")
        self.send("c6", action="subscribe", job_id=watched)
        self.misdirect_task()
        self.cloud.settle()
        assert "job_completed" in self.events("c6")
        task("notification", to=f"webhook:{WEBHOOK}", subject="Done", message="It is over.")
        task("cache_warmup", "user", prompts=[LARGE])
        self.submit(config={"cache": True})
        self.cloud.settle()

    def dead_workers(self) -> None:
        """Workers die: their jobs, of all kinds, are recovered by the next sweep."""
        plain, durable, empty = self.submit(), self.submit(config={"durable": True}), self.submit()
        self.kill_worker()
        self.forget_object(f"{empty}/spec")
        self.cloud.tick()  # while its lease is alive
        self.call("POST", f"/jobs/{durable}/cancel")
        self.clock.advance(120)
        self.cloud.tick()
        self.cloud.settle()
        assert [self.status(job) for job in (plain, durable, empty)] == ["completed", "cancelled", "failed"]

    def lost_ends(self) -> None:
        """Ends that the change stream does not deliver are notified by the schedule, or before a bulk operation changes the job."""
        self.fail_next(1)
        failed = self.submit(webhook_url=WEBHOOK)
        self.cloud.deliver_messages()
        ended, gone = self.submit(webhook_url=WEBHOOK), self.submit(webhook_url=WEBHOOK)
        self.cloud.deliver_messages()
        self.forget_object(f"{gone}/spec")
        parent = self.submit(delay=86_400)
        child = self.submit(prompt="Go on from: {{parents.first.output}}", depends_on={"first": parent})
        self.call("POST", f"/jobs/{parent}/cancel")
        self.cloud.lose_changes()
        batch = self.call("GET", "/batches")["data"][0]["batch_id"]
        with patch.object(bulk_operations, "INLINE_MAX_JOBS", 0), patch.object(bulk_operations, "_request_turn"):  # the requests die
            self.call("POST", "/bulk", {"action": "retry", "ids": [failed]}, "operator")
            self.call("POST", "/bulk", {"action": "set_priority", "priority": "low", "filter": {"batch": batch}}, "operator")
        self.clock.advance(3_600)
        self.cloud.tick("sweep_bulk_operations")
        self.cloud.tick("sweep_job_ends")
        assert self.status(child) == "cancelled"
        self.cloud.settle()
        assert [self.deliveries(f"/jobs/{job}") for job in (failed, ended, gone)] == [["delivered"] * 2, ["delivered"], []]

    def lost_connection(self) -> None:
        """A sweep asks whether the connections of its minute are open, and drops the others."""
        while self.clock.now() // prune_connections.INTERVAL_MS % CONNECTION_SHARDS != connection_shard("c2"):
            self.clock.advance(60)
        self.gone.add("c2")
        self.cloud.tick()

    def operations(self) -> None:
        """What operators do: circuits, health, lists, bulk operations and dead letters."""
        for route in ("health/system", "circuits", "failed-jobs", "jobs", "jobs?status=failed", "me", "job-types", "job-types/export"):
            self.call("GET", f"/{route}", token="operator")
        self.call("POST", "/circuits/gpt-4o/open", {"reason": "test"}, "all")
        self.call("POST", "/circuits/gpt-4o/close", {}, "all")
        self.pauses()
        self.slots()
        self.rate_limits()
        self.missing_key()
        sqs, dead = aws.client("sqs"), dead_letter_queue_name(STAGE, "normal")
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=dead)["QueueUrl"], MessageBody=WakeUp(self.submit(), 1).to_json())
        with patch.object(sqs_adapter, "WAIT_SECONDS", 0):
            self.call("POST", "/failed-jobs/redrive", {}, "all")
        with patch.object(OpenIndex, "delete"):  # it dies after its last write
            self.call("POST", "/bulk", {"action": "set_priority", "priority": "low", "all": True}, "operator")
        self.cloud.tick("sweep_bulk_operations")
        self.call("POST", "/bulk", {"action": "cancel", "all": True}, "operator")
        self.cloud.settle()

    def pauses(self) -> None:
        """Pauses of one tenant and for everybody, and of a job. Other jobs run meanwhile: their workers read the pauses."""
        self.call("POST", "/pauses", {"scope": {"lane": "urgent"}, "reason": "test"}, "all")
        self.call("POST", "/queues/export/pause", {"reason": "test"}, "operator")
        self.clock.advance(3)  # until no worker has the pauses of before
        job, own, urgent = self.submit(), self.submit(priority="low"), self.submit(priority="urgent")
        late = self.submit(priority="urgent", expires_in=60)
        self.call("POST", f"/jobs/{own}/pause", {"reason": "test"}, "operator")
        self.cloud.settle()
        assert [self.status(each) for each in (job, own, urgent)] == ["completed", "held", "held"]
        self.clock.advance(120)
        self.cloud.tick("sweep_lines")
        assert self.status(late) == "expired"
        for route in ("queues", "pauses", "queues/general:low"):
            self.call("GET", f"/{route}", token="operator")
        self.call("POST", "/queues/export/resume", {}, "operator")
        self.call("POST", "/queues/*:urgent/resume", {}, "all")
        self.call("POST", f"/jobs/{own}/resume", token="operator")
        self.clock.advance(3)
        self.cloud.settle()
        assert [self.status(each) for each in (own, urgent)] == ["completed", "completed"]

    def slots(self) -> None:
        """A user has one slot: the second job waits for it, and a sweep deletes the row of the empty line."""
        self.call("PUT", "/limits/tenants/acme", {"user_concurrency": 1}, "stage_admin")
        self.clock.advance(30)
        jobs = [self.submit() for _ in range(2)]
        self.cloud.settle()
        assert [self.status(job) for job in jobs] == ["completed", "completed"]
        assert "slots:u:acme#alice" in causes()
        self.limits()
        self.clock.advance(700)
        self.cloud.tick("sweep_lines")
        assert not [cause for cause in causes() if cause.startswith("slots:")]

    def rate_limits(self) -> None:
        """The requests of a model in a minute are used up: jobs wait, and the scheduler releases them."""
        self.call("PUT", "/limits/models/gpt-4o-mini", {"requests": 1}, "stage_admin")
        self.clock.advance(3)
        self.connect("c7")
        jobs = [self.submit() for _ in range(2)]
        for job in jobs:
            self.send("c7", action="subscribe", job_id=job)
        self.cloud.settle()
        assert sorted(self.status(job) for job in jobs) == ["completed", "held"]
        self.connect("c8")
        for job in jobs:
            self.send("c8", action="subscribe", job_id=job)
            self.call("GET", f"/jobs/{job}")
            self.call("GET", f"/jobs/{job}/explain")
        assert "held" in self.events("c7")
        self.call("GET", "/limits")
        self.clock.advance(70)
        self.cloud.tick("sweep_lines")
        self.cloud.settle()
        assert [self.status(job) for job in jobs] == ["completed", "completed"]
        self.call("PUT", "/limits/models/gpt-4o-mini", {"requests": None}, "stage_admin")
        self.clock.advance(3)

    def missing_key(self) -> None:
        """Jobs wait for the key of OpenAI. The index lists one that has run, and the line that is empty is deleted."""
        secrets, secret = aws.client("secretsmanager"), openai_secret_name(STAGE)
        secrets.put_secret_value(SecretId=secret, SecretString="{}")
        self.clock.advance(600)  # until nobody has the key of before
        job = self.submit()
        self.cloud.settle()
        assert self.status(job) == "held"
        row = {"Key": {"id": {"S": job}}, "TableName": table_name(STAGE, "jobs")}
        held = aws.client("dynamodb").get_item(**row)["Item"]
        secrets.put_secret_value(SecretId=secret, SecretString="sk-test")
        self.clock.advance(70)
        self.cloud.tick("sweep_lines")
        self.cloud.settle()
        assert self.status(job) == "completed"
        values = {":line": held["g_l"], ":place": held["g_lk"]}
        aws.client("dynamodb").update_item(**row, UpdateExpression="SET g_l = :line, g_lk = :place", ExpressionAttributeValues=values)
        self.cloud.remaining_ms["run_scheduler"] = LONG_RUN_MS
        with patch.object(heads, "RELEASED_MS", 2_000), patch.object(cause_queue, "QUIET_MS", 2_000):  # it reads moto less often
            self.cloud.settle()
        self.cloud.remaining_ms["run_scheduler"] = SHORT_RUN_MS
        assert causes() == []

    def deletion(self) -> None:
        """Records, rows and objects are deleted: at once, by a message, and by a clean-up."""
        jobs = [self.submit(priority="urgent") for _ in range(4)]
        self.cloud.settle()
        with patch.object(bulk_operations, "INLINE_MAX_JOBS", 0):
            self.call("POST", "/bulk", {"action": "delete", "ids": jobs[1:2]}, "operator")
        self.call("POST", "/bulk", {"action": "delete", "ids": jobs[:1]}, "operator")
        self.call("DELETE", "/failed-jobs?all=true", token="operator")
        self.clock.advance(3_600)
        self.cloud.tick()
        self.cloud.settle()
        assert not [key for key in objects() if any(job in key for job in jobs[:2])]
        given = {"days": 0, "cursor": "completed:"}  # the newest ones
        cleanup = self.call("POST", "/jobs", {"type": "data_cleanup", "input": given}, "operator")["job_id"]
        with patch.object(data_cleanup, "PAGE_SIZE", 3), patch.object(data_cleanup, "MAX_DELETED", 3):
            self.cloud.settle()
        assert self.status(cleanup) == "completed"
        assert not [key for key in objects() if jobs[2] in key]


def objects() -> list[str]:
    return [found["Key"] for found in aws.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def causes() -> list[str]:
    """The causes that have lines."""
    return [line.cause for bucket in range(BUCKETS) for line in DynamoLines(STAGE, lambda _tenant: 1).rows(bucket)]


def api_gateway() -> Any:
    return apigatewaymanagementapi_backends[ACCOUNT][REGION]


def prepare(roles: Roles) -> Exercises:
    """Functions with these roles, on the stage that is on moto."""
    clock, settings = MovingClock(SystemClock().now()), Settings(stage=STAGE, mail_from=MAIL_FROM, scheduler_shards=1)
    aws.client("ses").verify_email_identity(EmailAddress=MAIL_FROM)
    aws.client("secretsmanager").create_secret(Name=openai_secret_name(STAGE), SecretString="sk-test")
    DynamoApiKeys(STAGE).put_key(
        Key(id="key_all", hash=secret_hash("hr_all"), tenant="acme", user="root", role=Role.ADMIN, created_at=1, all_tenants=True)
    )
    cloud = Lambdas(roles, lambda kind: FunctionContainer(settings, clock, kind))
    cloud.remaining_ms["run_scheduler"] = SHORT_RUN_MS
    return Exercises(cloud, clock)
