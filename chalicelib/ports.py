"""What the use cases need from outside. `adapters/` has a real one and an in-memory twin of each; one contract test runs on both.

Stores are synchronous: a call is one request to AWS (two where it says so). A worker runs them off its event loop, through `Offload`.
Every store raises `Unavailable` (`Throttled`, if that is why) when it could not be reached after a bounded number of tries, and then
whether the effect happened is unknown: callers rely on conditions, not on answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from chalicelib.domain.body import Body
from chalicelib.domain.bulk import Bulk
from chalicelib.domain.circuit import Circuit
from chalicelib.domain.errors import AttemptFailed
from chalicelib.domain.identity import Key
from chalicelib.domain.job import Job, Ms, Nano, Usage
from chalicelib.domain.result import Result
from chalicelib.domain.transcript import Chunk
from chalicelib.domain.wakeup import WakeUp
from chalicelib.domain.watching import Connection, Control, Ticket, Watcher

T = TypeVar("T")


class Clock(Protocol):
    def now(self) -> Ms:
        """Milliseconds since 1970."""

    def sleep(self, seconds: float) -> None:
        """Wait, in code that is not asynchronous: only requests that are held do."""


class Offload(Protocol):
    """How a worker calls a synchronous store without stopping its other streams. Every outside call of a worker goes through it."""

    async def __call__(self, call: Callable[..., T], *args: Any) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """A caller's Idempotency-Key: `scope` is tenant, user and route, `fingerprint` the hash of the request, kept until `expires_at`.

    `position` in the queue is the one part of the first answer to a submission that cannot be worked out again; 0 where an existing job
    was answered. `generation` is the job's as a request to change it saw it: once it has grown, that change needs no repetition.
    """

    scope: str
    key: str
    fingerprint: str
    expires_at: Ms
    position: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What an Idempotency-Key stands for: the job that was answered, and a fingerprint of the request."""

    job_id: str
    fingerprint: str
    position: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """A page of jobs, newest first. Exactly one of `tenant` with `state`, `user` or neither picks the index.

    `state`: one status. `before`: job id to go on below (exclusive). `since`, `until`: bounds of creation.
    """

    tenant: str
    user: str | None = None
    state: str | None = None
    before: str | None = None
    since: Ms | None = None
    until: Ms | None = None
    limit: int = 100


