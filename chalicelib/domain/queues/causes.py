"""What jobs wait for. A cause is one text, `<kind>:<subject>`, such as `rate:gpt-4o`.

The held jobs of one tenant and one cause are a line. The lines of one cause belong to one bucket,
and each bucket to one shard of the scheduler.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from zlib import crc32

BUCKETS = 16  # of lines: as many shards of the scheduler are possible


class CauseKind(StrEnum):
    """What kind of thing a job waits for; the subject says which one."""

    OPENAI = "openai"  # what is needed to ask OpenAI: a `key`, an `address`, or a `worker` that can
    CIRCUIT = "circuit"  # the circuit of a model
    RATE = "rate"  # the requests and tokens that a model takes in a minute
    TYPE = "type"  # the limits of a job type
    PAUSE = "pause"  # the end of a pause; the subject is its scope
    SLOTS = "slots"  # a free slot of the concurrency of a tenant or user; the subject is the scope
    CODE = "code"  # a version of the code that knows a job type


def cause_of(kind: CauseKind, subject: str = "") -> str:
    """Return the cause as it is stored."""
    return f"{kind.value}:{subject}"


def kind_of(cause: str) -> CauseKind | None:
    """Return the kind of a cause; None if only a newer version of the code knows it."""
    kind = cause.partition(":")[0]
    return CauseKind(kind) if kind in CauseKind.__members__.values() else None


def subject_of(cause: str) -> str:
    """Return what the cause is about, such as the model."""
    return cause.partition(":")[2]


def cause_mark(cause: str) -> str:
    """Return what stands for a cause in keys: short, whatever characters its subject has."""
    return sha256(cause.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def bucket_of(cause: str) -> int:
    """Return the bucket of the lines of a cause, 0 to `BUCKETS` - 1."""
    return crc32(cause_mark(cause).encode()) % BUCKETS


def shard_of(cause: str, shards: int) -> int:
    """Return which of so many shards of the scheduler serves a cause."""
    return bucket_of(cause) % shards


MISSING_KEY = cause_of(CauseKind.OPENAI, "key")
