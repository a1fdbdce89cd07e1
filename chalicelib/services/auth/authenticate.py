"""Who is asking: keys and tickets, by the hash of their secret."""

from __future__ import annotations

import secrets
from dataclasses import replace
from hashlib import sha256

from chalicelib.domain.auth.identity import Caller, Key
from chalicelib.domain.errors import Unauthenticated
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming.subscriptions import Ticket
from chalicelib.domain.units import Ms
from chalicelib.ports import ApiKeys, Clock, Tickets

CACHE_TTL_MS = 30_000  # how long a key that was looked up is trusted: a revocation holds within 60 s everywhere
FRESH_MS = 60_000  # how long a ticket may open a WebSocket


def new_secret(prefix: str) -> str:
    """256 random bits, as text that starts with `prefix`."""
    return prefix + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class ApiKeyCache:
    """The keys that were looked up lately, for one environment. Unknown ones are asked for each time, so that a new key works at once."""

    def __init__(self, api_keys: ApiKeys, clock: Clock) -> None:
        self._api_keys, self._clock = api_keys, clock
        self._kept: dict[str, tuple[Key, Ms]] = {}

    def caller(self, key_hash: str) -> Caller | None:
        """Whom a key speaks for; None: it is unknown, expired or revoked."""
        now = self._clock.now()
        key, until = self._kept.get(key_hash, (None, 0))
        if key is None or now >= until:
            key = self._api_keys.key(key_hash)
            if key is None:
                self._kept.pop(key_hash, None)
                return None
            self._kept[key_hash] = (key, now + CACHE_TTL_MS)
        return Caller.of_key(key) if key.is_valid(now) else None

    def may_read_job(self, key_hash: str, job: Job) -> bool:
        """Whether the key, as it is now, may read the content of a job that it watches."""
        caller = self.caller(key_hash)
        return caller is not None and caller.may_read_content(job)


def authenticate_bearer(cache: ApiKeyCache, authorization: str | None) -> Caller:
    """The caller of an `Authorization: Bearer hr_...` header.

    Raises:
        Unauthenticated: there is none, or its key is not valid.
    """
    scheme, _, secret = (authorization or "").partition(" ")
    caller = cache.caller(secret_hash(secret.strip())) if scheme.lower() == "bearer" and secret.strip() else None
    if caller is None:
        raise Unauthenticated
    return caller


def authenticate_ticket(cache: ApiKeyCache, tickets: Tickets, clock: Clock, secret: str, connection_id: str | None = None) -> Caller:
    """The caller of a `?ticket=`: whom its key speaks for now, limited to what the ticket names.

    For a WebSocket, `connection_id`, it must be fresh and opens one connection.

    Raises:
        Unauthenticated: it is unknown, too old or used, or the key that it was made with is not valid any more.
    """
    hashed, now = secret_hash(secret), clock.now()
    ticket = tickets.get(hashed)
    present = cache.caller(ticket.caller.key_hash) if ticket is not None and now < ticket.expires_at else None
    if ticket is None or present is None:
        raise Unauthenticated("This ticket is unknown or has expired. Ask for a new one: POST /stream-tickets.")
    if connection_id is not None and (now >= ticket.created_at + FRESH_MS or not tickets.use(hashed, connection_id)):
        raise Unauthenticated("A ticket opens one WebSocket, within 60 s. Ask for a new one: POST /stream-tickets.")
    return present.restricted_to(ticket.caller)


def issue_ticket(tickets: Tickets, clock: Clock, caller: Caller, jobs: frozenset[str] | None, lasts_ms: Ms) -> tuple[str, Ticket]:
    """A read-only ticket for `jobs`, or for all that the caller may read. The secret is told once and kept only as a hash."""
    secret, now = new_secret("hrt_"), clock.now()
    narrowed = replace(caller, jobs=jobs, read_only=True)
    ticket = Ticket(hash=secret_hash(secret), caller=narrowed, created_at=now, expires_at=now + lasts_ms)
    tickets.put(ticket)
    return secret, ticket
