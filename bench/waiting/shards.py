"""A thousand tenants wait for fifty models, and four loops of the scheduler serve them; one is dead for ten seconds.

Each loop visits its causes one after the other. Its requests take the time and cost that the
adapters' requests have; its processor time is `CPU_SECONDS` a request at the memory of its
function, and the processor is as fast as the one on which that was measured.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from math import ceil

from bench.prices import GB_SECOND, READ, SQS_REQUEST, WRITE
from bench.waiting.cases import MAX_OVER, MAX_WAIT, MIN_USED
from bench.waiting.engine import Engine
from bench.waiting.world import ROUND_SECONDS, ROWS_SECONDS, STORE_SECONDS, Case, Tenant, World
from chalicelib.domain.queues.causes import BUCKETS, CauseKind, cause_of, shard_of

TITLE = "1,000 tenants, 50 models, 4 shards, one of them dead for 10 s"
MODELS, TENANTS, STRANGERS, SHARDS = 50, 20, 2, 4  # tenants and strangers of each model
SECONDS, WARM_UP = 180.0, 70.0
DEATH = (100.0, 110.0)  # of the first shard
LIMIT = 500  # requests a minute of each model
HELD = 110  # jobs of each tenant
DAY = 86_400.0
MEMORY_GB = 1.0
CPU_SECONDS, VCPU_MB = 0.00051, 1_769
HEADS_SECONDS, MAX_TENANTS, POSITIONS_SECONDS, LEASE_SECONDS, DEPTH_SECONDS = 2.0, 32, 10.0, 2.0, 0.5
THREADS = 16  # requests of a loop at once
HEAD_UNITS, ROW_BYTES, READ_BYTES = 1.0, 120, 4_096  # thirty heads are 8 KB, read from an index

AIM = {
    "shards: % above a limit, at most": MAX_OVER,
    "shards: % of the limits unused": 100 - MIN_USED,
    "shards: s, p95 of a stranger": MAX_WAIT,
    "shards: % of its second that a loop is busy": 60.0,
}


@dataclass
class Shard:
    """One loop."""

    number: int
    engine: Engine
    worlds: list[World]
    used: Counter[str] = field(default_factory=Counter)  # requests by kind
    read_at: dict[int, float] = field(default_factory=dict)  # when the heads of a cause were read
    rounds: int = 0

    def begin(self) -> None:
        self._round()
        for every, kind in ((LEASE_SECONDS, "lease"), (DEPTH_SECONDS, "depth")):
            self._each(every, kind, 1)
        self._each(ROWS_SECONDS, "rows", BUCKETS // SHARDS)
        self._each(POSITIONS_SECONDS, "position", len(self.worlds) * (TENANTS + STRANGERS))

    @property
    def is_dead(self) -> bool:
        return self.number == 0 and DEATH[0] <= self.engine.now < DEATH[1]

    def _each(self, seconds: float, kind: str, requests: int) -> None:
        if not self.is_dead:
            self.used[kind] += requests
        self.engine.after(seconds, lambda: self._each(seconds, kind, requests))

    def _round(self) -> None:
        if self.is_dead:
            self.engine.after(ROUND_SECONDS, self._round)
            return
        self.rounds += 1
        self._visit(0)

    def _visit(self, index: int) -> None:
        """Visit a cause, and the next one when its requests are answered."""
        if index == len(self.worlds):
            self.engine.after(ROUND_SECONDS, self._round)
            return
        world, seconds = self.worlds[index], 0.0
        if self.engine.now - self.read_at.get(index, -HEADS_SECONDS) >= HEADS_SECONDS:
            heads = min(MAX_TENANTS, len(world.known_rows))
            self.read_at[index] = self.engine.now
            self.used["heads"] += heads
            seconds += ceil(heads / THREADS) * STORE_SECONDS + heads * CPU_SECONDS * VCPU_MB / (1_024 * MEMORY_GB)
        chosen = world.visit()
        if chosen:
            self.used["take"] += 1
            self.used["send"] += ceil(chosen / 10)
            seconds += 2 * STORE_SECONDS
        self.engine.after(seconds + 0.001, lambda: self._visit(index + 1))


def run() -> dict[str, float]:
    """Simulate them. Returns: what is measured, by name."""
    engine = Engine("shards")
    worlds = _worlds(engine)
    shards = [Shard(number, engine, [world for model, world in worlds.items() if _shard(model) == number]) for number in range(SHARDS)]
    for shard in shards:
        engine.after(0.1 * shard.number, shard.begin)
    engine.run(SECONDS)
    waits = sorted(
        world.started.get(name, SECONDS) - at
        for world in worlds.values()
        for name, at in world.submitted.items()
        if name.startswith("stranger") and at < SECONDS - 20.0
    )
    used = [world.provider.received(WARM_UP, SECONDS)[0] / (LIMIT * (SECONDS - WARM_UP) / 60) for world in worlds.values()]
    alive = [world for model, world in worlds.items() if _shard(model)]
    requests = sum((shard.used for shard in shards), Counter[str]())
    starts = sum(len(world.started) for world in worlds.values())
    return {
        "shards: % above a limit, at most": max(
            100 * (world.provider.most_in_a_minute(0, SECONDS)[0] / LIMIT - 1) for world in worlds.values()
        ),
        "shards: % of the limits unused": 100 * (1 - sum(used) / len(used)),
        "shards: s, p95 of a stranger": waits[int(0.95 * len(waits))],
        "shards: % of its second that a loop is busy": max(100 * _busy(shard) for shard in shards),
        "s, p50 of a stranger": waits[len(waits) // 2],
        "s, longest wait of a stranger": waits[-1],
        "% used by models of the three other shards, at least": 100
        * min(world.provider.received(WARM_UP, SECONDS)[0] / (LIMIT * (SECONDS - WARM_UP) / 60) for world in alive),
        "causes of a shard, at most": float(max(len(shard.worlds) for shard in shards)),
        "starts a second": starts / SECONDS,
        "rounds a second of a loop, at least": min(shard.rounds for shard in shards) / SECONDS,
        "$ a day, Lambda": SHARDS * MEMORY_GB * GB_SECOND.dollars * DAY,
        "$ a day, DynamoDB of the scheduler": _dynamodb(requests) * DAY / SECONDS,
        "$ a day, SQS of the scheduler": (requests["send"] + requests["depth"]) * SQS_REQUEST.dollars * DAY / SECONDS,
        "$ a day, DynamoDB of holding and claiming": sum(world.cost["WRU"] for world in worlds.values()) * WRITE.dollars * DAY / SECONDS,
    }


def _worlds(engine: Engine) -> dict[str, World]:
    """Return the worlds of the models, whose tenants have waited for a while."""
    worlds: dict[str, World] = {}
    names = (f"tenant{number}" for number in count())
    for number in range(MODELS):
        busy = tuple(Tenant(name=next(names)) for _ in range(TENANTS))
        strangers = tuple(Tenant(name=f"stranger{one}", every=10.0) for one in range(STRANGERS))
        case = Case(name=f"model{number}", requests=LIMIT, tenants=(*busy, *strangers), seconds=SECONDS)
        world = World(case, engine)
        world.hold_all(HELD, busy)
        world.begin()
        worlds[f"model-{number}"] = world
    return worlds


def _shard(model: str) -> int:
    return shard_of(cause_of(CauseKind.RATE, model), SHARDS)


def _busy(shard: Shard) -> float:
    """Return the part of its time in which a loop uses its processor."""
    alive = SECONDS - (DEATH[1] - DEATH[0] if shard.number == 0 else 0.0)
    return sum(shard.used.values()) * CPU_SECONDS * VCPU_MB / (1_024 * MEMORY_GB) / alive


def _dynamodb(requests: Counter[str]) -> float:
    """Return the dollars of the requests of all loops."""
    rows = ceil(MODELS * (TENANTS + STRANGERS) / BUCKETS * ROW_BYTES / READ_BYTES)
    reads = requests["heads"] * HEAD_UNITS + requests["rows"] * rows
    return reads * READ.dollars + (requests["take"] + requests["lease"] + requests["position"]) * WRITE.dollars
