"""The slots of concurrency limits: how many jobs of a tenant, of a user or of a type run at once.

A slot belongs to a scope: `t:<tenant>`, `u:<tenant>#<user>` or `y:<type>`. The claim of a job takes
one of each of its limited scopes, and whatever ends the attempt gives them back, in the write of the
job's record. So no slot leaks and none is given back twice.

A busy scope is counted in several shards, `<scope>#<k>`, because two transactions on one item
cancel each other. All its shards together have as many slots as the limit. A job asks for its own
shard first, the same in each of its scopes, and for the next one that has room otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

SLOTS_A_SHARD = 16  # at least, before a scope is counted in more shards
MAX_SHARDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLimit:
    """A scope and how many of its jobs may run at once.

    Attributes:
        former_shards: as many shards may be in use, because the limit was higher once.
    """

    scope: str
    limit: int
    former_shards: int = 1

    @property
    def shards(self) -> int:
        return shards_of(self.limit)

    @property
    def keys(self) -> dict[str, int]:
        """The key of each shard and how many slots it has: none if only a higher limit had it."""
        each, rest = divmod(self.limit, self.shards)
        limits = [each + (k < rest) for k in range(self.shards)] + [0] * (self.former_shards - self.shards)
        return {slot_key(self.scope, k): limit for k, limit in enumerate(limits)}

    def used(self, taken: Mapping[str, int]) -> int:
        """Return how many slots are in use, by the numbers taken of each key."""
        return sum(max(0, taken.get(key, 0)) for key in self.keys)

    def free(self, taken: Mapping[str, int]) -> int:
        """Return how many more jobs may begin."""
        return max(0, self.limit - self.used(taken))

    def choose(self, job_id: str, taken: Mapping[str, int]) -> str | None:
        """Return the key of a free slot for a job; None: there is none."""
        if not self.free(taken):
            return None
        keys, first = list(self.keys.items()), crc32(job_id.encode()) % self.shards
        ordered = (*keys[first : self.shards], *keys[:first])
        return next((key for key, limit in ordered if taken.get(key, 0) < limit), None)


@dataclass(frozen=True, slots=True)
class Taken:
    """A free slot in each limited scope of a job: the keys with the slots of their shards."""

    limits: Mapping[str, int]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.limits)


def shards_of(limit: int) -> int:
    """Return in how many shards a scope with this limit is counted: a power of two."""
    shards = 1
    while shards < MAX_SHARDS and shards * 2 * SLOTS_A_SHARD <= limit:
        shards *= 2
    return shards


def tenant_scope(tenant: str) -> str:
    return f"t:{tenant}"


def user_scope(tenant: str, user: str) -> str:
    return f"u:{tenant}#{user}"


def type_scope(job_type: str) -> str:
    return f"y:{job_type}"


def slot_key(scope: str, shard: int) -> str:
    return f"{scope}#{shard}"


def scope_of(key: str) -> str:
    """Return the scope of a slot's key."""
    return key.rpartition("#")[0]


def slot_keys(job_id: str, limits: Iterable[SlotLimit], taken: Mapping[str, int] | None = None) -> Taken | str:
    """Return a free slot for the job in each scope, or the first scope that has none.

    Args:
        taken: how many slots of each key are in use; a key that is absent has none in use.
    """
    chosen: dict[str, int] = {}
    for limit in limits:
        key = limit.choose(job_id, taken or {})
        if key is None:
            return limit.scope
        chosen[key] = limit.keys[key]
    return Taken(chosen)
