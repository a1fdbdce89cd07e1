"""Which adapter fills which port. Nothing is built before it is used, and then once for the life of the environment."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from chalicelib import job_types
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.ids import batch_id
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType, Limits
from chalicelib.domain.notifications.network_policy import networks
from chalicelib.domain.units import Ms
from chalicelib.observability import record
from chalicelib.ports import (
    ApiKeys,
    Batches,
    BatchRows,
    BulkOperations,
    Chunks,
    CircuitBreakers,
    Clock,
    Connections,
    Counters,
    Deliveries,
    Dependencies,
    EmailSender,
    JobData,
    JobFiles,
    Jobs,
    JobSpecs,
    Leases,
    NotificationSettings,
    ParallelMap,
    Prices,
    Provider,
    Queues,
    RequestCounters,
    ResponseCache,
    Results,
    Semaphores,
    Sockets,
    Subscriptions,
    ThroughputStats,
    Tickets,
    TypeLimiters,
    Uploads,
    WebhookClient,
)
from chalicelib.services.auth.authenticate import ApiKeyCache
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.batches.notify_completion import notify_batch_completed
from chalicelib.services.dependencies.release_dependents import DependencyContext
from chalicelib.services.jobs.bulk_operations import BulkContext
from chalicelib.services.jobs.edit_job import EditContext
from chalicelib.services.jobs.submit_job import SubmitContext
from chalicelib.services.maintenance.context import SweepContext
from chalicelib.services.metrics.throughput_cache import ThroughputCache
from chalicelib.services.notifications.outbox import NotificationContext
from chalicelib.services.notifications.settings import new_signing_secret
from chalicelib.services.operations.health_check import HealthContext
from chalicelib.services.streaming.long_polling import LongPollContext
from chalicelib.services.streaming.subscriptions import StreamingContext
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.stream_response import cancel_response
from chalicelib.services.worker.task_context import TaskContext
from chalicelib.settings import Settings, settings

if TYPE_CHECKING:
    from chalicelib.adapters.runtime.worker_loop import WorkerLoop
    from chalicelib.adapters.stores import DynamoStores


class Container:
    """Every port, filled with what reaches the real thing. Tests hand in another object with the same names."""

    def __init__(self, config: Settings) -> None:
        self.settings = config

    @cached_property
    def _stores(self) -> DynamoStores:
        from chalicelib.adapters.stores import DynamoStores

        return DynamoStores(self.settings.stage)

    @cached_property
    def clock(self) -> Clock:
        from chalicelib.adapters.runtime.clock import SystemClock

        return SystemClock()

    @property
    def jobs(self) -> Jobs:
        return self._stores.jobs

    @property
    def job_specs(self) -> JobSpecs:
        return self._stores.job_specs

    @property
    def chunks(self) -> Chunks:
        return self._stores.chunks

    @property
    def results(self) -> Results:
        return self._stores.results

    @property
    def job_data(self) -> JobData:
        return self._stores.job_data

    @property
    def dependencies(self) -> Dependencies:
        return self._stores.dependencies

    @property
    def uploads(self) -> Uploads:
        return self._stores.uploads

    @property
    def bulk_operations(self) -> BulkOperations:
        return self._stores.bulk_operations

    @property
    def counters(self) -> Counters:
        return self._stores.counters

    @property
    def batches(self) -> Batches:
        return self._stores.batches

    @property
    def batch_rows(self) -> BatchRows:
        return self._stores.batch_rows

    @property
    def subscriptions(self) -> Subscriptions:
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
    def circuit_breakers(self) -> CircuitBreakers:
        return self._stores.circuit_breakers

    @property
    def cache(self) -> ResponseCache:
        return self._stores.cache

    @property
    def throughput(self) -> ThroughputStats:
        return self._stores.throughput

    @property
    def semaphores(self) -> Semaphores:
        return self._stores.semaphores

    @property
    def type_limiters(self) -> TypeLimiters:
        return self._stores.type_limiters

    @property
    def job_files(self) -> JobFiles:
        return self._stores.job_files

    @property
    def request_counters(self) -> RequestCounters:
        return self._stores.request_counters

    @property
    def deliveries(self) -> Deliveries:
        return self._stores.deliveries

    @property
    def api_keys(self) -> ApiKeys:
        return self._stores.api_keys

    @cached_property
    def queues(self) -> Queues:
        from chalicelib.adapters.aws.sqs import SqsQueues

        return SqsQueues(self.settings.stage, self.clock)

    @cached_property
    def sockets(self) -> Sockets:
        from chalicelib.adapters.aws.websocket_api import ApiGatewaySockets

        return ApiGatewaySockets()

    @cached_property
    def notification_settings(self) -> NotificationSettings:
        from chalicelib.adapters.aws.notification_settings import SecretsManagerNotificationSettings

        return SecretsManagerNotificationSettings(self.settings.stage, self.clock)

    @cached_property
    def webhook_client(self) -> WebhookClient:
        from chalicelib.adapters.webhooks.http_client import GuardedHttpClient

        return GuardedHttpClient(networks(self.settings.webhook_networks))

    @staticmethod
    def sign(secrets: Sequence[str], message_id: str, now: Ms, payload: str) -> dict[str, str]:
        """The headers that carry a webhook's signatures."""
        from chalicelib.adapters.webhooks.signing import signed_headers

        return signed_headers(secrets, message_id, now, payload)

    @cached_property
    def email(self) -> EmailSender:
        from chalicelib.adapters.aws.ses import SesEmailSender

        return SesEmailSender(self.settings.mail_from)

    @cached_property
    def prices(self) -> Prices:
        from chalicelib.adapters.openai.prices import GenaiPrices

        return GenaiPrices()

    @cached_property
    def provider(self) -> Provider:
        from chalicelib.adapters.aws.openai_credentials import SecretsManagerCredentials
        from chalicelib.adapters.openai.provider import OpenAIResponses

        credentials = SecretsManagerCredentials(self.settings.stage, self.clock)
        return OpenAIResponses(
            credentials, forget=credentials.forget, idle_timeout=self.settings.provider_idle_timeout, offload=worker_loop().offload
        )

    @staticmethod
    def changes(records: list[dict[str, Any]]) -> Iterator[tuple[str, Job | None, Job | None]]:
        """The heads before and after each change of the jobs table's stream."""
        from chalicelib.adapters.dynamodb.change_stream import changes

        return changes(records)

    @cached_property
    def api_key_cache(self) -> ApiKeyCache:
        return ApiKeyCache(self.api_keys, self.clock)

    @cached_property
    def endpoints(self) -> dict[str, str]:
        """The addresses of the stage; they change only with a deployment, which makes new environments."""
        return self.api_keys.endpoints()

    @property
    def parallel_map(self) -> ParallelMap:
        from chalicelib.adapters.runtime.threads import parallel_map

        return parallel_map

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


