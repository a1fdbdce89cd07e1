"""An in-memory twin of every port but the provider, for tests and for trying things out.

Each behaves as its real adapter does, conditions and refusals included; the contract tests run on both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chalicelib.adapters.memory_dependencies import MemoryDependencies
from chalicelib.adapters.memory_jobs import MemoryJobs
from chalicelib.adapters.memory_ledger import MemoryBatches, MemoryBatchRows, MemoryLedger
from chalicelib.adapters.memory_live import (
    MemoryAccounts,
    MemoryBulks,
    MemoryCache,
    MemoryCircuits,
    MemoryConnections,
    MemoryLeases,
    MemoryMeters,
    MemorySlots,
    MemoryTickets,
)
from chalicelib.adapters.memory_outside import MemoryCorrespondence, MemoryDeliveries, MemoryMail, MemoryPoster
from chalicelib.adapters.memory_pages import MemoryBodies, MemoryChunks, MemoryPages, MemoryResults, MemoryWatchers
from chalicelib.adapters.memory_speeds import MemorySpeeds
from chalicelib.adapters.memory_time import ManualClock, inline
from chalicelib.adapters.memory_uploads import MemoryUploads
from chalicelib.adapters.memory_wires import MemoryPrices, MemoryQueues, MemorySockets
from chalicelib.adapters.memory_work import MemoryFiles, MemoryTurnstiles

__all__ = ["ManualClock", "Memory", "inline"]


@dataclass
class Memory:
    """Everything outside the process at once. A test takes what it needs: `memory.jobs`, `memory.queues`, `memory.clock` ..."""

    clock: ManualClock = field(default_factory=ManualClock)
    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    job_specs: MemoryBodies = field(default_factory=MemoryBodies)
    chunks: MemoryChunks = field(default_factory=MemoryChunks)
    results: MemoryResults = field(default_factory=MemoryResults)
    dependencies: MemoryDependencies = field(default_factory=MemoryDependencies)
    subscriptions: MemoryWatchers = field(default_factory=MemoryWatchers)
    connections: MemoryConnections = field(default_factory=MemoryConnections)
    tickets: MemoryTickets = field(default_factory=MemoryTickets)
    leases: MemoryLeases = field(default_factory=MemoryLeases)
    circuit_breakers: MemoryCircuits = field(default_factory=MemoryCircuits)
    cache: MemoryCache = field(default_factory=MemoryCache)
    throughput: MemorySpeeds = field(default_factory=MemorySpeeds)
    bulk_operations: MemoryBulks = field(default_factory=MemoryBulks)
    counters: MemoryLedger = field(default_factory=MemoryLedger)
    batches: MemoryBatches = field(default_factory=MemoryBatches)
    batch_rows: MemoryBatchRows = field(default_factory=MemoryBatchRows)
    semaphores: MemorySlots = field(default_factory=MemorySlots)
    type_limiters: MemoryTurnstiles = field(default_factory=MemoryTurnstiles)
    job_files: MemoryFiles = field(default_factory=MemoryFiles)
    request_counters: MemoryMeters = field(default_factory=MemoryMeters)
    api_keys: MemoryAccounts = field(default_factory=MemoryAccounts)
    sockets: MemorySockets = field(default_factory=MemorySockets)
    prices: MemoryPrices = field(default_factory=MemoryPrices)
    uploads: MemoryUploads = field(default_factory=MemoryUploads)
    deliveries: MemoryDeliveries = field(default_factory=MemoryDeliveries)
    notification_settings: MemoryCorrespondence = field(default_factory=MemoryCorrespondence)
    webhook_client: MemoryPoster = field(default_factory=MemoryPoster)
    email: MemoryMail = field(default_factory=MemoryMail)
    queues: MemoryQueues = field(init=False)
    job_data: MemoryPages = field(init=False)

    def __post_init__(self) -> None:
        self.queues = MemoryQueues(self.clock)
        self.job_data = MemoryPages(self.job_specs, self.chunks, self.results, self.subscriptions, self.dependencies, self.job_files)
