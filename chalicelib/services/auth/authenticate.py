"""Authenticate callers by API key or ticket. Secrets are stored only as hashes."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import replace
from hashlib import sha256

from chalicelib.domain.auth.identity import Caller, Key
from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.errors import Unauthenticated
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming.subscriptions import Ticket
from chalicelib.domain.units import Ms
from chalicelib.ports import ApiKeys, Clock, Tickets

CACHE_TTL_MS = 30_000  # how long a key is cached; a revocation applies everywhere within 60 s
MAX_CACHED_KEYS = 10_000  # in one environment, about 1 KB each
MAX_OPENING_AGE_MS = 60_000  # how old a ticket may be when it opens a WebSocket


def new_secret(prefix: str) -> str:
    """Return 256 random bits as text, after `prefix`."""
    return prefix + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """Return the hash under which a secret is stored."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class ApiKeyCache:
    """A cache of API keys: each is read at most twice a minute in an environment.

    Unknown keys are not cached, so that a new key works at once.
    """

    def __init__(self, api_keys: ApiKeys, clock: Clock) -> None:
        self._api_keys, self._clock = api_keys, clock
        self._entries = BoundedCache[str, tuple[Key, Ms]](MAX_CACHED_KEYS)

    def caller(self, key_hash: str) -> Caller | None:
        """Return the caller of a key; None if it is unknown, expired or revoked."""
        now = self._clock.now()
        key, until = self._entries.get(key_hash) or (None, 0)
        if key is None or now >= until:
            key = self._api_keys.key(key_hash)
            if key is None:
                self._entries.remove(key_hash)
                return None
            self._entries.put(key_hash, (key, now + CACHE_TTL_MS))
        return Caller.of_key(key) if key.is_valid(now) else None

    def readers(self, key_hashes: Collection[str], job: Job) -> set[str]:
        """Return those of the keys that may still read the content of a job.

        Keys that are not cached are read together: one request for each hundred.
        """
        now = self._clock.now()
        cached = {key_hash: entry for key_hash in key_hashes if (entry := self._entries.get(key_hash)) is not None}
        keys = {key_hash: key for key_hash, (key, until) in cached.items() if now < until}
        unknown = [key_hash for key_hash in key_hashes if key_hash not in keys]
        found = {key.hash: key for key in self._api_keys.many(unknown)} if unknown else {}
        for key_hash in unknown:
            if key_hash in found:
                self._entries.put(key_hash, (found[key_hash], now + CACHE_TTL_MS))
            else:
                self._entries.remove(key_hash)
        return {key_hash for key_hash, key in (keys | found).items() if key.is_valid(now) and Caller.of_key(key).may_read_content(job)}


def authenticate_bearer(cache: ApiKeyCache, authorization: str | None) -> Caller:
    """Return the caller of an `Authorization: Bearer hr_...` header.

    Raises:
        Unauthenticated: there is no such header, or its key is not valid.
    """
    scheme, _, secret = (authorization or "").partition(" ")
    caller = cache.caller(secret_hash(secret.strip())) if scheme.lower() == "bearer" and secret.strip() else None
    if caller is None:
        raise Unauthenticated
    return caller


def authenticate_ticket(cache: ApiKeyCache, tickets: Tickets, clock: Clock, secret: str, connection_id: str | None = None) -> Caller:
    """Return the caller of a `?ticket=` parameter: that of its API key, restricted by the ticket.

    Args:
        connection_id: the WebSocket that the ticket opens. It must be fresh then, and opens only
            one.

    Raises:
        Unauthenticated: it is unknown, too old or used, or its API key is not valid any more.
    """
    hashed, now = secret_hash(secret), clock.now()
    ticket = tickets.get(hashed)
    current = cache.caller(ticket.caller.key_hash) if ticket is not None and now < ticket.expires_at else None
    if ticket is None or current is None:
        raise Unauthenticated("This ticket is unknown or has expired. Ask for a new one: POST /stream-tickets.")
    if connection_id is not None and (now >= ticket.created_at + MAX_OPENING_AGE_MS or not tickets.use(hashed, connection_id)):
        raise Unauthenticated("A ticket opens one WebSocket, within 60 s. Ask for a new one: POST /stream-tickets.")
    return current.restricted_to(ticket.caller)


def issue_ticket(tickets: Tickets, clock: Clock, caller: Caller, jobs: frozenset[str] | None, ttl_ms: Ms) -> tuple[str, Ticket]:
    """Create a read-only ticket for `jobs`, or for all jobs that the caller may read if None.

    Returns:
        The secret, which is not stored and cannot be read again, and the ticket.
    """
    secret, now = new_secret("hrt_"), clock.now()
    restricted = replace(caller, jobs=jobs, read_only=True)
    ticket = Ticket(hash=secret_hash(secret), caller=restricted, created_at=now, expires_at=now + ttl_ms)
    tickets.put(ticket)
    return secret, ticket
