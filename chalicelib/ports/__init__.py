"""What the services need from outside the process.

`adapters/` has a real implementation and an in-memory twin of each port; one contract test runs on
both.

Stores are synchronous. A call is one request to AWS unless its docstring says otherwise; a worker
makes it off its event loop, through `Offload`. Every store raises `Unavailable` (or its subclass
`Throttled`) when it could not be reached after a bounded number of tries. Whether the effect
happened is unknown then, so callers rely on conditions and not on responses.

Times are milliseconds since 1970 (`Ms`), except `ttl`, which DynamoDB wants in seconds since 1970.
"""

from __future__ import annotations

from chalicelib.ports.auth import ApiKeys
from chalicelib.ports.batches import Batches, BatchRows
from chalicelib.ports.bulk import BulkOperations
from chalicelib.ports.cache import ResponseCache
from chalicelib.ports.counters import Counters, MarkUpdate
from chalicelib.ports.dependencies import Dependencies
from chalicelib.ports.files import FileWriter, JobFiles, UploadedFile, Uploads
from chalicelib.ports.job_data import Chunks, JobData, JobSpecs, Results
from chalicelib.ports.jobs import IdempotencyRecord, IdempotentResult, JobQuery, Jobs
from chalicelib.ports.leases import Lease, Leases
from chalicelib.ports.limits import CircuitBreakers, Pauses, RequestCounters, Semaphores
from chalicelib.ports.lines import Line, Lines, Shard
from chalicelib.ports.metrics import ThroughputStats
from chalicelib.ports.notifications import (
    Deliveries,
    EmailSender,
    NotificationSettings,
    SecretVersions,
    WebhookClient,
    WebhookResponse,
)
from chalicelib.ports.provider import (
    FetchedResponse,
    ModelRequest,
    Price,
    Prices,
    Provider,
    ProviderEvent,
    ResponseEnded,
    ResponseStarted,
    TextDelta,
)
from chalicelib.ports.queues import DeadLetter, QueueMessage, Queues
from chalicelib.ports.rates import Rates
from chalicelib.ports.runtime import Clock, Offload, ParallelMap
from chalicelib.ports.streaming import Connections, Sockets, Subscriptions, Tickets
from chalicelib.ports.tenant_limits import TenantLimitsStore

__all__ = [
    "ApiKeys",
    "BatchRows",
    "Batches",
    "BulkOperations",
    "Chunks",
    "CircuitBreakers",
    "Clock",
    "Connections",
    "Counters",
    "DeadLetter",
    "Deliveries",
    "Dependencies",
    "EmailSender",
    "FetchedResponse",
    "FileWriter",
    "IdempotencyRecord",
    "IdempotentResult",
    "JobData",
    "JobFiles",
    "JobQuery",
    "JobSpecs",
    "Jobs",
    "Lease",
    "Leases",
    "Line",
    "Lines",
    "MarkUpdate",
    "ModelRequest",
    "NotificationSettings",
    "Offload",
    "ParallelMap",
    "Pauses",
    "Price",
    "Prices",
    "Provider",
    "ProviderEvent",
    "QueueMessage",
    "Queues",
    "Rates",
    "RequestCounters",
    "ResponseCache",
    "ResponseEnded",
    "ResponseStarted",
    "Results",
    "SecretVersions",
    "Semaphores",
    "Shard",
    "Sockets",
    "Subscriptions",
    "TenantLimitsStore",
    "TextDelta",
    "ThroughputStats",
    "Tickets",
    "UploadedFile",
    "Uploads",
    "WebhookClient",
    "WebhookResponse",
]
