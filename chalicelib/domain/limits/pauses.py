"""Pauses: decisions of operators and tenants that jobs do not start until they are resumed.

A pause has a scope: everything, a job type, a lane, a type in a lane (a queue), or a batch; and it
is for one tenant or, from a key of all tenants, for everybody. It stops what has not begun; what
runs goes on.

The pauses for everybody are on the *board*, one record that every worker reads. Those of a tenant
are in a record of their own, and the board only says of a few buckets of tenants whether one of
them has pauses. So the board is small whatever tenants do, and a worker reads the record of a tenant
only if it may have pauses.

All functions are pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import crc32

from chalicelib.domain.ids import batch_id_of_row
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.units import DAY_MS, Ms

# Of a tenant, and of those for everybody, without batches: every worker reads them. Those that a
# tenant has made, and those that an operator of all tenants has made for it, count apart.
MAX_PAUSES = 20
MAX_BATCH_PAUSES = 20  # of a tenant
MAX_REASON_LENGTH = 200  # code points
MAX_PAUSE_MS = 366 * DAY_MS  # until the end of a pause that has one
BUCKETS = 64  # of tenants


class PauseTarget(NamedTuple):
    """What decides whether a pause covers a job."""

    job_id: str
    tenant: str
    type: str
    lane: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseScope:
    """Which jobs a pause covers: those that match every field that is set."""

    tenant: str | None = None  # None: of every tenant
    type: str | None = None
    lane: str | None = None
    batch: str | None = None

    @property
    def text(self) -> str:
        """The scope in one word, such as `queue:export:low`; without the tenant, unless it is the only field."""
        if self.batch is not None:
            return f"batch:{self.batch}"
        if self.type is not None:
            return f"queue:{self.type}:{self.lane}" if self.lane is not None else f"type:{self.type}"
        if self.lane is not None:
            return f"lane:{self.lane}"
        return "all" if self.tenant is None else f"tenant:{self.tenant}"

    @property
    def cause(self) -> str:
        """What a job of this scope waits for."""
        return cause_of(CauseKind.PAUSE, self.text)

    def covers(self, target: PauseTarget) -> bool:
        """Whether a job is in this scope."""
        wanted = ((self.tenant, target.tenant), (self.type, target.type), (self.lane, target.lane))
        if any(own is not None and own != other for own, other in wanted):
            return False
        return self.batch is None or self.batch == batch_id_of_row(target.job_id)

    def includes(self, other: PauseScope) -> bool:
        """Whether this scope covers every job that the other covers."""
        return all(getattr(self, name) in (None, getattr(other, name)) for name in ("tenant", "type", "lane", "batch"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """One pause. There is at most one for each scope and kind of author."""

    id: str
    scope: PauseScope
    by: str  # the user who asked for it
    since: Ms
    reason: str | None = None
    until: Ms | None = None  # when it ends by itself; None: when it is resumed
    by_stage: bool = False  # its author has a key of all tenants; only such a key ends it

    @property
    def cause(self) -> str:
        """What the jobs that it holds wait for."""
        return self.scope.cause

    def is_over(self, now: Ms) -> bool:
        """Whether it has ended by itself."""
        return self.until is not None and now >= self.until


def pause_id(scope: PauseScope, *, by_stage: bool) -> str:
    """Return the id of the pause of a scope by this kind of author."""
    digest = sha256(repr((scope.tenant, scope.text, by_stage)).encode("utf-8", "surrogatepass")).hexdigest()
    return f"pause_{digest[:24]}"


def pause_of(target: PauseTarget, pauses: Iterable[Pause], now: Ms) -> Pause | None:
    """Return the pause that holds a job back; None: it may start.

    Of several it is the one that ends last, and of those the widest, so that a job does not go from
    one line to the next.
    """
    covering = [pause for pause in pauses if not pause.is_over(now) and pause.scope.covers(target)]
    return max(covering, key=lambda pause: (pause.until is None, pause.until or 0, _width(pause.scope)), default=None)


def line_pause(subject: str, tenant: str, pauses: Iterable[Pause], now: Ms) -> Pause | None:
    """Return the pause that holds back all jobs of a tenant's line; None: the line is open.

    Args:
        subject: what the cause of the line names, the text of a scope.
    """
    scope = parse_scope(subject)
    if scope is None:
        return None
    line = replace(scope, tenant=tenant)
    holding = [pause for pause in pauses if not pause.is_over(now) and pause.scope.includes(line)]
    return max(holding, key=lambda pause: (pause.until is None, pause.until or 0), default=None)


def parse_scope(text: str) -> PauseScope | None:
    """Return the scope that a text names, as `PauseScope.text` writes it; None if it names none."""
    match text.split(":"):
        case ["all"]:
            return PauseScope()
        case ["tenant", _, *_]:
            return PauseScope(tenant=text.partition(":")[2])
        case ["type", kind]:
            return PauseScope(type=kind)
        case ["lane", lane]:
            return PauseScope(lane=lane)
        case ["queue", kind, lane]:
            return PauseScope(type=kind, lane=lane)
        case ["batch", batch]:
            return PauseScope(batch=batch)
    return None


def target_of(job: Job) -> PauseTarget:
    """Return what decides whether a pause covers this job."""
    return PauseTarget(job.id, job.tenant, job.type, job.lane)


def _kind(pause: Pause) -> tuple[bool, bool]:
    return pause.scope.batch is not None, pause.by_stage


def _width(scope: PauseScope) -> tuple[bool, ...]:
    return scope.batch is None, scope.type is None, scope.lane is None, scope.tenant is None


# ---- records


class Bucket(NamedTuple):
    """What the board knows of the tenants in a bucket."""

    endless: int = 0  # how many of them have pauses without an end
    until: Ms = 0  # the latest end of their other pauses


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPauses:
    """The pauses of one tenant."""

    tenant: str
    pauses: tuple[Pause, ...] = ()
    version: int = 0  # 0: never written
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)  # of a newer version of the code

    @property
    def has_endless(self) -> bool:
        """Whether one of them ends only when it is resumed."""
        return any(pause.until is None for pause in self.pauses)

    @property
    def latest_end(self) -> Ms:
        """When the last of those with an end is over; 0: none has one."""
        return max((pause.until for pause in self.pauses if pause.until is not None), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseBoard:
    """The pauses for everybody, and which buckets of tenants may have pauses."""

    pauses: tuple[Pause, ...] = ()
    buckets: Mapping[str, Bucket] = field(default_factory=dict)  # by number; those without pauses are absent
    version: int = 0  # 0: never written
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)  # of a newer version of the code

    def may_concern(self, tenant: str, now: Ms) -> bool:
        """Whether a tenant may have pauses; if not, its record need not be read."""
        bucket = self.buckets.get(bucket_of(tenant), Bucket())
        return bucket.endless > 0 or bucket.until > now


def bucket_of(tenant: str) -> str:
    """Return the number of a tenant's bucket."""
    return str(crc32(tenant.encode("utf-8", "surrogatepass")) % BUCKETS)