def container() -> Container:
    """The adapters of this environment."""
    if "adapters" not in _made:
        _made["adapters"] = Container(settings())
    return cast(Container, _made["adapters"])


def override(others: Any, loop: Any = None) -> None:
    """Fill the ports with something else: the in-memory twins, in tests. None: the real ones, built anew when they are needed."""
    _made.clear()
    _made.update({name: made for name, made in (("adapters", others), ("loop", loop)) if made is not None})


def worker_loop() -> WorkerLoop:
    """The loop of this environment, kept between invocations."""
    if "loop" not in _made:
        from chalicelib.adapters.runtime.worker_loop import WorkerLoop

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


def task_context() -> TaskContext:
    """What work that is no OpenAI call may reach for."""
    have = container()
    return TaskContext(
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
        batch_context=batch_context,
        notification_context=notification_context,
        new_id=have.new_id,
        job_type=job_type,
    )


def worker_context() -> WorkerContext:
    """What a worker reaches for."""
    if "engine" not in _made:
        have = container()
        _made["engine"] = WorkerContext(
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
            task_context=task_context(),
            job_type=job_type,
            throughput_of=throughput_cache().get,
            may_stream=have.api_key_cache.may_read_job,
            new_id=have.new_id,
            random=random.random,
            frames_per_second=settings().frames_per_second,
        )
    return cast(WorkerContext, _made["engine"])


def throughput_cache() -> ThroughputCache:
    """The measured speeds, as this environment knows them."""
    if "speeds" not in _made:
        _made["speeds"] = ThroughputCache(container().throughput, container().clock, record)
    return cast(ThroughputCache, _made["speeds"])


def sweep_context() -> SweepContext:
    """What the sweep needs."""
    have = container()
    return SweepContext(
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
    worker_loop().run(cancel_response(container().provider, record, response_id))


def health_context() -> HealthContext:
    """What looking at the system needs."""
    have = container()
    return HealthContext(clock=have.clock, log=record, circuit_breakers=have.circuit_breakers, queues=have.queues, leases=have.leases)


def edit_context() -> EditContext:
    """What changing a job needs."""
    have = container()
    return EditContext(clock=have.clock, log=record, jobs=have.jobs, job_specs=have.job_specs, queues=have.queues)


def bulk_context() -> BulkContext:
    """What bulk actions need."""
    have = container()
    return BulkContext(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        job_specs=have.job_specs,
        job_data=have.job_data,
        queues=have.queues,
        subscriptions=have.subscriptions,
        bulk_operations=have.bulk_operations,
        new_id=have.new_id,
        row_count=row_count,
    )


def row_count(tenant: str, batch_id: str) -> int | None:
    """How many rows a batch has, None if there is none."""
    found = container().batches.get(tenant, batch_id)
    return found.total if found is not None else None


def batch_context() -> BatchContext:
    """What batches need."""
    have = container()
    return BatchContext(
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
        bulk=bulk_context(),
        new_id=have.new_id,
        new_batch_id=have.new_batch_id,
        parallel_map=have.parallel_map,
        queue_limit=settings().max_lane_depth,
        throughput_of=throughput_cache().get,
        notify_completed=notify_completed,
        streaming=streaming_context(),
    )


def notify_completed(batch: Batch, counts: BatchCounts) -> None:
    """Send word of the end of a batch."""
    notify_batch_completed(notification_context(), container().endpoints.get("api_url"), batch, counts)


def submit_context() -> SubmitContext:
    """What accepting a job needs."""
    have = container()
    return SubmitContext(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        job_specs=have.job_specs,
        dependencies=have.dependencies,
        queues=have.queues,
        new_id=have.new_id,
        queue_limit=settings().max_lane_depth,
    )


def dependency_context() -> DependencyContext:
    """What letting children go needs."""
    have = container()
    return DependencyContext(
        clock=have.clock,
        log=record,
        jobs=have.jobs,
        dependencies=have.dependencies,
        queues=have.queues,
        parallel_map=have.parallel_map,
    )


def notification_context() -> NotificationContext:
    """What writing to somebody outside needs."""
    have = container()
    return NotificationContext(
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


def streaming_context() -> StreamingContext:
    """What watching needs."""
    have = container()
    return StreamingContext(
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


def long_poll_context() -> LongPollContext:
    """What holding a request needs."""
    have = container()
    return LongPollContext(
        clock=have.clock, log=record, semaphores=have.semaphores, subscriptions=have.subscriptions, max_long_polls=settings().max_long_polls
    )
