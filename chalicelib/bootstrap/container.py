"""The container: every port with its adapter, and the caches and settings that services need.

It satisfies the contexts that services declare (`SubmitContext`, `WorkerContext`, ...), so it is
passed to them as it is. Members are created on first use, once per execution environment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from random import random
from typing import TYPE_CHECKING, Any

from chalicelib import job_types
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.ids import batch_id
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType, Limits
from chalicelib.domain.limits.tenant_limits import TOTAL, TenantLimits
from chalicelib.domain.metrics.throughput import Throughput
from chalicelib.domain.notifications.network_policy import Network, networks
from chalicelib.domain.queues.causes import BUCKETS
from chalicelib.domain.units import Ms
from chalicelib.observability import record
from chalicelib.ports import (
    Clock,
    EmailSender,
    NotificationSettings,
    Offload,
    ParallelMap,
    Prices,
    Provider,
    Queues,
    Sockets,
    WebhookClient,
)
from chalicelib.services.auth.authenticate import ApiKeyCache
from chalicelib.services.limits.tenant_limits_cache import TenantLimitsCache
from chalicelib.services.log import Log
from chalicelib.services.metrics.throughput_cache import ThroughputCache
from chalicelib.services.notifications.settings import new_signing_secret
from chalicelib.services.scheduling.waits import LinesCache
from chalicelib.services.streaming.socket_meter import SocketMeter
from chalicelib.services.worker.context import LocalState
from chalicelib.services.worker.stream_response import cancel_response, delete_response
from chalicelib.settings import Settings

if TYPE_CHECKING:
    from chalicelib.adapters.runtime.worker_loop import WorkerLoop


class Container(DynamoStores):
    """Tests use a subclass whose ports are in-memory adapters."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.stage)
        self.settings = settings

    # ---- ports that are not stores

    @cached_property
    def clock(self) -> Clock:
        from chalicelib.adapters.runtime.clock import SystemClock

        return SystemClock()

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

        return SecretsManagerNotificationSettings(self.settings.stage, self.clock, self.secret_versions)

    @cached_property
    def webhook_client(self) -> WebhookClient:
        from chalicelib.adapters.webhooks.http_client import GuardedHttpClient

        return GuardedHttpClient(self.allowed_networks)

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
            credentials,
            forget=credentials.forget,
            idle_timeout=self.settings.provider_idle_timeout,
            offload=self.offload,
            omits=self.settings.omit_parameters,
        )

    # ---- the environment

    @property
    def log(self) -> Log:
        return record

    @cached_property
    def worker_loop(self) -> WorkerLoop:
        """The event loop of this environment, kept between invocations."""
        from chalicelib.adapters.runtime.worker_loop import WorkerLoop

        return WorkerLoop()

    @property
    def offload(self) -> Offload:
        return self.worker_loop.offload

    @property
    def offload_sends(self) -> Offload:
        return self.worker_loop.offload_sends

    @cached_property
    def parallel_map(self) -> ParallelMap:
        from chalicelib.adapters.runtime.threads import PooledMap

        return PooledMap()

    @cached_property
    def endpoints(self) -> dict[str, str]:
        """The URLs of the stage's APIs. Only a deployment changes them; it restarts the functions."""
        return self.api_keys.endpoints()

    @property
    def api_url(self) -> str | None:
        """The URL of the HTTP API, None before the first deployment has stored it."""
        return self.endpoints.get("api_url")

    @staticmethod
    def new_id() -> str:
        """A ULID: sorts by time and cannot be guessed."""
        from ulid import ULID

        return str(ULID())

    @staticmethod
    def new_batch_id() -> str:
        """A batch id with fresh random bits.

        `new_id` counts up within a millisecond, as row ids do from their batch's id, so rows of two
        batches could collide.
        """
        from secrets import token_bytes
        from time import time_ns

        from ulid import ULID

        return batch_id(str(ULID.from_bytes((time_ns() // 1_000_000).to_bytes(6, "big") + token_bytes(10))))

    @staticmethod
    def new_signing_secret() -> str:
        return new_signing_secret()

    @staticmethod
    def random() -> float:
        """A number in [0, 1)."""
        return random()

    @staticmethod
    def sign(secrets: Sequence[str], message_id: str, now: Ms, payload: str) -> dict[str, str]:
        """The signature headers of a webhook."""
        from chalicelib.adapters.webhooks.signing import signed_headers

        return signed_headers(secrets, message_id, now, payload)

    @staticmethod
    def changes(records: list[dict[str, Any]]) -> Iterator[tuple[str, Job | None, Job | None]]:
        """Job id and job record before and after each change of the jobs table's stream."""
        from chalicelib.adapters.dynamodb.change_stream import changes

        return changes(records)

    # ---- settings

    @property
    def frames_per_second(self) -> float:
        return self.settings.frames_per_second

    @property
    def isolates_prompt_cache(self) -> bool:
        return self.settings.prompt_cache == "tenant"

    @property
    def max_connections(self) -> int:
        return self.settings.max_connections

    @property
    def requests_per_minute(self) -> int:
        return self.settings.requests_per_minute

    @property
    def max_lane_depth(self) -> int:
        return self.settings.max_lane_depth

    @property
    def scheduler_shards(self) -> int:
        return self.settings.scheduler_shards

    @property
    def max_long_polls(self) -> int:
        return self.settings.max_long_polls

    @cached_property
    def allowed_networks(self) -> Sequence[Network]:
        return networks(self.settings.webhook_networks)

    # ---- built from the ports

    @cached_property
    def local_state(self) -> LocalState:
        return LocalState()

    @cached_property
    def socket_meter(self) -> SocketMeter:
        return SocketMeter()

    @cached_property
    def lines_cache(self) -> LinesCache:
        """Which tenants have lines, by bucket."""
        return LinesCache(BUCKETS)

    @cached_property
    def api_key_cache(self) -> ApiKeyCache:
        return ApiKeyCache(self.api_keys, self.clock)

    @cached_property
    def _throughput_cache(self) -> ThroughputCache:
        return ThroughputCache(self.throughput, self.clock, self.log)

    @cached_property
    def _tenant_limits_cache(self) -> TenantLimitsCache:
        return TenantLimitsCache(self.tenant_limits, self.default_limits, self.clock, self.log)

    @property
    def default_limits(self) -> TenantLimits:
        """The stage's limits of a tenant that has none of its own."""
        settings = self.settings
        queued = {TOTAL: settings.tenant_queued} if settings.tenant_queued is not None else {}
        return TenantLimits(tenant="", concurrency=settings.tenant_concurrency, user_concurrency=settings.user_concurrency, queued=queued)

    def limits_of(self, tenant: str) -> TenantLimits:
        """The limits that hold for a tenant, at most half a minute old."""
        return self._tenant_limits_cache.get(tenant)

    def shards_of(self, tenant: str) -> int:
        return self._tenant_limits_cache.shards_of(tenant)

    def caller_by_key_hash(self, key_hash: str) -> Caller | None:
        return self.api_key_cache.caller(key_hash)

    def readers_of(self, job: Job, key_hashes: Collection[str]) -> set[str]:
        """Those of the API keys, by their hashes, that may still read the job's content."""
        return self.api_key_cache.readers(key_hashes, job)

    def throughput_of(self, job_type: str, model: str) -> Throughput:
        """The measured throughput of jobs of this type and model."""
        return self._throughput_cache.get(job_type, model)

    def row_count(self, tenant: str, batch_id: str) -> int | None:
        """The number of rows of a batch, None if there is no such batch."""
        batch = self.batches.get(tenant, batch_id)
        return batch.total if batch is not None else None

    def cancel_response(self, response_id: str) -> None:
        """Stop a background response, from synchronous code."""
        self.worker_loop.run(cancel_response(self.provider, self.log, response_id))

    def delete_response(self, response_id: str) -> None:
        """Delete a background response, from synchronous code."""
        self.worker_loop.run(delete_response(self.provider, self.log, response_id))

    def job_type(self, name: str) -> JobType:
        """The job type of this name, with the stage's limits.

        Raises:
            JobTypeNotFound: there is no such job type.
        """
        return self._with_stage_limits(job_types.get(name))

    def all_job_types(self) -> tuple[JobType, ...]:
        return tuple(self._with_stage_limits(kind) for kind in job_types.all_types())

    def _with_stage_limits(self, kind: JobType) -> JobType:
        limits = dict(limit.split("=") for limit in self.settings.type_limits).get(kind.name)
        if limits is None:
            return kind
        concurrency, per_minute = (None if number == "-" else int(number) for number in limits.split("/"))
        return replace(kind, limits=Limits(concurrency=concurrency, per_minute=per_minute))