def add_pause(pauses: tuple[Pause, ...], pause: Pause, now: Ms) -> tuple[Pause, ...] | None:
    """Add a pause, in place of one with its id, and drop those that are over. None: there are too many.

    Those by the stage count apart: a tenant cannot keep its operator from pausing it.
    """
    kept = tuple(one for one in pauses if one.id != pause.id and not one.is_over(now))
    alike = sum(_kind(one) == _kind(pause) for one in kept)
    return None if alike >= (MAX_BATCH_PAUSES if pause.scope.batch is not None else MAX_PAUSES) else (*kept, pause)


def remove_pause(pauses: tuple[Pause, ...], name: str, now: Ms) -> tuple[Pause, ...]:
    """Remove the pause with this id, and those that are over."""
    return tuple(one for one in pauses if one.id != name and not one.is_over(now))


def find_pause(pauses: Iterable[Pause], name: str, now: Ms) -> Pause | None:
    """Return the pause with this id, unless it is over."""
    return next((one for one in pauses if one.id == name and not one.is_over(now)), None)


def change_board(board: PauseBoard, pauses: tuple[Pause, ...]) -> PauseBoard:
    """Return the board with these pauses for everybody."""
    return replace(board, pauses=pauses, version=board.version + 1)


def change_tenant(seen: TenantPauses, pauses: tuple[Pause, ...]) -> TenantPauses:
    """Return the record of a tenant with these pauses."""
    return replace(seen, pauses=pauses, version=seen.version + 1)


def note_on_board(board: PauseBoard, before: TenantPauses, after: TenantPauses, now: Ms) -> PauseBoard:
    """Return the board when a tenant's record changes from `before` to `after`.

    The number of tenants with endless pauses is exact, because both records change together. An end
    is only a bound: it stays until it has passed.
    """
    name = bucket_of(after.tenant)
    bucket = board.buckets.get(name, Bucket())
    endless = max(0, bucket.endless + after.has_endless - before.has_endless)
    changed = {**board.buckets, name: Bucket(endless, max(bucket.until, after.latest_end))}
    buckets = {number: one for number, one in changed.items() if one.endless or one.until > now}
    return replace(board, buckets=buckets, version=board.version + 1)