class Jobs(Protocol):
    """The heads of jobs: the truth."""

    def create(self, job: Job, idempotency: Idempotency | None = None, replaces: str | None = None) -> None:
        """Put a new job, with its idempotency row and its dedupe pointer (`job.dedupe_key`) in one transaction.

        `replaces` is the ended job that the dedupe pointer names so far. Repeating a creation whose answer was lost succeeds.

        Raises:
            AlreadyRemembered: the idempotency key is taken and has not expired.
            AlreadyPointed: another job has taken the dedupe pointer meanwhile.
        """

    def get(self, job_id: str) -> Job | None:
        """The head, read consistently."""

    def get_many(self, job_ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
        """The heads that exist, in the order asked for. One request for each hundred; a consistent read costs double."""

    def replace(self, seen: Job, new: Job) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen. A swap that had been done already succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """

    def delete(self, seen: Job) -> None:
        """Remove a head, if the version is still the one seen. Removing what is gone succeeds.

        Raises:
            StaleVersion: it moved on.
        """

    def remember(self, idempotency: Idempotency, job_id: str, now: Ms) -> None:
        """Let an Idempotency-Key stand for a job that is there already. Repeating it succeeds.

        Raises:
            AlreadyRemembered: the key stands for something else, which has not expired.
        """

    def remembered(self, scope: str, key: str, now: Ms) -> Remembered | None:
        """What an Idempotency-Key stands for, None if nothing or expired."""

    def pointed(self, tenant: str, user: str, dedupe_key: str) -> str | None:
        """The job that a user's dedupe key points at."""

    def due(self, lane: str | None, until: Ms, limit: int) -> list[str]:
        """Jobs that somebody must look at until then, the longest overdue first, at most `limit` of each part of the index: eight requests.

        Of a `lane` those that are queued or worked on; None: all that wait for a time, of all lanes.
        """

    def put_off(self, job_id: str, until: Ms) -> None:
        """Have a job looked at no earlier than `until`, whatever else its record says: for one that cannot be read."""

    def page(self, query: JobQuery) -> tuple[list[str], str | None]:
        """Ids of one page, and the id to go on `before`, None at the end. One request (one a hundred rows)."""


class Bodies(Protocol):
    """What jobs are asked to do. Large ones go to object storage behind this port."""

    def put(self, job_id: str, tenant: str, body: Body, ttl: int) -> None: ...

    def get(self, job_id: str) -> Body | None: ...

    def keep(self, job_id: str, until: int) -> None:
        """Keep it until then (seconds since 1970) at least; nothing where there is none."""

    def change(self, job_id: str, tenant: str, body: Body, version: int) -> None:
        """Put `body` in its place, as the head of `version` says it; one that a later head says stays. Nothing where there is none.

        Raises:
            StaleVersion: another body was put for this version, by somebody whose change of the head looked the same.
        """


class Pages(Protocol):
    def forget(self, job_id: str, tenant: str) -> None:
        """Remove all that is kept of a job beside its head: body, log, results, watchers, controls, objects. Repeating it succeeds."""


class Chunks(Protocol):
    """The log: the text of each attempt as it is kept."""

    def append(self, chunk: Chunk) -> None:
        """Put a chunk where none ends. Repeating a put whose answer was lost succeeds.

        Raises:
            ChunkConflict: another chunk ends there.
        """

    def read(self, job_id: str, attempt: int, offset: int = 0) -> list[Chunk]:
        """All chunks that end beyond `offset`, in order, read consistently."""

    def last(self, job_id: str, attempt: int) -> Chunk | None:
        """The chunk with the greatest end."""


class Results(Protocol):
    """The results of attempts. Large ones go to object storage behind this port."""

    def put(self, result: Result, tenant: str) -> None:
        """The row of an attempt, by its own worker: writing it again writes the same. The row of a later claim stays as it is, unless
        that is an estimate of `put_if_absent` and this one says what was charged.
        """

    def put_if_absent(self, result: Result, tenant: str) -> None:
        """The row of an attempt whose worker is dead, unless that worker has written, or writes, its own."""

    def get(self, job_id: str, attempt: int) -> Result | None: ...

    def attempts(self, job_id: str) -> list[Result]:
        """The results of all attempts, the oldest first, without their texts."""

    def link(self, job_id: str, attempt: int, seconds: int = 300) -> str | None:
        """An address from which the text can be read for some time; None where it is kept in the table."""


class Watchers(Protocol):
    """Subscriptions of connections to jobs, and each job's bell."""

    def add(self, watcher: Watcher) -> None:
        """Put the row, then ring the bell: two requests, in this order."""

    def remove(self, job_id: str, connection_id: str) -> None: ...

    def of(self, job_id: str) -> list[Watcher]:
        """Everybody who watches, read consistently."""

    def ask_cancel(self, job_id: str, generation: int, ttl: int) -> None:
        """Tell the worker of this generation, which looks here once a second, to stop."""

    def note_reader(self, job_id: str, until: Ms) -> None:
        """Tell the worker that somebody reads the log."""

    def controls(self, job_ids: Sequence[str]) -> dict[str, Control]:
        """The controls of many jobs in one request; those without one are left out."""


class Connections(Protocol):
    def open(self, connection: Connection) -> None: ...

    def get(self, connection_id: str) -> Connection | None: ...

    def subscribe(self, connection_id: str, job_id: str) -> bool:
        """Note the subscription. False: the connection has as many as it may, or is not known."""

    def unsubscribe(self, connection_id: str, job_id: str) -> None: ...

    def close(self, connection_id: str) -> Connection | None:
        """Forget the connection; the answer says what it was subscribed to."""

    def some(self, part: int, limit: int) -> list[Connection]:
        """At most `limit` connections of one of the eight parts that all are in: one or two requests.

        If there are more, others each time.
        """


class Tickets(Protocol):
    def put(self, ticket: Ticket) -> None: ...

    def get(self, ticket_hash: str) -> Ticket | None: ...

    def use(self, ticket_hash: str, connection_id: str) -> bool:
        """Mark it as used by one connection. False: another has used it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One invocation of a worker: what it holds and until when it is alive. Also what operators see as a worker.

    `watermark`: since when the job that had waited longest was ready, of those that it was handed; what came into the lane later is
    behind it. `fenced`: it was declared dead, and what it holds is being given to others.
    """

    id: str
    lane: str
    expires_at: Ms
    started_at: Ms
    jobs: tuple[str, ...] = ()
    environment: str = ""
    watermark: Ms = 0
    fenced: bool = False


class Leases(Protocol):
    def open(self, lease: Lease) -> None: ...

    def renew(self, lease: Lease) -> None:
        """Extend it to its `expires_at`.

        Raises:
            StaleVersion: it was fenced: everything it held belongs to others now.
        """

    def close(self, lease: Lease) -> None:
        """Forget it, unless it was fenced."""

    def get(self, lease_id: str) -> Lease | None:
        """The lease, read consistently; fenced ones too."""

    def all(self) -> list[Lease]:
        """Every lease that is open, or fenced and not buried yet, read consistently: eight requests."""

    def fence(self, seen: Lease) -> bool:
        """Declare it dead if it has not been renewed since it was read: its worker can renew no more. Repeating it is True again."""

    def bury(self, lease: Lease) -> None:
        """Forget a fenced lease, once all that it held is with others."""


class Circuits(Protocol):
    """What is known of each model's circuit. A model of which nothing is known is not there."""

    def all(self) -> list[Circuit]:
        """All that are known, in one request, not read consistently."""

    def get(self, model: str) -> Circuit | None:
        """One, read consistently."""

    def replace(self, seen: Circuit, new: Circuit) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen (0: nothing is there). One that had been done succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """


class Bulks(Protocol):
    """Bulk actions, each kept for a week after its last step."""

    def create(self, bulk: Bulk) -> None:
        """Put a new one; what is there already stays. First what names it as unfinished, so that it is never forgotten."""

    def get(self, tenant: str, bulk_id: str) -> Bulk | None: ...

    def replace(self, seen: Bulk, new: Bulk) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen. A swap that had been done already succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """

    def unfinished(self, now: Ms, limit: int) -> list[Bulk]:
        """Those that are unfinished and that nobody works on, the oldest first: one request, and one each."""


class Slots(Protocol):
    """A bounded number of something, each taken for a time: a crash gives it back by itself."""

    def take(self, name: str, size: int, until: Ms, now: Ms) -> int | None:
        """A free slot of `size`, None if there seems to be none."""

    def give_back(self, name: str, slot: int) -> None: ...


class Meters(Protocol):
    def count(self, name: str, window: int, ttl: int) -> int:
        """Count one more in the window that is named, and say how many there are now."""


class Accounts(Protocol):
    def key(self, key_hash: str) -> Key | None: ...

    def put_key(self, key: Key) -> None: ...

    def keys(self, tenant: str) -> list[Key]: ...

    def endpoints(self) -> dict[str, str]:
        """The addresses of this stage, as its deployment wrote them: `ws_url`, `api_url`. Empty before the first."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as a worker gets it."""

    body: str
    receipt: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of a dead-letter queue. `reason`: why it was set aside; None where it was only received too often."""

    body: str
    receipt: str
    reason: str | None = None


class Queues(Protocol):
    def send(self, lane: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        """Send a wake-up; `delay` in seconds, 0-900."""

    def acknowledge(self, lane: str, receipts: Sequence[str]) -> None:
        """Delete messages, at most ten."""

    def set_aside(self, lane: str, body: str, reason: str) -> None:
        """Put what is no wake-up where people see it: the lane's dead-letter queue."""

    def depth(self, lane: str) -> int:
        """About how many messages wait: neither those that are delayed nor those that a worker has. Remembered for some seconds."""

    def dead_letters(self, lane: str) -> int:
        """About how many messages lie in the lane's dead-letter queue, or in that of the change stream. Remembered for some seconds."""

    def receive_dead(self, lane: str) -> list[DeadLetter]:
        """Up to ten of its dead letters, hidden from the next call for a minute. It waits a second for them."""

    def delete_dead(self, lane: str, receipts: Sequence[str]) -> None:
        """Delete dead letters, at most ten."""


class Sockets(Protocol):
    def post(self, endpoint: str, connection_id: str, data: bytes) -> None:
        """Post one frame.

        Raises:
            ConnectionGone: forget it.
            ConnectionRefused: it is not known to be closed, but no post to it would fare better.
            ConnectionBusy: slow down, and post from the last acknowledged offset again.
        """

    def is_open(self, endpoint: str, connection_id: str) -> bool:
        """Whether the connection is still there.

        Raises:
            ConnectionRefused, ConnectionBusy: it cannot be told.
        """

    def close(self, endpoint: str, connection_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars a token."""

    input: float
    cached: float
    output: float

    def cost(self, usage: Usage) -> Nano:
        fresh = usage.input - usage.cached
        return round(fresh * self.input + usage.cached * self.cached + usage.output * self.output)


class Prices(Protocol):
    def of(self, model: str) -> Price | None:
        """None: this model's price is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a provider is asked. `schema` asks for structured output: `{"name", "schema", "strict"}`; `json` for any JSON.

    `background`: the provider is to go on when nobody listens, and to keep the response for some minutes.
    """

    model: str
    prompt: str
    instructions: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    schema: dict[str, Any] | None = None
    json: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    timeout: float = 300.0
    background: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """The provider has made a response."""

    response_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Delta:
    """Some more text. `refusal` when the model is refusing; `sequence` is the number of its event, to resume after."""

    text: str
    sequence: int = 0
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The provider's final event. `incomplete_reason` is `max_tokens` or `content_filter` when the answer was cut."""

    usage: Usage | None
    model: str | None = None
    incomplete_reason: str | None = None


ProviderEvent = Started | Delta | Ended


@dataclass(frozen=True, slots=True)
class Fetched:
    """A background response as it is now. `text` is all of it once `ended` is set; until then it may be less than was streamed.

    `failure` is what the response itself failed of.
    """

    text: str
    ended: Ended | None
    refusal: bool = False
    failure: AttemptFailed | None = None


class Provider(Protocol):
    """Who answers. Everything raised is an `AttemptFailed`."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """Ask, and read the answer as it comes. Leaving the context closes the stream, which stops a plain response, not one in background.

        The last event is `Ended`; if it was not seen, iteration raises `StreamCut`.
        """

    def resume(self, response_id: str, after: int, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        """Go on reading a background response with the events whose sequence is greater than `after`; -1 for all.

        `request` is the one it was made by. Leaving the context leaves the response running.

        Raises:
            ReattachRefused: it cannot be streamed any more; it may still be there to `fetch`.
        """

    async def fetch(self, response_id: str) -> Fetched:
        """A background response as it is now.

        Raises:
            ResponseLost: it is no longer kept, or somebody else has cancelled it.
        """

    async def cancel(self, response_id: str) -> None:
        """Stop a background response. One that has ended or is gone is fine, and so is a repetition."""
