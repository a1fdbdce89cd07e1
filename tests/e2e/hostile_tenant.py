"""A tenant that tries to harm the others: prompts, bodies, files, sockets and retries without end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import cycle
from typing import Any

import httpx2
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.stack import TERMINAL, Stack, make_key
from tests.e2e.subscribers import Socket
from tests.kit.hostile_bodies import BODIES, Hostile
from tests.kit.hostile_files import FILES
from tests.kit.live_response import Scenario

# What the provider does with a prompt, and with which codes the attempts fail then.
PROMPTS: dict[str, tuple[dict[str, Any], str]] = {
    "fails with 500": ({"refuses": 500}, "provider_unavailable"),
    "fails in the stream": ({"fails": {"code": "server_error", "message": "It failed."}}, "provider_unavailable"),
    "breaks the connection": ({"breaks": [4]}, "provider_connection_lost"),
    "stalls": ({"stalls": [4]}, "timeout"),
    "is forbidden": ({"refuses": 403}, "provider_unavailable"),
    "is refused": ({"refuses": 400}, "request_invalid"),
}
BODIES_SENT = ("tags of lists", "deepest lists", "a schema that doubles", "a batch of lists", "a csv of a million columns")
FILES_SENT = ("a line of lists", "csv of a million columns")
MAX_RUNNING = 8  # jobs of each model: fair shares of a lane are not what is shown here
MAX_SOCKETS = 25
# Seconds between two requests of each flood. All functions are processes on this machine, where a message
# of a socket takes some 60 ms of a core: faster floods would show what the emulator can take.
PING_EVERY, SUBSCRIBE_EVERY, CONNECT_EVERY, BODY_EVERY, FILE_EVERY = 0.15, 0.2, 0.3, 0.5, 3.0
LONG = "long"  # the prompt of the text that is replayed again and again
LONG_WORDS = [f"again{number} " for number in range(3_000)]


def scenarios() -> Iterator[Scenario]:
    """What the provider does with the prompts of this tenant, whatever the model."""
    for prompt, (fault, _) in PROMPTS.items():
        yield Scenario(prompt=f"This {prompt}.", foreground=True, deltas=["one ", "two ", "three "], **fault)
    yield Scenario(prompt=f"A {LONG} text.", foreground=True, deltas=LONG_WORDS, every=0.0)


class HostileTenant:
    """`attack` runs until the block ends.

    Attributes:
        done: how often it has done what, and what became of it.
    """

    def __init__(self, stack: Stack, tenant: str, shared_model: str, own_model: str) -> None:
        self._http = httpx2.Client(timeout=60.0, trust_env=False)
        self._stack = replace(
            stack, http=self._http, tokens={"user": make_key(tenant, "operator"), "other": make_key(tenant, "user", "two")}
        )
        self.api = self._stack.api()
        self._over_rate = self._stack.api("other")  # a key of its own, which is soon over its rate limit
        self.own_model, self._shared_model = own_model, shared_model
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()

    @contextmanager
    def attack(self) -> Iterator[None]:
        attacks: list[Callable[[], None]] = [
            lambda: self._submit(self._shared_model),
            lambda: self._submit(self.own_model),
            self._send_bodies,
            self._import_files,
            self._open_sockets,
            self._ping,
            self._replay,
        ]
        with self._http, ThreadPoolExecutor(len(attacks)) as threads:
            running: list[Future[None]] = [threads.submit(attack) for attack in attacks]
            try:
                yield
            finally:
                self._over.set()
                for one in running:
                    one.result()
                self.api.call("POST", "/bulk", {"action": "cancel", "all": True})

    def missing(self) -> list[str]:
        """Return what it has not done yet. Without it, whoever notices nothing proves nothing."""
        expected = {
            *(f"attempt: {code}" for _, code in PROMPTS.values()),
            *("own circuit open", "job held", "job retried"),
            *(f"body refused: {name}" for name in BODIES_SENT),
            *(f"file refused: {name}" for name in FILES_SENT),
            *("replay",),
        }
        with self._lock:
            few_sockets = [] if self.done["socket"] > MAX_SOCKETS else ["sockets"]
            return sorted(expected - set(self.done)) + few_sockets

    def _note(self, what: str) -> None:
        with self._lock:
            self.done[what] += 1

    def _goes_on(self, seconds: float) -> bool:
        return not self._over.wait(seconds)

    # ---- prompts

    def _submit(self, model: str) -> None:
        """Keep some jobs running whose prompts make the provider fail, and retry them when they have."""
        prompts, jobs = cycle(PROMPTS), list[str]()
        while self._goes_on(0.2):
            if len(jobs) < MAX_RUNNING:
                jobs += self._submit_one(model, next(prompts))
                continue
            for job_id in jobs:
                self._look_after(job_id)
            if model == self.own_model:
                self._look_at_circuit()

    def _submit_one(self, model: str, prompt: str) -> Iterator[str]:
        config = {"model": model, "timeout": 4, "max_attempts": 2}
        answer = self.api.call("POST", "/jobs", {"prompt": f"This {prompt}.", "config": config})
        if answer.status_code == 202:
            yield answer.json()["job_id"]

    def _look_after(self, job_id: str) -> None:
        status = self._get(f"/jobs/{job_id}/status").get("status")
        if status == "held":
            self._note("job held")
        if status in TERMINAL:
            for attempt in self._get(f"/jobs/{job_id}/attempts").get("data", []):
                self._note(f"attempt: {attempt['error_code']}")
            if self.api.call("POST", f"/jobs/{job_id}/retry").is_success:
                self._note("job retried")

    def _look_at_circuit(self) -> None:
        for circuit in self._get("/circuits").get("data", []):
            if circuit["model"] == self.own_model and circuit["state"] != "closed":
                self._note(f"own circuit {circuit['state']}")

    def _get(self, path: str) -> dict[str, Any]:
        """Return what a route answers, or nothing while the key is over its rate limit."""
        answer = self.api.call("GET", path)
        return dict(answer.json()) if answer.is_success else {}

    # ---- bodies and files

    def _send_bodies(self) -> None:
        """Send one body after the other, whatever is answered."""
        for name in cycle(BODIES_SENT):
            if not self._goes_on(BODY_EVERY):
                return
            hostile = BODIES[name]
            answer = self._over_rate.call("POST", hostile.path, content=_content(hostile), headers={"Content-Type": hostile.content_type})
            is_refused = answer.status_code == hostile.status and hostile.says in answer.text
            self._note(f"body refused: {name}" if is_refused else f"body answered with {answer.status_code}")

    def _import_files(self) -> None:
        for name in cycle(FILES_SENT):
            if not self._goes_on(FILE_EVERY):
                return
            file = FILES[name]
            with suppress(AssertionError):  # over the rate limit
                upload = self._over_rate.upload(file.content_type, b"".join(file.opened().pieces))
                job_id = self._over_rate.submit(prompt=None, job_type="csv_import", input={"upload_id": upload})
                result = self._over_rate.wait_for_end(job_id)
                is_refused = file.says in (result["error"] or {}).get("message", "")
                self._note(f"file refused: {name}" if is_refused else f"file: {result['status']}")

    # ---- sockets

    def _open_sockets(self) -> None:
        """Open sockets without end, and let the network break them."""
        with ExitStack() as opened:
            sockets: list[Socket] = []
            while self._goes_on(CONNECT_EVERY):
                with suppress(InvalidStatus, OSError, TimeoutError):
                    sockets.append(opened.enter_context(Socket(self._stack)))
                    self._note("socket")
                if len(sockets) >= MAX_SOCKETS:
                    for one in sockets:
                        one.kill()
                    sockets.clear()

    def _ping(self) -> None:
        """Send pings until the socket is closed, then open another one."""
        while self._goes_on(PING_EVERY):
            with suppress(ConnectionClosed, InvalidStatus, OSError), Socket(self._stack) as flooding:
                while self._goes_on(PING_EVERY):
                    try:
                        flooding.send({"action": "ping"})
                        self._note_refusal(flooding, "socket refused")
                    except ConnectionClosed:
                        self._note("socket closed for flooding")
                        raise

    def _replay(self) -> None:
        """Ask for a long text again and again."""
        job_id = ""
        while not job_id and self._goes_on(SUBSCRIBE_EVERY):
            job_id = next(self._submit_long(), "")
        while self._goes_on(SUBSCRIBE_EVERY):
            with suppress(ConnectionClosed, InvalidStatus, OSError), Socket(self._stack) as greedy:
                while self._goes_on(SUBSCRIBE_EVERY):
                    greedy.subscribe(job_id)
                    self._note_refusal(greedy, "replay refused")

    def _submit_long(self) -> Iterator[str]:
        answer = self.api.call("POST", "/jobs", {"prompt": f"A {LONG} text.", "config": {"model": self._shared_model}})
        if answer.status_code == 202:
            yield answer.json()["job_id"]

    def _note_refusal(self, socket: Socket, name: str) -> None:
        """Read what has arrived."""
        with suppress(TimeoutError):
            while True:
                frame = socket.receive(0.001)
                if frame["event"] == "error":
                    self._note(name if frame["code"] == "rate_limited" else f"error: {frame['code']}")
                if frame["event"] == "tokens":
                    self._note("replay")


def _content(hostile: Hostile) -> bytes:
    return hostile.make_body().encode("utf-8", "surrogatepass")
