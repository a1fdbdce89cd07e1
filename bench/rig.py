"""The real engine on real adapters, with the loopback in place of AWS and OpenAI: what `throughput` and `batch` measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from chalicelib import bootstrap, job_types
from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.domain.auth.identity import Caller, Key, Role
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.ports import QueueMessage
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.jobs.submit_job import new_job
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.settings import Settings

ROOT = Path(__file__).parent.parent
LANE, STAGE, MODEL = "normal", "bench", "gpt-4o-mini"
CALLER = Caller(tenant="acme", user="alice", role=Role.USER, key_id="key_1", key_hash="hash")


class _Container(bootstrap.Container):
    """The real ones, with a key that is not looked up."""

    def __init__(self, base_url: str) -> None:
        super().__init__(Settings(stage=STAGE, log_level="ERROR"))
        self.base_url = base_url

    @cached_property
    def provider(self) -> Any:
        return OpenAIResponses(lambda: Credentials("key", self.base_url), offload=self.offload)


class Rig:
    """`model_url(tokens, pace)` is where a response of that length and pace comes from; `cloud_url` is everything of AWS."""

    def __init__(self, source_port: int, cloud_port: int) -> None:
        self.cloud_url = f"http://127.0.0.1:{cloud_port}"
        self._source = f"http://127.0.0.1:{source_port}"
        self._container = _Container("")
        bootstrap.override(self._container)
        self.loop = self._container.worker_loop
        key = Key(id=CALLER.key_id, hash=CALLER.key_hash, tenant=CALLER.tenant, user=CALLER.user, role=CALLER.role, created_at=0)
        self._container.api_keys.put_key(key)

    def model_url(self, tokens: int, pace: float = 0) -> str:
        return f"{self._source}/{tokens}/{pace:g}/v1"

    def submit(self, watchers: int, job_type: str = "general") -> Job:
        """A queued job with its watchers, as submit and subscribe leave it."""
        have = self._container
        submission = Submission(prompt="Tell me about water wheels.", job_type=job_type, priority=LANE)
        plan = plan_job(job_types.get, have.prices, CALLER, submission, 0)
        job = new_job(f"job_{have.new_id()}", CALLER, submission, plan, have.clock.now())
        have.job_specs.put(job.id, job.tenant, plan.spec, have.clock.now() // 1000 + 86_400)
        have.jobs.create(job)
        for number in range(watchers):
            have.subscriptions.add(self._watcher(job, number))
        return job

    def run(self, jobs: list[Job], tokens: int, pace: float = 0) -> float:
        """Seconds from the wake-up to the last acknowledgement of one invocation that runs them all."""
        self._container.base_url = self.model_url(tokens, pace)
        ctx = self._container
        received = [QueueMessage(WakeUp(job.id, job.generation).to_json(), f"receipt-{job.id}") for job in jobs]
        began = time.perf_counter()
        self.loop.run(process_messages(ctx, LANE, received, "bench"))
        return time.perf_counter() - began

    def check(self, job: Job, watchers: int, points: int) -> int:
        """That the job completed with all its text and every watcher was told so. The answer is how many frames that took."""
        ended = self._container.jobs.get(job.id)
        assert ended is not None
        assert (ended.status, ended.length) == (Status.COMPLETED, points), ended
        kept = self._container.chunks.read(job.id, 1)
        assert sum(len(chunk.text) for chunk in kept) == points, "the log is not whole"
        seen = self.seen()
        mine = [seen[f"{job.id}-{number}"] for number in range(watchers)]
        assert all((one["last"]["event"], one["last"]["length"]) == ("job_completed", points) for one in mine), "a watcher was not told"
        return sum(one["posts"] for one in mine)

    def seen(self) -> dict[str, Any]:
        """What each connection was sent."""
        with urlopen(f"{self.cloud_url}/seen") as answer:
            return dict(json.load(answer))

    def _watcher(self, job: Job, number: int) -> Subscription:
        have = self._container
        return Subscription(
            job_id=job.id,
            connection_id=f"{job.id}-{number}",
            endpoint=self.cloud_url,
            key_hash=CALLER.key_hash,
            attempt=0,
            offset=0,
            subscription_id=have.new_id(),
            expires_at=have.clock.now() + 7_200_000,
        )


@contextmanager
def rig() -> Iterator[Rig]:
    """Both stand-ins, each in a process of its own, and this process's environment pointed at them."""
    with ExitStack() as stack:
        source, cloud = (stack.enter_context(_served(module)) for module in ("bench.source", "bench.cloud"))
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_DEFAULT_REGION="us-east-1")
        os.environ["HEADRACE_LOG_LEVEL"] = "ERROR"  # standard output carries the finding
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{cloud}"
        yield Rig(source, cloud)


@contextmanager
def _served(module: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()
