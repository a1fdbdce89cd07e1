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
    bodies: MemoryBodies = field(default_factory=MemoryBodies)
    chunks: MemoryChunks = field(default_factory=MemoryChunks)
    results: MemoryResults = field(default_factory=MemoryResults)
    dependencies: MemoryDependencies = field(default_factory=MemoryDependencies)
    watchers: MemoryWatchers = field(default_factory=MemoryWatchers)
    connections: MemoryConnections = field(default_factory=MemoryConnections)
    tickets: MemoryTickets = field(default_factory=MemoryTickets)
    leases: MemoryLeases = field(default_factory=MemoryLeases)
    circuits: MemoryCircuits = field(default_factory=MemoryCircuits)
    cache: MemoryCache = field(default_factory=MemoryCache)
    speeds: MemorySpeeds = field(default_factory=MemorySpeeds)
    bulks: MemoryBulks = field(default_factory=MemoryBulks)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    batches: MemoryBatches = field(default_factory=MemoryBatches)
    batch_rows: MemoryBatchRows = field(default_factory=MemoryBatchRows)
    slots: MemorySlots = field(default_factory=MemorySlots)
    turnstiles: MemoryTurnstiles = field(default_factory=MemoryTurnstiles)
    files: MemoryFiles = field(default_factory=MemoryFiles)
    meters: MemoryMeters = field(default_factory=MemoryMeters)
    accounts: MemoryAccounts = field(default_factory=MemoryAccounts)
    sockets: MemorySockets = field(default_factory=MemorySockets)
    prices: MemoryPrices = field(default_factory=MemoryPrices)
    uploads: MemoryUploads = field(default_factory=MemoryUploads)
    deliveries: MemoryDeliveries = field(default_factory=MemoryDeliveries)
    correspondence: MemoryCorrespondence = field(default_factory=MemoryCorrespondence)
    poster: MemoryPoster = field(default_factory=MemoryPoster)
    mail: MemoryMail = field(default_factory=MemoryMail)
    queues: MemoryQueues = field(init=False)
    pages: MemoryPages = field(init=False)

    def __post_init__(self) -> None:
        self.queues = MemoryQueues(self.clock)
        self.pages = MemoryPages(self.bodies, self.chunks, self.results, self.watchers, self.dependencies, self.files)
