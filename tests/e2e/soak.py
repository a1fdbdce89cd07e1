"""A few minutes in which everything goes wrong at once, and what came of it."""

from __future__ import annotations

import subprocess
import sys
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

from tests.e2e.chaos import FUNCTION_TIMEOUT, TIMED_OUT_LANE, Lies, Workers, function_times_out, taken_back, timeouts_told
from tests.e2e.cloud import ROOT, TERMINAL, Api, Model, Stack, until
from tests.e2e.soak_plan import SEED, Plan, Planned, planned
from tests.e2e.watchers import EventSource, SocketWatcher

LONGEST = 600.0  # seconds from the first job to the last end; beyond it something is stuck
MOST_AT_ONCE = 45  # jobs that have not ended: what comes faster than this machine can do it waits, as it would behind a rate limit
REQUESTS_AT_ONCE, SLICES_AT_ONCE = 6, 4  # each that is held or slow has a function, which is a process, of its own
LOOKS = 2.0  # seconds between two looks at the list of jobs
LIES_EVERY = 0.7  # seconds
THREADS = 200
USERS = ("one", "two", "three")  # a key has a rate: the soak asks as several people do


class Persistent(Api):
    """The API as a client sees it that asks again when it was refused or not answered, and counts that."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.repeats: Counter[str] = Counter()

    def call(self, method: str, path: str, *args: Any, **named: Any) -> httpx2.Response:
        for pause in (0.5, 1.0, 2.0, 4.0, 8.0, 15.0):
            asked_for = 0.0
            try:
                answer = super().call(method, path, *args, **named)
                if answer.status_code != 429 and answer.status_code < 500:
                    return answer
                self.repeats[str(answer.status_code)] += 1
                asked_for = float(answer.headers.get("Retry-After", 0))
            except httpx2.TransportError as exc:
                self.repeats[type(exc).__name__] += 1
            time.sleep(max(pause, asked_for))
        return super().call(method, path, *args, **named)


@dataclass(eq=False)
class Run:
    """One job of a soak, and all that was seen of it."""

    planned: Planned
    model: Model
    job_id: str = ""
    began: bool = False
    submitted: float = 0.0
    cancelled: bool = False
    retried: bool = False
    status: str = ""
    attempt: int = 0
    sockets: list[SocketWatcher] = field(default_factory=list)
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
    """`run` does it all; afterwards everything that was seen lies here."""

    def __init__(self, stack: Stack, plan: Plan | None = None) -> None:
        self.plan = plan or planned()
        self.tag = f"soak-{uuid4().hex[:8]}"
        self.runs = [Run(job, stack.model()) for job in self.plan.jobs]
        self.left: dict[str, int] = {}
        self.dead_letters: list[str] = []
        self.verdict: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.taken_back: dict[tuple[str, int], float] = {}
        self.broken: list[str] = []
        self.seconds = 0.0
        self.timeouts = 0
        self._http, self._slices = _client(REQUESTS_AT_ONCE), _client(SLICES_AT_ONCE)
        keys = {f"soak-{user}": _key(user) for user in USERS}
        self.stack = replace(stack, http=self._http, tokens=stack.tokens | keys)
        self.apis = [Persistent(self._http, stack.api_url, key) for key in keys.values()]
        self._turn = count()
        self.workers = Workers(self.stack, self.apis[0])
        self.lies = Lies(self.stack, Random(f"lies/{SEED}"))
        self._began = 0.0
        self._over = False

    @property
    def api(self) -> Persistent:
        return self.apis[next(self._turn) % len(USERS)]

    @property
    def repeats(self) -> Counter[str]:
        """How often somebody had to ask again, and why."""
        return sum((api.repeats for api in self.apis), Counter[str]())

    def run(self) -> None:
        told = timeouts_told()
        with ExitStack() as around:
            around.enter_context(self._http)
            around.enter_context(self._slices)
            around.enter_context(function_times_out(self.stack))
            around.enter_context(self.lies.given_out_again_soon())
            around.callback(self.workers.let_all_go)
            self.lies.set_aside()
            self._http.delete(f"{self.stack.openai_url}/_llmock/requests").raise_for_status()
            self._began = time.monotonic()
            with ThreadPoolExecutor(THREADS) as threads:
                self._storm(threads)
            self.seconds = time.monotonic() - self._began
            self._settle()
            self._collect()
            self.timeouts = timeouts_told() - told

    # ---- the storm

    def _storm(self, threads: ThreadPoolExecutor) -> None:
        """Everything at once, until all jobs have ended."""
        work = [threads.submit(self._begin_all, threads)]
        work += [threads.submit(self._at, at, self._kill, Random(f"{SEED}/kill/{at}")) for at in self.plan.kills]
        work += [threads.submit(self._at, at, self._make_a_zombie, Random(f"{SEED}/zombie/{at}")) for at in self.plan.zombies]
        work += [threads.submit(self._at, at, self._time_out, Random(f"{SEED}/timeout/{at}")) for at in self.plan.timeouts]
        work.append(threads.submit(self._tell_lies))
        try:
            while not self._all_over and self._goes_on:
                time.sleep(LOOKS)
                with suppress(AssertionError):  # the API was too busy to answer, however often: looked at again
                    self._look()
            for one in work:
                one.result()
        finally:
            self._over = True
            self.workers.let_all_go()

    def _begin_all(self, threads: ThreadPoolExecutor) -> None:
        """Each when its time has come."""
        begun = []
        for run in self.runs:
            self._sleep_until(run.planned.at)
            while self._goes_on and sum(one.began and one.status not in TERMINAL for one in self.runs) >= MOST_AT_ONCE:
                time.sleep(0.2)
            run.began = True
            begun.append(threads.submit(self._begin, run, threads))
        for one in begun:
            one.result()

    def _begin(self, run: Run, threads: ThreadPoolExecutor) -> None:
        """Submit a job and have it watched."""
        run.model.follow(run.planned.script(run.model.name))
        fields = run.planned.fields
        body = {**fields, "config": {**fields["config"], "model": run.model.name}, "tags": [self.tag]}
        api = self.api
        for _ in range(2 if run.planned.repeated else 1):
            answer = api.call("POST", "/jobs", body, headers={"Idempotency-Key": f"{self.tag}-{run.planned.number}"})
            assert answer.status_code == 202, answer.text
            assert run.job_id in ("", answer.json()["job_id"]), "one Idempotency-Key made two jobs"
            run.job_id = answer.json()["job_id"]
        run.submitted = self._elapsed
        for watcher in self._watchers(run):
            threads.submit(self._watch, run, watcher)

    def _watchers(self, run: Run) -> list[SocketWatcher | EventSource]:
        random = Random(f"{SEED}/watchers/{run.planned.number}")
        length = len(run.planned.texts[0])
        for _ in range(run.planned.sockets):
            breaks = tuple(sorted(random.randrange(1, length) for _ in range(random.choice((0, 1, 1, 2)))))
            role = f"soak-{random.choice(USERS)}"
            run.sockets.append(SocketWatcher(self.stack, run.job_id, breaks, role=role, patience=LONGEST, ask_again=30.0))
        for _ in range(run.planned.event_sources):
            api = Persistent(self._slices, self.stack.api_url, self.stack.tokens[f"soak-{random.choice(USERS)}"])
            self.apis.append(api)
            run.event_sources.append(EventSource(api, run.job_id, cuts=random, patience=LONGEST))
        return [*run.sockets, *run.event_sources]

    def _watch(self, run: Run, watcher: SocketWatcher | EventSource) -> None:
        try:
            watcher.watch()
        except Exception as exc:  # noqa: BLE001 - said as what it is: a watcher that broke
            self.broken.append(f"a watcher of {run.name}: {exc!r}")

    def _look(self) -> None:
        """What the list says; cancels and retries by hand as they were planned."""
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
        for watcher in run.sockets:
            watcher.wants = answer.json()["version"]

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
    def _all_over(self) -> bool:
        """Every job has ended, and nobody is still to cancel or to retry one."""
        return all(run.status in TERMINAL and (run.retried or not (run.planned.retried and run.status == "cancelled")) for run in self.runs)

    # ---- what goes wrong

    def _kill(self, random: Random) -> None:
        self._hit("killed", random)

    def _make_a_zombie(self, random: Random) -> None:
        """A worker stands still until its successors are in the middle of its jobs, and goes on beside them."""
        hit = self._hit("frozen", random)
        while hit is not None and self._goes_on:
            time.sleep(0.7)
            beside = self.workers.succeeded(hit)
            if beside or self.workers.over(hit):
                time.sleep(random.uniform(0, 1.5))
                return self.workers.wake(hit, beside)
        return None

    def _time_out(self, random: Random) -> None:
        """A worker stands still until its function's timeout ends it."""
        hit = self._hit("timed out", random, TIMED_OUT_LANE)
        given_up = self._elapsed + FUNCTION_TIMEOUT + 10
        while hit is not None and self._goes_on and not self.workers.is_gone(hit):
            time.sleep(1.0)
            if self._elapsed > given_up:  # its invocation had ended just before: nothing to time out
                hit.kind = "frozen"
                return self.workers.wake(hit, set())
        return None

    def _hit(self, kind: str, random: Random, lane: str | None = None) -> Any:
        """As soon as somebody is in mid-stream; not at all once nobody is any more."""
        while not self._all_over and self._goes_on:
            hit = self.workers.hit(kind, random, lane)
            if hit is not None:
                return hit
            time.sleep(0.5)
        return None

    def _tell_lies(self) -> None:
        random = Random(f"{SEED}/lies")
        while not self._all_over and self._goes_on:
            time.sleep(LIES_EVERY)
            known = [run for run in self.runs if run.job_id]
            if known:
                run = random.choice(known[-60:])
                self.lies.tell(run.job_id, random.choice(("normal", run.planned.lane)), run.attempt)

    # ---- afterwards

    def _settle(self) -> None:
        """What a dead worker had received comes once more, and is dropped."""
        with _patience_is_for("an empty lane", self.broken):
            until(lambda: not self.lies.left(), "empty lanes")
        self.left = self.lies.left()
        self.dead_letters = self.lies.set_aside()
        for run in self.runs:
            for watcher in (watcher for watcher in run.sockets if not watcher.at_rest):
                self._watch(run, watcher)
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
        self.taken_back = taken_back(self.stack)

    @property
    def _goes_on(self) -> bool:
        return not self._over and self._elapsed < LONGEST

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _sleep_until(self, at: float) -> None:
        time.sleep(max(0.0, at - self._elapsed))

    def _at(self, at: float, what: Callable[[Random], None], random: Random) -> None:
        self._sleep_until(at)
        what(random)


def _client(connections: int) -> httpx2.Client:
    """So many requests at once; others wait for their turn. A machine that is busy answers late, and asking it more would not help."""
    limits = httpx2.Limits(max_connections=connections)
    return httpx2.Client(timeout=httpx2.Timeout(60.0, pool=None), trust_env=False, limits=limits)


@contextmanager
def _patience_is_for(what: str, broken: list[str]) -> Iterator[None]:
    """What is not as it should be at the end is said by the tests, not by an error on the way there."""
    try:
        yield
    except AssertionError as exc:
        broken.append(f"{what}: {exc}")


def _key(user: str) -> str:
    """A key of an operator, made as people make them."""
    command = [sys.executable, "-m", "infra", "keys", "make", "--stage", "local", "--tenant", "demo", "--role", "operator", "--user", user]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
