"""A job record as an item of the table `jobs`, and the keys of its indexes.

Budget: 900 bytes for a typical job, so that every state change is one write unit. Hence the short
names, and None and empty defaults are not stored. The indexes are chosen by what a change costs:
one unit for each index entry that is added, removed or rewritten.

| index | partition | order | holds | written |
|---|---|---|---|---|
| `by_tenant` | `<tenant>#0` | id | all | once: nothing in it ever changes |
| `by_user` | `<tenant>#<user>` | id | all | once |
| `by_state` | `<tenant>#<class>` | id, or `<finished_at>#<id>` | all but completed | `active`: queued and processing are one |
| `due` | `w#<queue>#<n>`, `e#<n>`, `h#<n>` or `t#<n>` | `due_at` | unfinished, or its end is due | queued and processing are one |
| `by_line` | `<tenant>#<cause>` | `<lane>#<queued_at>#<id>` | held in a line | when it is held, and when it leaves the line |

In `by_line`, a line by user is `<tenant>#<cause>#u`, and its order `<user>#<lane>#<queued_at>#<id>`.

So a claim of a queued job changes no index and costs one unit. The claim of a `retrying` job moves
it from `t` to `w` and to `active`, which is four more, and rare. `w` (queued and processing) is
apart from `t` (waiting for a time) because a deep queue must not hide the retries behind it, and
so is `e`, the outbox: ended jobs whose recipients or dependents are not served yet, and `h`: jobs that
a scheduler releases. `n` is a shard: every job passes through this index, and one partition would be
too hot.

All partitions of a tenant but those of `due` are followed by `#<n>` if its lists have several shards and
the job is not in the first one.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from pynamodb.attributes import Attribute, BooleanAttribute, UnicodeAttribute
from pynamodb.constants import STRING
from pynamodb.indexes import GlobalSecondaryIndex, IncludeProjection, KeysOnlyProjection

from chalicelib.adapters.decoding import checked
from chalicelib.adapters.dynamodb.client import IntAttribute, Item, Raw, decoded
from chalicelib.adapters.dynamodb.json_record import known_fields, non_default_fields
from chalicelib.domain.jobs.index_keys import (
    ENDED,
    IN_LINE,
    LISTED_BY_END,
    due_partition,
    due_shard,
    line_key,
    place_in_line,
    shard_key,
    sort_key,
    tenant_shard,
)
from chalicelib.domain.jobs.job import Job, JobError, JobPause, Status, Usage, Wait

T = TypeVar("T")
ENDED_KEY = "e#"  # of the outbox: ended jobs whose recipients or dependents are not served


class RecordAttribute(Attribute[T]):
    """A small dataclass as JSON without its default values, or a tuple of strings as a JSON list."""

    attr_type = STRING

    def __init__(self, kind: type[T], **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    def serialize(self, value: Any) -> str:
        if not isinstance(value, tuple):
            value = non_default_fields(value)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def deserialize(self, value: Any) -> T:
        stored: Any = json.loads(value)
        if isinstance(stored, list):
            if not all(isinstance(one, str) for one in stored):
                raise TypeError("not all of the list are texts")
            return self.kind(stored)  # type: ignore[call-arg]
        return checked(self.kind(**known_fields(self.kind, stored)))


class ByTenant(GlobalSecondaryIndex["JobItem"]):  # type: ignore[no-untyped-call]
    class Meta:
        index_name = "by_tenant"
        projection = IncludeProjection(["type", "user", "batch"])

    g_t = UnicodeAttribute(hash_key=True)
    id = UnicodeAttribute(range_key=True)


class ByUser(GlobalSecondaryIndex["JobItem"]):  # type: ignore[no-untyped-call]
    class Meta:
        index_name = "by_user"
        projection = KeysOnlyProjection()

    g_u = UnicodeAttribute(hash_key=True)
    id = UnicodeAttribute(range_key=True)


class ByState(GlobalSecondaryIndex["JobItem"]):  # type: ignore[no-untyped-call]
    class Meta:
        index_name = "by_state"
        projection = KeysOnlyProjection()

    g_s = UnicodeAttribute(hash_key=True)
    g_sk = UnicodeAttribute(range_key=True)


class Due(GlobalSecondaryIndex["JobItem"]):  # type: ignore[no-untyped-call]
    class Meta:
        index_name = "due"
        projection = KeysOnlyProjection()

    g_d = UnicodeAttribute(hash_key=True)
    due_at = IntAttribute(range_key=True)


class ByLine(GlobalSecondaryIndex["JobItem"]):  # type: ignore[no-untyped-call]
    class Meta:
        index_name = "by_line"
        projection = IncludeProjection(["type", "lane", "model", "user", "t", "queued", "gen", "tokens", "crashes"])

    g_l = UnicodeAttribute(hash_key=True)
    g_lk = UnicodeAttribute(range_key=True)


class WaitsAttribute(Attribute[tuple[Wait, ...]]):
    """The waits of a job as a JSON list of `[reason, since, until, cause]`."""

    attr_type = STRING

    def serialize(self, value: Any) -> str:
        return json.dumps([[wait.reason, wait.since, wait.until, wait.cause] for wait in value], separators=(",", ":"))

    def deserialize(self, value: str) -> tuple[Wait, ...]:
        return tuple(
            checked(Wait(reason=reason, since=since, until=until, cause=cause)) for reason, since, until, cause, *_ in json.loads(value)
        )


class JobItem(Item):
    """The attributes have the names of the fields of `Job`.

    `attr_name` is the short name in the table.
    """

    id = UnicodeAttribute(hash_key=True)
    tenant = UnicodeAttribute(attr_name="t")
    user = UnicodeAttribute()
    key_id = UnicodeAttribute(attr_name="key")
    type = UnicodeAttribute()
    lane = UnicodeAttribute()
    model = UnicodeAttribute()
    status = UnicodeAttribute()
    created_at = IntAttribute(attr_name="created")
    queued_at = IntAttribute(attr_name="queued")
    expires_at = IntAttribute(attr_name="exp")
    due_at = IntAttribute(null=True)
    generation = IntAttribute(attr_name="gen")
    attempt = IntAttribute(null=True)
    run = IntAttribute()
    tries = IntAttribute(null=True)
    version = IntAttribute(attr_name="v")
    max_attempts = IntAttribute(attr_name="max")
    started_at = IntAttribute(null=True, attr_name="start")
    first_token_at = IntAttribute(null=True, attr_name="first")
    finished_at = IntAttribute(null=True, attr_name="fin")
    updated_at = IntAttribute(null=True, attr_name="upd")
    retry_until = IntAttribute(null=True, attr_name="until")
    owner = UnicodeAttribute(null=True)
    crashes = IntAttribute(null=True)
    run_alone = BooleanAttribute(null=True, attr_name="alone")
    isolated_crashes = IntAttribute(null=True, attr_name="i_crashes")
    resume_at = IntAttribute(null=True, attr_name="resume")
    cancel_requested = BooleanAttribute(null=True, attr_name="cancel")
    reason = UnicodeAttribute(null=True)
    error = RecordAttribute(JobError, null=True, attr_name="err")
    invalid_answer = UnicodeAttribute(null=True, attr_name="bad")
    incomplete_reason = UnicodeAttribute(null=True, attr_name="inc")
    length = IntAttribute(null=True, attr_name="len")
    usage = RecordAttribute(Usage, null=True)
    cost = IntAttribute(null=True)
    estimated_cost = IntAttribute(null=True, attr_name="e_cost")
    max_cost = IntAttribute(null=True, attr_name="m_cost")
    estimated_ms = IntAttribute(null=True, attr_name="e_ms")
    tags = RecordAttribute(tuple, null=True)
    dedupe_key = UnicodeAttribute(null=True, attr_name="dedupe")
    batch_id = UnicodeAttribute(null=True, attr_name="batch")
    response_id = UnicodeAttribute(null=True, attr_name="resp")
    response_at = IntAttribute(null=True, attr_name="resp_at")
    fallback_models = RecordAttribute(tuple, null=True, attr_name="fallback")
    attempt_model = UnicodeAttribute(null=True, attr_name="a_model")
    notifies = BooleanAttribute(null=True, attr_name="notify")
    has_dependents = BooleanAttribute(null=True, attr_name="parent")
    cause = UnicodeAttribute(null=True)
    line_by_user = BooleanAttribute(null=True, attr_name="l_user")
    tokens = IntAttribute(null=True)
    slots = RecordAttribute(tuple, null=True)
    places = RecordAttribute(tuple, null=True)
    waits = WaitsAttribute(null=True)
    pause = RecordAttribute(JobPause, null=True)
    shards = IntAttribute(null=True, attr_name="sh")
    ttl = IntAttribute(null=True)

    g_t = UnicodeAttribute()
    g_u = UnicodeAttribute()
    g_s = UnicodeAttribute(null=True)
    g_sk = UnicodeAttribute(null=True)
    g_d = UnicodeAttribute(null=True)
    g_l = UnicodeAttribute(null=True)
    g_lk = UnicodeAttribute(null=True)

    by_tenant = ByTenant()
    by_user = ByUser()
    by_state = ByState()
    due = Due()
    by_line = ByLine()


_FIELDS = {field.name: field.default for field in fields(Job)}


def item_of(model: type[JobItem], job: Job) -> JobItem:
    """Return the complete item of a job record."""
    values = {name: getattr(job, name) for name in _FIELDS}
    stored = {name: value for name, value in values.items() if not _is_default(name, value)}
    stored["status"] = job.status.value
    stored |= index_keys(job)
    return model(**stored)


@decoded
def job_of(item: JobItem) -> Job:
    stored = {name: getattr(item, name) for name in _FIELDS}
    present = {name: value for name, value in stored.items() if value is not None or _FIELDS[name] is MISSING}
    return Job(**{**present, "status": Status(item.status)})


def job_of_raw(raw: Raw) -> Job:
    """Return the job record of a raw item: of a failed condition or of the change stream.

    Raises:
        UnreadableRecord: another version of the code wrote it.
    """
    return job_of(JobItem.from_raw_data(raw))


def index_keys(job: Job) -> dict[str, str]:
    """Return the keys of the indexes. An index holds only the jobs that have its keys."""
    shard = tenant_shard(job)
    keys = {"g_t": shard_key(tenant_key(job.tenant), shard), "g_u": shard_key(user_key(job.tenant, job.user), shard)}
    if job.status is not Status.COMPLETED:
        keys["g_s"] = shard_key(state_key(job.tenant, job.status), shard)
        keys["g_sk"] = sort_key(job, by_end=job.status in LISTED_BY_END)
    if job.due_at is not None:
        keys["g_d"] = due_key(due_partition(job), due_shard(job.id))
    if job.cause is not None and job.is_in_line:
        keys |= {"g_l": shard_key(line_key(job.tenant, job.cause, by_user=job.line_by_user), shard), "g_lk": place_in_line(job)}
    return keys


def due_key(partition: str | None, shard: int) -> str:
    if partition == ENDED:
        return f"{ENDED_KEY}{shard}"
    if partition == IN_LINE:
        return f"h#{shard}"
    return f"w#{partition}#{shard}" if partition else f"t#{shard}"


def tenant_key(tenant: str) -> str:
    return f"{tenant}#0"


def user_key(tenant: str, user: str) -> str:
    """Names may contain a `#`, so a partition may hold jobs of two users: whoever lists them compares the records."""
    return f"{tenant}#{user}"


def state_key(tenant: str, status: Status) -> str:
    return f"{tenant}#{'active' if status in (Status.QUEUED, Status.PROCESSING) else status.value}"


def _is_default(name: str, value: Any) -> bool:
    """Whether a value is not stored. Attributes that an item must have are stored even then, unless they are empty."""
    default = _FIELDS[name]
    return default is not MISSING and value == default and (not default or getattr(JobItem, name).null)
