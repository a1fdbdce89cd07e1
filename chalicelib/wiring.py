"""Which adapter fills which port. Nothing is built before it is used, and then once for the life of the environment."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from chalicelib import job_types
from chalicelib.domain.addresses import networks
from chalicelib.domain.batch import Batch
from chalicelib.domain.batch_counts import Counts
from chalicelib.domain.ids import batch_id
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.job_type import JobType, Limits
from chalicelib.observability import record
from chalicelib.ports import (
    Accounts,
    Batches,
    BatchRows,
    Bodies,
    Bulks,
    Cache,
    Chunks,
    Circuits,
    Clock,
    Connections,
    Correspondence,
    Deliveries,
    Dependencies,
    Files,
    Jobs,
    Leases,
    Ledger,
    Mail,
    Meters,
    Pages,
    Poster,
    Prices,
    Provider,
    Queues,
    Results,
    Slots,
    Sockets,
    Speeds,
    Tickets,
    Together,
    Turnstiles,
    Uploads,
    Watchers,
)
from chalicelib.settings import Settings, settings
from chalicelib.usecases.authenticate import KeyRing
from chalicelib.usecases.broom import Broom
from chalicelib.usecases.bulk import Desk
from chalicelib.usecases.clerk import Clerk
from chalicelib.usecases.correspond import new_signing_secret
from chalicelib.usecases.edit_job import Editor
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.hold import Holding
from chalicelib.usecases.known_speeds import KnownSpeeds
from chalicelib.usecases.let_go import Doorkeeper
from chalicelib.usecases.post_office import PostOffice
from chalicelib.usecases.read_answer import stop_response
from chalicelib.usecases.submit_job import Intake
from chalicelib.usecases.system_health import Stethoscope
from chalicelib.usecases.tell_batch import tell_batch
from chalicelib.usecases.tools import Tools
from chalicelib.usecases.watch_job import Gallery

if TYPE_CHECKING:
    from chalicelib.adapters.dynamo_stores import DynamoStores
    from chalicelib.adapters.worker_loop import WorkerLoop


class Adapters:
    """Every port, filled with what reaches the real thing. Tests hand in another object with the same names."""

    def __init__(self, config: Settings) -> None:
        self.settings = config

    @cached_property
    def _stores(self) -> DynamoStores:
        from chalicelib.adapters.dynamo_stores import DynamoStores

        return DynamoStores(self.settings.stage)

    @cached_property
    def clock(self) -> Clock:
        from chalicelib.adapters.clock import SystemClock

        return SystemClock()

    @property
    def jobs(self) -> Jobs:
        return self._stores.jobs

    @property
    def job_specs(self) -> Bodies:
        return self._stores.job_specs

    @property
    def chunks(self) -> Chunks:
        return self._stores.chunks

    @property
    def results(self) -> Results:
        return self._stores.results

    @property
    def job_data(self) -> Pages:
        return self._stores.job_data

    @property
    def dependencies(self) -> Dependencies:
        return self._stores.dependencies

    @property
    def uploads(self) -> Uploads:
        return self._stores.uploads

    @property
    def bulk_operations(self) -> Bulks:
        return self._stores.bulk_operations

    @property
    def counters(self) -> Ledger:
        return self._stores.counters

    @property
    def batches(self) -> Batches:
        return self._stores.batches

    @property
    def batch_rows(self) -> BatchRows:
        return self._stores.batch_rows

    @property
    def subscriptions(self) -> Watchers:
        return self._stores.subscriptions

    @property
    def connections(self) -> Connections:
        return self._stores.connections

    @property
    def tickets(self) -> Tickets:
        return self._stores.tickets

    @property
    def leases(self) -> Leases:
        return self._stores.leases

    @property
    def circuit_breakers(self) -> Circuits:
        return self._stores.circuit_breakers

    @property
    def cache(self) -> Cache:
        return self._stores.cache

    @property
    def throughput(self) -> Speeds:
        return self._stores.throughput

    @property
    def semaphores(self) -> Slots:
        return self._stores.semaphores

    @property
    def type_limiters(self) -> Turnstiles:
        return self._stores.type_limiters

    @property
    def job_files(self) -> Files:
        return self._stores.job_files

    @property
    def request_counters(self) -> Meters:
        return self._stores.request_counters

    @property
    def deliveries(self) -> Deliveries:
        return self._stores.deliveries

    @property
    def api_keys(self) -> Accounts:
        return self._stores.api_keys

    @cached_property
    def queues(self) -> Queues:
        from chalicelib.adapters.queues import SqsQueues

        return SqsQueues(self.settings.stage, self.clock)

    @cached_property
    def sockets(self) -> Sockets:
        from chalicelib.adapters.sockets import ApiGatewaySockets

        return ApiGatewaySockets()

    @cached_property
    def notification_settings(self) -> Correspondence:
        from chalicelib.adapters.correspondence import SecretsManagerCorrespondence

        return SecretsManagerCorrespondence(self.settings.stage, self.clock)

    @cached_property
    def webhook_client(self) -> Poster:
        from chalicelib.adapters.guarded_post import GuardedPost

        return GuardedPost(networks(self.settings.webhook_networks))

    @staticmethod
    def sign(secrets: Sequence[str], message_id: str, now: Ms, payload: str) -> dict[str, str]:
        """The headers that carry a webhook's signatures."""
        from chalicelib.adapters.signing import signed_headers

        return signed_headers(secrets, message_id, now, payload)

    @cached_property
    def email(self) -> Mail:
        from chalicelib.adapters.mail import SesMail

        return SesMail(self.settings.mail_from)

    @cached_property
    def prices(self) -> Prices:
        from chalicelib.adapters.prices import GenaiPrices

        return GenaiPrices()

    @cached_property
    def provider(self) -> Provider:
        from chalicelib.adapters.openai_responses import OpenAIResponses
        from chalicelib.adapters.secrets import SecretsManagerCredentials

        credentials = SecretsManagerCredentials(self.settings.stage, self.clock)
        return OpenAIResponses(
            credentials, forget=credentials.forget, stall_seconds=self.settings.stall_seconds, offload=worker_loop().offload
        )

    @staticmethod
    def changes(records: list[dict[str, Any]]) -> Iterator[tuple[str, Job | None, Job | None]]:
        """The heads before and after each change of the jobs table's stream."""
        from chalicelib.adapters.change_stream import changes

        return changes(records)

    @cached_property
    def api_key_cache(self) -> KeyRing:
        return KeyRing(self.api_keys, self.clock)

    @cached_property
    def endpoints(self) -> dict[str, str]:
        """The addresses of the stage; they change only with a deployment, which makes new environments."""
        return self.api_keys.endpoints()

    @property
    def parallel_map(self) -> Together:
        from chalicelib.adapters.threads import together

        return together

    @staticmethod
    def new_id() -> str:
        """A ULID: sorts by time, cannot be guessed."""
        from ulid import ULID

        return str(ULID())

    @staticmethod
    def new_batch_id() -> str:
        """A batch's. Of random bits of its own: two ULIDs of one millisecond are neighbours, and the ids of a batch's rows are its."""
        from secrets import token_bytes
        from time import time_ns

        from ulid import ULID

        return batch_id(str(ULID.from_bytes((time_ns() // 1_000_000).to_bytes(6, "big") + token_bytes(10))))


_made: dict[str, Any] = {}


def adapters() -> Adapters:
    """The adapters of this environment."""
    if "adapters" not in _made:
        _made["adapters"] = Adapters(settings())
    return cast(Adapters, _made["adapters"])


def use(others: Any, loop: Any = None) -> None:
    """Fill the ports with something else: the in-memory twins, in tests. None: the real ones, built anew when they are needed."""
    _made.clear()
    _made.update({name: made for name, made in (("adapters", others), ("loop", loop)) if made is not None})


def worker_loop() -> WorkerLoop:
    """The loop of this environment, kept between invocations."""
    if "loop" not in _made:
        from chalicelib.adapters.worker_loop import WorkerLoop

        _made["loop"] = WorkerLoop()
    return cast("WorkerLoop", _made["loop"])


def job_type(name: str) -> JobType:
    """The type of that name, with the limits that this stage has for it.

    Raises:
        JobTypeNotFound: there is none.
    """
    return _as_limited(job_types.get(name))


def all_types() -> tuple[JobType, ...]:
    """Every type, likewise."""
    return tuple(_as_limited(kind) for kind in job_types.all_types())


def _as_limited(kind: JobType) -> JobType:
    said = dict(limit.split("=") for limit in settings().type_limits).get(kind.name)
    if said is None:
        return kind
    concurrency, per_minute = (None if number == "-" else int(number) for number in said.split("/"))
    return replace(kind, limits=Limits(concurrency=concurrency, per_minute=per_minute))


def tools() -> Tools:
    """What work that is no OpenAI call may reach for."""
    have = adapters()
    return Tools(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        job_specs=have.job_specs,
        results=have.results,
        job_data=have.job_data,
        queues=have.queues,
        subscriptions=have.subscriptions,
        job_files=have.job_files,
        uploads=have.uploads,
        cache=have.cache,
        batch_context=clerk,
        notification_context=post_office,
        new_id=have.new_id,
        job_type=job_type,
    )


def engine() -> Engine:
    """What a worker reaches for."""
    if "engine" not in _made:
        have = adapters()
        _made["engine"] = Engine(
            clock=have.clock,
            offload=worker_loop().offload,
            offload_sends=worker_loop().offload_sends,
            log=record,
            jobs=have.jobs,
            job_specs=have.job_specs,
            chunks=have.chunks,
            results=have.results,
            subscriptions=have.subscriptions,
            connections=have.connections,
            leases=have.leases,
            circuit_breakers=have.circuit_breakers,
            cache=have.cache,
            type_limiters=have.type_limiters,
            queues=have.queues,
            sockets=have.sockets,
            provider=have.provider,
            prices=have.prices,
            task_context=tools(),
            job_type=job_type,
            throughput_of=known_speeds().get,
            may_stream=have.api_key_cache.may_read_job,
            new_id=have.new_id,
            random=random.random,
            frames_per_second=settings().frames_per_second,
        )
    return cast(Engine, _made["engine"])


def known_speeds() -> KnownSpeeds:
    """The measured speeds, as this environment knows them."""
    if "speeds" not in _made:
        _made["speeds"] = KnownSpeeds(adapters().throughput, adapters().clock, record)
    return cast(KnownSpeeds, _made["speeds"])


def broom() -> Broom:
    """What the sweep needs."""
    have = adapters()
    return Broom(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        chunks=have.chunks,
        results=have.results,
        leases=have.leases,
        queues=have.queues,
        job_specs=have.job_specs,
        dependencies=have.dependencies,
        prices=have.prices,
        subscriptions=have.subscriptions,
        connections=have.connections,
        sockets=have.sockets,
        job_type=job_type,
        cancel_response=_abandon,
    )


def _abandon(response_id: str) -> None:
    """Stop a background response, from code that is not asynchronous."""
    worker_loop().run(stop_response(adapters().provider, record, response_id))


def stethoscope() -> Stethoscope:
    """What looking at the system needs."""
    have = adapters()
    return Stethoscope(clock=have.clock, log=record, circuit_breakers=have.circuit_breakers, queues=have.queues, leases=have.leases)


def editor() -> Editor:
    """What changing a job needs."""
    have = adapters()
    return Editor(clock=have.clock, log=record, jobs=have.jobs, job_specs=have.job_specs, queues=have.queues)


def desk() -> Desk:
    """What bulk actions need."""
    have = adapters()
    return Desk(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        job_specs=have.job_specs,
        job_data=have.job_data,
        queues=have.queues,
        subscriptions=have.subscriptions,
        bulk_operations=have.bulk_operations,
        new_id=have.new_id,
        row_count=rows_of,
    )


def rows_of(tenant: str, batch_id: str) -> int | None:
    """How many rows a batch has, None if there is none."""
    found = adapters().batches.get(tenant, batch_id)
    return found.total if found is not None else None


def clerk() -> Clerk:
    """What batches need."""
    have = adapters()
    return Clerk(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        job_specs=have.job_specs,
        dependencies=have.dependencies,
        queues=have.queues,
        subscriptions=have.subscriptions,
        prices=have.prices,
        job_type=job_type,
        batches=have.batches,
        batch_rows=have.batch_rows,
        counters=have.counters,
        bulk=desk(),
        new_id=have.new_id,
        new_batch_id=have.new_batch_id,
        parallel_map=have.parallel_map,
        queue_limit=settings().lane_limit,
        throughput_of=known_speeds().get,
        notify_completed=tell,
        streaming=gallery(),
    )


def tell(batch: Batch, counts: Counts) -> None:
    """Send word of the end of a batch."""
    tell_batch(post_office(), adapters().endpoints.get("api_url"), batch, counts)


def intake() -> Intake:
    """What accepting a job needs."""
    have = adapters()
    return Intake(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        job_specs=have.job_specs,
        dependencies=have.dependencies,
        queues=have.queues,
        new_id=have.new_id,
        queue_limit=settings().lane_limit,
    )


def doorkeeper() -> Doorkeeper:
    """What letting children go needs."""
    have = adapters()
    return Doorkeeper(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        dependencies=have.dependencies,
        queues=have.queues,
        parallel_map=have.parallel_map,
    )


def post_office() -> PostOffice:
    """What writing to somebody outside needs."""
    have = adapters()
    return PostOffice(
        clock=have.clock,
        log=record,
        deliveries=have.deliveries,
        notification_settings=have.notification_settings,
        queues=have.queues,
        webhook_client=have.webhook_client,
        email=have.email,
        sign=have.sign,
        new_secret=new_signing_secret,
        random=random.random,
        allowed_networks=networks(settings().webhook_networks),
    )


def gallery() -> Gallery:
    """What watching needs."""
    have = adapters()
    return Gallery(
        clock=have.clock,
        jobs=have.jobs,
        chunks=have.chunks,
        results=have.results,
        subscriptions=have.subscriptions,
        connections=have.connections,
        sockets=have.sockets,
        new_id=have.new_id,
        caller_by_key_hash=have.api_key_cache.caller,
    )


def holding() -> Holding:
    """What holding a request needs."""
    have = adapters()
    return Holding(clock=have.clock, log=record, semaphores=have.semaphores, subscriptions=have.subscriptions, max_long_polls=settings().held_requests)
