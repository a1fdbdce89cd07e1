"""The OpenAI credentials, from the secret `headrace/<stage>/openai` in AWS Secrets Manager.

The secret is read at its first use, cached for five minutes and then read again. So a new key is in
use everywhere soon after it was stored, without a deployment. Reads cost $0.05 for 10,000, so their
number does not grow with that of the jobs, also while there is no key or OpenAI refuses it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from threading import Lock

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.names import openai_secret_name
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failures import NotConfigured
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock

MISSING_TTL_MS = 5_000  # how long the absence of a key is remembered
REFUSED_TTL_MS = 15_000  # between two reads because OpenAI has refused the key

ABSENT = frozenset({"ResourceNotFoundException", "InvalidRequestException"})  # never stored, or deleted


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach OpenAI or a compatible server. Printing it does not show the key."""

    api_key: str = field(repr=False)
    base_url: str | None = None
    organization: str | None = None
    project: str | None = None


class SecretsManagerCredentials:
    """A callable that returns the credentials.

    `forget()` drops the cached ones after OpenAI has refused the key. An environment reads the secret
    every five minutes; every five seconds at most while there is no key, and every 15 at most because
    the key was refused.
    """

    def __init__(self, stage: str, clock: Clock, cache_seconds: int = 300) -> None:
        self._name = openai_secret_name(stage)
        self._clock = clock
        self._cache_ms = cache_seconds * 1000
        self._cached: tuple[Ms, Credentials] | None = None
        self._missing_until: Ms = 0
        self._refused = False  # the cached key was refused, and has to be read again
        self._reread_at: Ms | None = None
        self._lock = Lock()

    def __call__(self) -> Credentials:
        """Return the credentials.

        Raises:
            NotConfigured: there is no such secret, or no key in it.
            Unavailable: the secret could not be read, and none is cached.
        """
        with self._lock:
            now = self._clock.now()
            if now < self._missing_until:
                raise NotConfigured
            if self._cached is None or now - self._cached[0] >= self._cache_ms or self._is_to_be_reread(now):
                self._refused = False
                try:
                    self._cached = (now, self._refresh(self._cached and self._cached[1]))
                except NotConfigured:
                    self._cached, self._missing_until = None, now + MISSING_TTL_MS
                    raise
            return self._cached[1]

    def forget(self) -> None:
        """Read the secret at the next call, but not more often than every 15 seconds."""
        with self._lock:
            self._refused = True

    def _is_to_be_reread(self, now: Ms) -> bool:
        if not self._refused or (self._reread_at is not None and now - self._reread_at < REFUSED_TTL_MS):
            return False
        self._reread_at = now
        return True

    def _refresh(self, cached: Credentials | None) -> Credentials:
        try:
            return self._read()
        except Unavailable:
            if cached is None:
                raise
            return cached  # the key worked until now, so an outage of Secrets Manager need not stop jobs

    def _read(self) -> Credentials:
        from botocore.exceptions import ClientError

        try:
            with aws.translate_errors():
                response = aws.client("secretsmanager").get_secret_value(SecretId=self._name)
        except ClientError as exc:
            if aws.error_code(exc) in ABSENT:
                raise NotConfigured from exc
            raise
        return parse(response.get("SecretString") or "")


def parse(secret: str) -> Credentials:
    """Parse a secret: `{"api_key", "base_url"?, "organization"?, "project"?}`, or the bare key.

    Raises:
        NotConfigured: there is no key in it.
    """
    try:
        stored = json.loads(secret)
    except ValueError:
        stored = secret.strip()
    fields = stored if isinstance(stored, dict) else {"api_key": stored}
    known = {name: str(fields[name]).strip() for name in ("api_key", "base_url", "organization", "project") if fields.get(name)}
    if not known.get("api_key", "").isascii() or "api_key" not in known:  # an HTTP header cannot carry other characters
        raise NotConfigured
    return Credentials(**known)
