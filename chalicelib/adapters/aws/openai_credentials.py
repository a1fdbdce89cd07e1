"""The OpenAI credentials, from the secret `headrace/<stage>/openai` in AWS Secrets Manager.

The secret is read at its first use, cached for five minutes and then read again. So a new key is in
use everywhere soon after it was stored, without a deployment. Reads cost $0.05 for 10,000.
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

    `forget()` drops the cached ones after OpenAI has refused the key.
    """

    def __init__(self, stage: str, clock: Clock, cache_seconds: int = 300) -> None:
        self._name = openai_secret_name(stage)
        self._clock = clock
        self._cache_ms = cache_seconds * 1000
        self._cached: tuple[Ms, Credentials] | None = None
        self._lock = Lock()

    def __call__(self) -> Credentials:
        """Return the credentials.

        Raises:
            NotConfigured: there is no such secret, or no key in it.
            Unavailable: the secret could not be read, and none is cached.
        """
        with self._lock:
            now = self._clock.now()
            if self._cached is None or now - self._cached[0] >= self._cache_ms:
                self._cached = (now, self._refresh(self._cached and self._cached[1]))
            return self._cached[1]

    def forget(self) -> None:
        """Drop the cached credentials, so that the next call reads the secret."""
        with self._lock:
            self._cached = None

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
