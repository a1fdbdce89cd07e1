"""What the use cases need from outside. `adapters/` has a real one and an in-memory twin of each; one contract test runs on both.

Stores are synchronous: a call is one request to AWS (two where it says so). A worker runs them off its event loop, through `Offload`.
Every store raises `Unavailable` (`Throttled`, if that is why) when it could not be reached after a bounded number of tries, and then
whether the effect happened is unknown: callers rely on conditions, not on answers.
"""

from __future__ import annotations

from chalicelib.ports.accounts import Accounts
from chalicelib.ports.dependencies import Dependencies
from chalicelib.ports.environment import Clock, Offload, Together
from chalicelib.ports.jobs import Idempotency, JobQuery, Jobs, Remembered
from chalicelib.ports.ledger import Batches, BatchRows, Ledger, Marked
from chalicelib.ports.live import Bulks, Cache, Circuits, Connections, Lease, Leases, Meters, Slots, Tickets, Watchers
from chalicelib.ports.outside import Correspondence, Deliveries, Mail, Posted, Poster
from chalicelib.ports.pages import Bodies, Chunks, Pages, Results
from chalicelib.ports.provider import Delta, Ended, Fetched, ModelRequest, Price, Prices, Provider, ProviderEvent, Started
from chalicelib.ports.queues import DeadLetter, Queues, Received
from chalicelib.ports.sockets import Sockets
from chalicelib.ports.speeds import Speeds
from chalicelib.ports.uploads import Opened, Uploads
from chalicelib.ports.work import Files, Turnstiles, Upload

__all__ = [
    "Accounts",
    "BatchRows",
    "Batches",
    "Bodies",
    "Bulks",
    "Cache",
    "Chunks",
    "Circuits",
    "Clock",
    "Connections",
    "Correspondence",
    "DeadLetter",
    "Deliveries",
    "Delta",
    "Dependencies",
    "Ended",
    "Fetched",
    "Files",
    "Idempotency",
    "JobQuery",
    "Jobs",
    "Lease",
    "Leases",
    "Ledger",
    "Mail",
    "Marked",
    "Meters",
    "ModelRequest",
    "Offload",
    "Opened",
    "Pages",
    "Posted",
    "Poster",
    "Price",
    "Prices",
    "Provider",
    "ProviderEvent",
    "Queues",
    "Received",
    "Remembered",
    "Results",
    "Slots",
    "Sockets",
    "Speeds",
    "Started",
    "Tickets",
    "Together",
    "Turnstiles",
    "Upload",
    "Uploads",
    "Watchers",
]
