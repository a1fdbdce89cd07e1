"""The OpenAI key, from AWS Secrets Manager: `headrace/<stage>/openai`.

A secret is read when it is first needed, kept for some minutes and then read again, so that a new key is in use everywhere soon after it
was stored, without a deployment. One read is $0.05 for 10,000.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from threading import Lock

from chalicelib.adapters.aws import client as aws
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.failures import NotConfigured
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock

ABSENT = frozenset({"ResourceNotFoundException", "InvalidRequestException"})  # never stored, or deleted


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach OpenAI, or something that speaks like it. Printing it does not show the key."""

    api_key: str = field(repr=False)
    base_url: str | None = None
    organization: str | None = None
    project: str | None = None


def secret_name(stage: str) -> str:
    return f"headrace/{stage}/openai"


class SecretsManagerCredentials:
    """Call it for the credentials. `forget()` makes the next call read them anew: after OpenAI refused the key."""

    def __init__(self, stage: str, clock: Clock, keep_seconds: int = 300) -> None:
        self._name = secret_name(stage)
        self._clock = clock
        self._keep_ms = keep_seconds * 1000
        self._kept: tuple[Ms, Credentials] | None = None
        self._lock = Lock()

    def __call__(self) -> Credentials:
        """The credentials.

        Raises:
            NotConfigured: there is no such secret, or no key in it.
            Unavailable: it could not be read just now, and none had been.
        """
        with self._lock:
            now = self._clock.now()
            if self._kept is None or now - self._kept[0] >= self._keep_ms:
                self._kept = (now, self._newer(self._kept and self._kept[1]))
            return self._kept[1]

    def forget(self) -> None:
        with self._lock:
            self._kept = None

    def _newer(self, known: Credentials | None) -> Credentials:
        try:
            return self._read()
        except Unavailable:
            if known is None:
                raise
            return known  # no reason to stop: it is a key that worked

    def _read(self) -> Credentials:
        from botocore.exceptions import ClientError

        try:
            with aws.translate_errors():
                answer = aws.client("secretsmanager").get_secret_value(SecretId=self._name)
        except ClientError as exc:
            if aws.error_code(exc) in ABSENT:
                raise NotConfigured from exc
            raise
        return parse(answer.get("SecretString") or "")


def parse(secret: str) -> Credentials:
    """Read a secret: `{"api_key", "base_url"?, "organization"?, "project"?}`, or the bare key.

    Raises:
        NotConfigured: there is no key in it.
    """
    try:
        stored = json.loads(secret)
    except ValueError:
        stored = secret.strip()
    fields = stored if isinstance(stored, dict) else {"api_key": stored}
    known = {name: str(fields[name]).strip() for name in ("api_key", "base_url", "organization", "project") if fields.get(name)}
    if not known.get("api_key", "").isascii() or "api_key" not in known:  # a header could not carry another
        raise NotConfigured
    return Credentials(**known)
