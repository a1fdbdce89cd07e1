"""A soak: some minutes of concurrent jobs and faults, and everything that was observed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any
from uuid import uuid4

import httpx2

from tests.e2e.chaos import FUNCTION_TIMEOUT, TIMED_OUT_LANE, StrayMessages, Workers, function_times_out, logged_timeouts, reclaimed_at
from tests.e2e.soak_plan import SEED, Plan, Planned, planned
from tests.e2e.stack import TERMINAL, Api, Model, Stack, make_key, until
from tests.e2e.subscribers import EventSource, SocketSubscriber

MAX_SECONDS = 600.0  # from the first job to the last end
MAX_UNFINISHED = 45  # jobs; further ones wait, because this machine runs no more at once
MAX_REQUESTS, MAX_SSE_REQUESTS = 6, 4  # concurrent ones; each that waits or is slow occupies a function, which is a process
POLL_EVERY = 2.0  # seconds between two reads of the job list
STRAY_EVERY = 0.7  # seconds
THREADS = 200
USERS = ("one", "two", "three")  # several, because each key has a rate limit


class RetryingApi(Api):
    """An API client that repeats refused and failed requests, and counts the repeats."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.repeats: Counter[str] = Counter()

    def call(self, method: str, path: str, *args: Any, **named: Any) -> httpx2.Response:
        for delay in (0.5, 1.0, 2.0, 4.0, 8.0, 15.0):
            retry_after = 0.0
            try:
                answer = super().call(method, path, *args, **named)
                if answer.status_code != 429 and answer.status_code < 500:
                    return answer
                self.repeats[str(answer.status_code)] += 1
                retry_after = float(answer.headers.get("Retry-After", 0))
            except httpx2.TransportError as exc:
                self.repeats[type(exc).__name__] += 1
            time.sleep(max(delay, retry_after))
        return super().call(method, path, *args, **named)


@dataclass(eq=False)
class Run:
    """One job of a soak, and everything that was observed of it."""

    planned: Planned
    model: Model
    job_id: str = ""
    started: bool = False
    submitted: float = 0.0
    cancelled: bool = False
    retried: bool = False
    status: str = ""
    attempt: int = 0
    sockets: list[SocketSubscriber] = field(default_factory=list)
    event_sources: list[EventSource] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"job {self.planned.number} ({self.job_id}, {self.planned.lane}, {self.planned.trouble})"

    @property
    def lost_a_worker(self) -> bool:
        return any(attempt["error_code"] == "worker_lost" for attempt in self.attempts)


