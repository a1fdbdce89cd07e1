"""An in-memory twin of every port but the provider, for tests and for trying things out.

Each behaves like its real adapter, conditions and refusals included. The contract tests run on
both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chalicelib.adapters.memory.auth import MemoryApiKeys
from chalicelib.adapters.memory.batches import MemoryBatches, MemoryBatchRows
from chalicelib.adapters.memory.bulk import MemoryBulkOperations
from chalicelib.adapters.memory.cache import MemoryResponseCache
from chalicelib.adapters.memory.clock import ManualClock, run_inline
from chalicelib.adapters.memory.counters import MemoryCounters
from chalicelib.adapters.memory.dependencies import MemoryDependencies
from chalicelib.adapters.memory.files import MemoryJobFiles, MemoryUploads
from chalicelib.adapters.memory.job_data import MemoryChunks, MemoryJobData, MemoryJobSpecs, MemoryResults
from chalicelib.adapters.memory.jobs import MemoryJobs
from chalicelib.adapters.memory.leases import MemoryLeases
from chalicelib.adapters.memory.limits import (
    MemoryCircuitBreakers,
    MemoryPauses,
    MemoryRequestCounters,
    MemorySemaphores,
    MemoryTenantLimits,
)
from chalicelib.adapters.memory.lines import MemoryLines
from chalicelib.adapters.memory.notifications import (
    MemoryDeliveries,
    MemoryEmailSender,
    MemoryNotificationSettings,
    MemorySecretVersions,
    MemoryWebhookClient,
)
from chalicelib.adapters.memory.provider import MemoryPrices
from chalicelib.adapters.memory.queues import MemoryQueues
from chalicelib.adapters.memory.rates import MemoryRates
from chalicelib.adapters.memory.streaming import MemoryConnections, MemorySockets, MemorySubscriptions, MemoryTickets
from chalicelib.adapters.memory.throughput import MemoryThroughputStats

__all__ = ["InMemoryAdapters", "ManualClock", "run_inline"]


@dataclass
class InMemoryAdapters:
    """All twins, by the names of the container.

    A test takes what it needs: `memory.jobs`, `memory.queues`, `memory.clock`.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    job_specs: MemoryJobSpecs = field(default_factory=MemoryJobSpecs)
    chunks: MemoryChunks = field(default_factory=MemoryChunks)
    results: MemoryResults = field(default_factory=MemoryResults)
    dependencies: MemoryDependencies = field(default_factory=MemoryDependencies)
    subscriptions: MemorySubscriptions = field(default_factory=MemorySubscriptions)
    tickets: MemoryTickets = field(default_factory=MemoryTickets)
    leases: MemoryLeases = field(default_factory=MemoryLeases)
    pauses: MemoryPauses = field(default_factory=MemoryPauses)
    cache: MemoryResponseCache = field(default_factory=MemoryResponseCache)
    throughput: MemoryThroughputStats = field(default_factory=MemoryThroughputStats)
    bulk_operations: MemoryBulkOperations = field(default_factory=MemoryBulkOperations)
    counters: MemoryCounters = field(default_factory=MemoryCounters)
    batches: MemoryBatches = field(default_factory=MemoryBatches)
    batch_rows: MemoryBatchRows = field(default_factory=MemoryBatchRows)
    semaphores: MemorySemaphores = field(default_factory=MemorySemaphores)
    tenant_limits: MemoryTenantLimits = field(default_factory=MemoryTenantLimits)
    job_files: MemoryJobFiles = field(default_factory=MemoryJobFiles)
    rates: MemoryRates = field(default_factory=MemoryRates)
    request_counters: MemoryRequestCounters = field(default_factory=MemoryRequestCounters)
    api_keys: MemoryApiKeys = field(default_factory=MemoryApiKeys)
    sockets: MemorySockets = field(default_factory=MemorySockets)
    prices: MemoryPrices = field(default_factory=MemoryPrices)
    uploads: MemoryUploads = field(default_factory=MemoryUploads)
    deliveries: MemoryDeliveries = field(default_factory=MemoryDeliveries)
    secret_versions: MemorySecretVersions = field(default_factory=MemorySecretVersions)
    notification_settings: MemoryNotificationSettings = field(default_factory=MemoryNotificationSettings)
    webhook_client: MemoryWebhookClient = field(default_factory=MemoryWebhookClient)
    email: MemoryEmailSender = field(default_factory=MemoryEmailSender)
    circuit_breakers: MemoryCircuitBreakers = field(init=False)
    connections: MemoryConnections = field(init=False)
    queues: MemoryQueues = field(init=False)
    lines: MemoryLines = field(init=False)
    job_data: MemoryJobData = field(init=False)

    def __post_init__(self) -> None:
        self.circuit_breakers = MemoryCircuitBreakers(self.pauses)
        self.connections = MemoryConnections(self.semaphores)
        self.queues = MemoryQueues(self.clock)
        self.jobs.shards_of = self.tenant_limits.shards_of
        self.lines = MemoryLines(self.jobs)
        self.job_data = MemoryJobData(self.job_specs, self.chunks, self.results, self.subscriptions, self.dependencies, self.job_files)
