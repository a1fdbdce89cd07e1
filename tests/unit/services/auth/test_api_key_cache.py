"""The cache of API keys: how often keys are read, and how many are kept."""

from __future__ import annotations

from dataclasses import replace

from chalicelib.adapters.memory.auth import MemoryApiKeys
from chalicelib.adapters.memory.clock import START, ManualClock
from chalicelib.domain.auth.identity import Key, Role
from chalicelib.services.auth.authenticate import MAX_CACHED_KEYS, ApiKeyCache

KEY = Key(id="key_1", hash="hash", tenant="acme", user="ann", role=Role.USER, created_at=START)


class CountingKeys(MemoryApiKeys):
    """`reads` are the hashes that were read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def key(self, key_hash: str) -> Key | None:
        self.reads.append(key_hash)
        return super().key(key_hash)


def test_a_key_is_read_twice_a_minute_however_often_it_is_used() -> None:
    keys, clock = CountingKeys(), ManualClock()
    keys.put_key(KEY)
    cache = ApiKeyCache(keys, clock)

    for _ in range(600):
        assert cache.caller("hash") is not None
        clock.advance(0.1)

    assert len(keys.reads) == 2


def test_a_revoked_key_is_refused_within_half_a_minute_and_read_no_more_often() -> None:
    keys, clock = CountingKeys(), ManualClock()
    keys.put_key(KEY)
    cache = ApiKeyCache(keys, clock)
    cache.caller("hash")

    keys.put_key(replace(KEY, revoked_at=clock.now()))
    clock.advance(30)

    assert [cache.caller("hash") for _ in range(100)] == [None] * 100
    assert len(keys.reads) == 2


def test_a_new_key_works_at_once_after_it_was_unknown() -> None:
    keys = CountingKeys()
    cache = ApiKeyCache(keys, ManualClock())
    assert cache.caller("hash") is None

    keys.put_key(KEY)

    assert cache.caller("hash") is not None


def test_the_number_of_cached_keys_is_bounded() -> None:
    """The key that was not used for longest gives way; unknown keys take no place."""
    keys = CountingKeys()
    cache = ApiKeyCache(keys, ManualClock())
    for number in range(MAX_CACHED_KEYS + 1):
        keys.put_key(replace(KEY, id=f"key_{number}", hash=f"hash-{number}"))
        cache.caller(f"hash-{number}")
        cache.caller(f"unknown-{number}")
    keys.reads.clear()

    cache.caller(f"hash-{MAX_CACHED_KEYS}")
    cache.caller("hash-1")
    cache.caller("hash-0")

    assert keys.reads == ["hash-0"]