class Soak:
    """`run` runs the soak. Its attributes are the observations."""

    def __init__(self, stack: Stack, plan: Plan | None = None) -> None:
        self.plan = plan or planned()
        self.tag = f"soak-{uuid4().hex[:8]}"
        self.runs = [Run(job, stack.model()) for job in self.plan.jobs]
        self.left: dict[str, int] = {}
        self.dead_letters: list[str] = []
        self.verdict: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.reclaimed_at: dict[tuple[str, int], float] = {}
        self.broken: list[str] = []
        self.seconds = 0.0
        self.timeouts = 0
        self._http, self._sse_http = _client(MAX_REQUESTS), _client(MAX_SSE_REQUESTS)
        keys = {f"soak-{user}": make_key("demo", "operator", user) for user in USERS}
        self.stack = replace(stack, http=self._http, tokens=stack.tokens | keys)
        self.apis = [RetryingApi(self._http, stack.api_url, key) for key in keys.values()]
        self._turn = count()
        self.workers = Workers(self.stack, self.apis[0])
        self.stray = StrayMessages(self.stack, Random(f"lies/{SEED}"))
        self._started = 0.0
        self._ended = False

    @property
    def api(self) -> RetryingApi:
        return self.apis[next(self._turn) % len(USERS)]

    @property
    def repeats(self) -> Counter[str]:
        """How often a request was repeated, by its HTTP status or error."""
        return sum((api.repeats for api in self.apis), Counter[str]())

    def run(self) -> None:
        earlier_timeouts = logged_timeouts()
        with ExitStack() as stack:
            stack.enter_context(self._http)
            stack.enter_context(self._sse_http)
            stack.enter_context(function_times_out(self.stack))
            stack.enter_context(self.stray.short_visibility_timeout())
            stack.callback(self.workers.resume_all)
            self.stray.take_dead_letters()
            self._http.delete(f"{self.stack.openai_url}/_llmock/requests").raise_for_status()
            self._started = time.monotonic()
            with ThreadPoolExecutor(THREADS) as threads:
                self._run_all(threads)
            self.seconds = time.monotonic() - self._started
            self._settle()
            self._collect()
            self.timeouts = logged_timeouts() - earlier_timeouts

    # ---- jobs and faults at once

    def _run_all(self, threads: ThreadPoolExecutor) -> None:
        """Submit all jobs and inject all faults, until all jobs have ended."""
        work = [threads.submit(self._submit_all, threads)]
        work += [threads.submit(self._at, at, self._kill, Random(f"{SEED}/kill/{at}")) for at in self.plan.kills]
        work += [threads.submit(self._at, at, self._make_zombie, Random(f"{SEED}/zombie/{at}")) for at in self.plan.zombies]
        work += [threads.submit(self._at, at, self._time_out, Random(f"{SEED}/timeout/{at}")) for at in self.plan.timeouts]
        work.append(threads.submit(self._send_stray_messages))
        try:
            while not self._all_ended and self._is_running:
                time.sleep(POLL_EVERY)
                with suppress(AssertionError):  # the API was too busy to respond; the next poll follows
                    self._poll_jobs()
            for one in work:
                one.result()
        finally:
            self._ended = True
            self.workers.resume_all()

    def _submit_all(self, threads: ThreadPoolExecutor) -> None:
        """Submit each job at its planned time, while fewer than `MAX_UNFINISHED` are unfinished."""
        submitted = []
        for run in self.runs:
            self._sleep_until(run.planned.at)
            while self._is_running and sum(one.started and one.status not in TERMINAL for one in self.runs) >= MAX_UNFINISHED:
                time.sleep(0.2)
            run.started = True
            submitted.append(threads.submit(self._submit, run, threads))
        for one in submitted:
            one.result()

    def _submit(self, run: Run, threads: ThreadPoolExecutor) -> None:
        """Submit a job and start its subscribers."""
        run.model.script(run.planned.script(run.model.name))
        fields = run.planned.fields
        body = {**fields, "config": {**fields["config"], "model": run.model.name}, "tags": [self.tag]}
        api = self.api
        for _ in range(2 if run.planned.repeated else 1):
            answer = api.call("POST", "/jobs", body, headers={"Idempotency-Key": f"{self.tag}-{run.planned.number}"})
            assert answer.status_code == 202, answer.text
            assert run.job_id in ("", answer.json()["job_id"]), "one Idempotency-Key created two jobs"
            run.job_id = answer.json()["job_id"]
        run.submitted = self._elapsed
        for subscriber in self._subscribers(run):
            threads.submit(self._watch, run, subscriber)

    def _subscribers(self, run: Run) -> list[SocketSubscriber | EventSource]:
        random = Random(f"{SEED}/watchers/{run.planned.number}")
        length = len(run.planned.texts[0])
        for _ in range(run.planned.sockets):
            breaks = tuple(sorted(random.randrange(1, length) for _ in range(random.choice((0, 1, 1, 2)))))
            role = f"soak-{random.choice(USERS)}"
            run.sockets.append(SocketSubscriber(self.stack, run.job_id, breaks, role=role, timeout=MAX_SECONDS, silence=30.0))
        for _ in range(run.planned.event_sources):
            api = RetryingApi(self._sse_http, self.stack.api_url, self.stack.tokens[f"soak-{random.choice(USERS)}"])
            self.apis.append(api)
            run.event_sources.append(EventSource(api, run.job_id, cuts=random, timeout=MAX_SECONDS))
        return [*run.sockets, *run.event_sources]

    def _watch(self, run: Run, subscriber: SocketSubscriber | EventSource) -> None:
        try:
            subscriber.watch()
        except Exception as exc:  # noqa: BLE001 - reported by the tests
            self.broken.append(f"a subscriber of {run.name}: {exc!r}")

    def _poll_jobs(self) -> None:
        """Read the job list, and send the planned cancels and manual retries."""
        by_id = {run.job_id: run for run in self.runs if run.job_id}
        for record in self._listed():
            run = by_id.get(record["job_id"])
            if run is None:
                continue
            run.status, run.attempt = record["status"], record["attempt"]
            if not run.cancelled and run.planned.cancel_after is not None and self._is_time_to_cancel(run):
                run.cancelled = True
                self.api.call("POST", f"/jobs/{run.job_id}/cancel")
            elif run.planned.retried and not run.retried and run.status == "cancelled":
                self._retry(run)

    def _is_time_to_cancel(self, run: Run) -> bool:
        return self._elapsed > run.submitted + run.planned.delay + (run.planned.cancel_after or 0.0)

    def _retry(self, run: Run) -> None:
        answer = self.api.call("POST", f"/jobs/{run.job_id}/retry", {"run": 1})
        assert answer.status_code == 202, answer.text
        run.retried, run.status = True, "queued"
        for subscriber in run.sockets:
            subscriber.expected_version = answer.json()["version"]

    def _listed(self) -> Iterator[dict[str, Any]]:
        cursor: dict[str, str] = {}
        api = self.api  # a cursor belongs to its caller
        while True:
            page = api.get("/jobs", tag=self.tag, limit=100, **cursor)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    @property
    def _all_ended(self) -> bool:
        """Whether every job has ended, and all planned manual retries were sent."""
        return all(run.status in TERMINAL and (run.retried or not (run.planned.retried and run.status == "cancelled")) for run in self.runs)

    # ---- faults

    def _kill(self, random: Random) -> None:
        self._hit("killed", random)

    def _make_zombie(self, random: Random) -> None:
        """Freeze a worker until its successors run its jobs, then resume it."""
        hit = self._hit("frozen", random)
        while hit is not None and self._is_running:
            time.sleep(0.7)
            beside = self.workers.succeeded(hit)
            if beside or self.workers.all_ended(hit):
                time.sleep(random.uniform(0, 1.5))
                return self.workers.resume(hit, beside)
        return None

    def _time_out(self, random: Random) -> None:
        """Freeze a worker until its function's timeout ends it."""
        hit = self._hit("timed out", random, TIMED_OUT_LANE)
        deadline = self._elapsed + FUNCTION_TIMEOUT + 10
        while hit is not None and self._is_running and not self.workers.is_gone(hit):
            time.sleep(1.0)
            if self._elapsed > deadline:  # its invocation had just ended, so there is no timeout
                hit.kind = "frozen"
                return self.workers.resume(hit, set())
        return None

    def _hit(self, kind: str, random: Random, lane: str | None = None) -> Any:
        """Hit a worker as soon as one is in mid-stream. Return None if all jobs end before."""
        while not self._all_ended and self._is_running:
            hit = self.workers.hit(kind, random, lane)
            if hit is not None:
                return hit
            time.sleep(0.5)
        return None

    def _send_stray_messages(self) -> None:
        random = Random(f"{SEED}/lies")
        while not self._all_ended and self._is_running:
            time.sleep(STRAY_EVERY)
            known = [run for run in self.runs if run.job_id]
            if known:
                run = random.choice(known[-60:])
                self.stray.send(run.job_id, random.choice(("normal", run.planned.lane)), run.attempt)

    # ---- afterwards

    def _settle(self) -> None:
        """Wait for the redelivered messages of dead workers, and for all subscribers."""
        with _recorded("an empty lane", self.broken):
            until(lambda: not self.stray.left(), "empty lanes")
        self.left = self.stray.left()
        self.dead_letters = self.stray.take_dead_letters()
        for run in self.runs:
            for subscriber in (subscriber for subscriber in run.sockets if not subscriber.is_up_to_date):
                self._watch(run, subscriber)
            for source in run.event_sources if run.retried else []:
                self._watch(run, source)

    def _collect(self) -> None:
        for run in self.runs:
            run.record = self.api.get(f"/jobs/{run.job_id}")
            run.status = run.record["status"]
            if run.status in TERMINAL:
                run.result = self.api.get(f"/jobs/{run.job_id}/result")
            run.attempts = sorted(self.api.get(f"/jobs/{run.job_id}/attempts")["data"], key=lambda attempt: attempt["attempt"])
        self.verdict = self._http.get(f"{self.stack.openai_url}/_llmock/verdict").json()
        self.requests = self._http.get(f"{self.stack.openai_url}/_llmock/requests").json()["requests"]
        self.reclaimed_at = reclaimed_at(self.stack)

    @property
    def _is_running(self) -> bool:
        return not self._ended and self._elapsed < MAX_SECONDS

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _sleep_until(self, at: float) -> None:
        time.sleep(max(0.0, at - self._elapsed))

    def _at(self, at: float, what: Callable[[Random], None], random: Random) -> None:
        self._sleep_until(at)
        what(random)


def _client(connections: int) -> httpx2.Client:
    """Create an HTTP client with a limit of concurrent requests.

    Further requests wait, because a busy machine responds late.
    """
    limits = httpx2.Limits(max_connections=connections)
    return httpx2.Client(timeout=httpx2.Timeout(60.0, pool=None), trust_env=False, limits=limits)


@contextmanager
def _recorded(what: str, broken: list[str]) -> Iterator[None]:
    """Append a failed assertion to `broken`, which the tests check, so that the soak continues."""
    try:
        yield
    except AssertionError as exc:
        broken.append(f"{what}: {exc}")
