"""Run the worker on the real adapters, against local servers for AWS and OpenAI."""

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
    """The real container; only the provider's address is set, and its API key is fixed."""

    def __init__(self, base_url: str) -> None:
        super().__init__(Settings(stage=STAGE, log_level="ERROR"))
        self.base_url = base_url

    @cached_property
    def provider(self) -> Any:
        return OpenAIResponses(lambda: Credentials("key", self.base_url), offload=self.offload)


class Rig:
    """A container on the two local servers, with methods that submit, run and check jobs."""

    def __init__(self, source_port: int, cloud_port: int) -> None:
        self.cloud_url = f"http://127.0.0.1:{cloud_port}"
        self._source = f"http://127.0.0.1:{source_port}"
        self._container = _Container("")
        bootstrap.override(self._container)
        self.loop = self._container.worker_loop
        key = Key(id=CALLER.key_id, hash=CALLER.key_hash, tenant=CALLER.tenant, user=CALLER.user, role=CALLER.role, created_at=0)
        self._container.api_keys.put_key(key)

    def model_url(self, tokens: int, pace: float = 0) -> str:
        """Return the base URL for responses of this length; `pace` is tokens a second, 0: no limit."""
        return f"{self._source}/{tokens}/{pace:g}/v1"

    def submit(self, subscribers: int, job_type: str = "general") -> Job:
        """Create a queued job with subscribers, as the API would."""
        container = self._container
        submission = Submission(prompt="Tell me about water wheels.", job_type=job_type, priority=LANE)
        plan = plan_job(job_types.get, container.prices, CALLER, submission, 0)
        job = new_job(f"job_{container.new_id()}", CALLER, submission, plan, container.clock.now())
        container.job_specs.put(job.id, job.tenant, plan.spec, container.clock.now() // 1000 + 86_400)
        container.jobs.create(job)
        for number in range(subscribers):
            container.subscriptions.add(self._subscription(job, number))
        return job

    def run(self, jobs: list[Job], tokens: int, pace: float = 0) -> float:
        """Run the jobs in one invocation and return how many seconds it took."""
        self._container.base_url = self.model_url(tokens, pace)
        messages = [QueueMessage(WakeUp(job.id, job.generation).to_json(), f"receipt-{job.id}") for job in jobs]
        started_at = time.perf_counter()
        self.loop.run(process_messages(self._container, LANE, messages, "bench"))
        return time.perf_counter() - started_at

    def check(self, job: Job, subscribers: int, points: int) -> int:
        """Check that the job has all its text and that every subscriber received its end.

        Returns: the number of frames that were posted.

        Raises:
            AssertionError: the job, its log or a subscriber is incomplete.
        """
        ended = self._container.jobs.get(job.id)
        assert ended is not None
        assert (ended.status, ended.length) == (Status.COMPLETED, points), ended
        chunks = self._container.chunks.read(job.id, 1)
        assert sum(len(chunk.text) for chunk in chunks) == points, "the log is incomplete"
        received = self.received()
        of_job = [received[f"{job.id}-{number}"] for number in range(subscribers)]
        ends = {(entry["last"]["event"], entry["last"]["length"]) for entry in of_job}
        assert ends <= {("job_completed", points)}, "a subscriber did not receive the end of the job"
        return sum(entry["posts"] for entry in of_job)

    def received(self) -> dict[str, Any]:
        """Return what was posted to each connection: posts, bytes, and the last frame."""
        with urlopen(f"{self.cloud_url}/seen") as answer:
            return dict(json.load(answer))

    def _subscription(self, job: Job, number: int) -> Subscription:
        return Subscription(
            job_id=job.id,
            connection_id=f"{job.id}-{number}",
            endpoint=self.cloud_url,
            key_hash=CALLER.key_hash,
            attempt=0,
            offset=0,
            subscription_id=self._container.new_id(),
            expires_at=self._container.clock.now() + 7_200_000,
        )


@contextmanager
def open_rig() -> Iterator[Rig]:
    """Start both servers, each in its own process, and point this process at them."""
    with ExitStack() as stack:
        source, cloud = stack.enter_context(_serve("bench.source")), stack.enter_context(open_cloud())
        yield Rig(source, cloud)


@contextmanager
def open_cloud() -> Iterator[int]:
    """Start the server for AWS and point this process at it. Yields its port."""
    with _serve("bench.cloud") as port:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_DEFAULT_REGION="us-east-1")
        os.environ["HEADRACE_LOG_LEVEL"] = "ERROR"  # keeps log lines out of the JSON on standard output
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        yield port


@contextmanager
def _serve(module: str) -> Iterator[int]:
    """Run a server module and yield its port."""
    with subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()
